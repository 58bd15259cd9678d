"""Solvers among the methods: scale 0 is the solver of the field alone, other scales are refused, costs are told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.steering import METHODS, Measurement, operators

SOLVERS = [name for name, method in METHODS.items() if method.rule is None]
PATH, MIXTURE, X = paths.linear(), mixtures.ring(3), jnp.array([0.7, -0.4])
MEASUREMENT = Measurement(operators.matrix(np.array([[1.0, 2.0]])), jnp.array([0.5]), 0.3)
TS = np.linspace(0, 1, 4)


def _end(solver):
    return np.asarray(jax.jit(lambda key: solvers.integrate(solver, key, X, TS))(jax.random.key(0)))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_scale_known_as_0_is_the_solver_alone_and_parts_of_1_are_refused(name):
    method, field = METHODS[name], guidance.given(MIXTURE.vector_field(PATH), 1)
    at = [_end(method.make_solver(PATH, field, MEASUREMENT, solvers.euler, scale)) for scale in (0.0, 1.0)]
    plain = _end(solvers.euler(field))
    np.testing.assert_array_equal(at[0], plain)
    assert np.max(np.abs(at[1] - plain)) > 0.01
    assert not method.is_graded
    with pytest.raises(ValueError, match=f"scale must be 0 or 1, known, for {name}, got 0.5"):
        method.make_solver(PATH, field, MEASUREMENT, solvers.euler, 0.5)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_evaluates_the_field_as_often_as_is_told(name):
    def build(field):
        guided = guidance.given(guidance.classifier_free(field, 2.0, 3), 1)
        return METHODS[name].make_solver(PATH, guided, MEASUREMENT, solvers.euler, 1.0)

    for count, each in (
        (solvers.num_function_evaluations, METHODS[name].evaluations),
        (solvers.num_vector_jacobian_products, METHODS[name].products),
    ):
        assert count(build, MIXTURE.vector_field(PATH), X, TS).tolist() == [2 * each] * 3
