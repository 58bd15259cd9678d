"""Products with a network's Jacobian, counted by step beside its evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, solvers

TS, X = np.linspace(0, 1, 3), jnp.ones(3)


def _network(x, t, y):
    return jnp.tanh(x * t) * (1.0 + y)


def _summed(field):
    return lambda x, t: jnp.sum(field(x, t))


def _divergence(field):
    """Three products on one evaluation, mapped."""
    return lambda x, t: x * jnp.trace(jax.jacrev(lambda x: field(x, t))(x))


def _repeated(field):
    """Four products in a scan, on one evaluation."""

    def value(x, t):
        found, pull_back = jax.vjp(lambda x: field(x, t), x)
        return found + jax.lax.scan(lambda g, _: (pull_back(g)[0], None), x, length=4)[0]

    return value


def _branched(field):
    def value(x, t):
        return jax.lax.cond(t < 0.5, lambda: jax.grad(_summed(field))(x, t), lambda: field(x, t))

    return value


def _evaluated_again(field):
    """The gradient's own evaluation, and another one for the value."""
    return lambda x, t: field(x, t) + jax.grad(_summed(field))(x, t)


CHANGES = {
    "none": (lambda field: field, 1, 0),
    "a gradient": (lambda field: lambda x, t: jax.grad(_summed(field))(x, t), 1, 1),
    "a gradient beside the value": (_evaluated_again, 2, 1),
    "a value and gradient": (lambda field: lambda x, t: jax.value_and_grad(_summed(field))(x, t)[1] + x, 1, 1),
    "a tangent": (lambda field: lambda x, t: jax.jvp(lambda x: field(x, t), (x,), (x,))[1], 1, 1),
    "a compiled gradient": (lambda field: jax.jit(jax.grad(_summed(field))), 1, 1),
    "a divergence": (_divergence, 1, 3),
    "a scan": (_repeated, 1, 4),
    "a branch": (_branched, 1, 1),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("sides", [1, 2])
def test_products_and_evaluations_of_a_step(name, sides):
    """Of Heun's two stages; guidance with two sides in one call doubles both."""
    change, evaluations, products = CHANGES[name]

    def build(field):
        guided = guidance.classifier_free(field, 2.0, 1) if sides == 2 else field
        return solvers.heun(change(guidance.given(guided, 0)))

    counts = [count(build, _network, X, TS) for count in COUNTS]
    np.testing.assert_array_equal(counts, [[2 * sides * each] * 2 for each in (evaluations, products)])


COUNTS = solvers.num_function_evaluations, solvers.num_vector_jacobian_products


def test_they_are_those_that_happen():
    """What each call of the network, and each of its transposed program, is when the step runs."""
    happened = []

    @jax.custom_vjp
    def told(value):
        return value

    def backward(_, cotangent):
        jax.debug.callback(lambda: happened.append("product"))
        return (cotangent,)

    told.defvjp(lambda value: (value, None), backward)

    def network(x, t, y):
        jax.debug.callback(lambda: happened.append("evaluation"))
        return told(_network(x, t, y))

    def build(field):
        return solvers.heun(_repeated(guidance.given(field, 0)))

    solver = build(network)
    solver.step(jax.random.key(0), solver.init(X), jnp.asarray(0.25), jnp.asarray(0.5))
    jax.effects_barrier()
    counts = [count(build, _network, X, TS)[0] for count in COUNTS]
    assert counts == [happened.count("evaluation"), happened.count("product")] == [2, 8]
