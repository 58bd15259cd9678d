"""Adaptive solves by diffrax: tolerances, counted evaluations, each example's own steps, and failure that shows."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers
from cfgjax.solvers import adaptive
from tests.conftest import PATHS

FIELD = guidance.given(guidance.classifier_free(mixtures.ring(5).vector_field(paths.linear()), 2.0, 5), 1)
START = np.array([0.6, -1.1], np.float32)


@pytest.mark.parametrize("name", ["linear", "cosine", "variance_preserving"])
def test_data_that_are_one_point_are_met(name):
    """u = (z - x) / (1 - t) on the linear path; what is held at the end leaves at most beta there of x - z."""
    path, point = PATHS[name], jnp.array([0.5, -1.0])
    field = conversions.field_of_denoiser(path, lambda x, t: point)
    found = jax.jit(lambda x: adaptive.integrate(field, x, rtol=1e-5, atol=1e-6))(START)
    assert found.is_finished
    np.testing.assert_allclose(found.x, point, atol=3e-5 if name != "variance_preserving" else 3e-4)


@pytest.mark.parametrize("rule", [None, diffrax.Heun()], ids=["default", "heun"])
def test_the_end_is_within_the_tolerance_and_evaluations_are_counted(rule):
    calls = []

    def field(x, t):
        jax.debug.callback(lambda x, t: calls.append(float(t)), x, t)
        return FIELD(x, t)

    found = jax.jit(lambda x: adaptive.integrate(field, x, rtol=1e-5, atol=1e-5, rule=rule))(START)
    jax.effects_barrier()
    exact = solvers.integrate(solvers.heun(FIELD), jax.random.key(0), START, jnp.linspace(0, 1, 4001))
    np.testing.assert_allclose(found.x, exact, atol=3e-4)
    assert int(found.evaluations) == len(calls)
    assert bool(found.is_finished)
    assert max(calls) < 1


def test_each_example_takes_its_own_steps_and_agrees_with_itself_alone():
    starts = jnp.stack([jnp.asarray(START), jnp.array([2.0, 0.0]), jnp.array([-0.01, 0.02])])
    together = jax.jit(jax.vmap(lambda x: adaptive.integrate(FIELD, x)))(starts)
    assert len(set(np.asarray(together.evaluations).tolist())) > 1
    for x, end, count in zip(starts, together.x, together.evaluations, strict=True):
        alone = jax.jit(lambda x: adaptive.integrate(FIELD, x))(x)
        np.testing.assert_allclose(end, alone.x, atol=1e-5)
        assert int(alone.evaluations) == int(count)


def test_a_tighter_tolerance_costs_more_and_the_way_back_returns():
    solve = jax.jit(adaptive.integrate, static_argnums=0)
    loose, tight = (solve(FIELD, START, 0.0, 1.0, tolerance, tolerance) for tolerance in (1e-3, 1e-6))
    assert int(tight.evaluations) > int(loose.evaluations)
    back = solve(FIELD, tight.x, 1.0, 0.0, 1e-6, 1e-6)
    np.testing.assert_allclose(back.x, START, atol=1e-3)


def test_a_solve_that_does_not_come_to_its_end_says_so():
    found = adaptive.integrate(FIELD, START, max_steps=3)
    assert not bool(found.is_finished)
    assert np.all(np.isnan(found.x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": -0.1}, "start must be in"),
        ({"stop": 1.5}, "stop must be in"),
        ({"stop": 0.0}, "stop must differ from start"),
        ({"rtol": 0.0}, "rtol must be"),
        ({"atol": np.nan}, "atol must be above 0 and at most 1, got nan"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_what_cannot_be_solved_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        adaptive.integrate(FIELD, START, **settings)
