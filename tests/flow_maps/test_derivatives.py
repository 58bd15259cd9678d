"""The derivative of a flow map along a direction, by forward mode and by differences, and its error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, kernels

EDGES = [(0.3, 0.7), (0.0, 0.5), (0.5, 1.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]


def _flow_map(x, t, r):
    return jnp.sin(2 * x + 3 * t) * jnp.exp(-r) + r * x**3


def _point(t, r):
    return jnp.array([0.3, -1.0]), jnp.asarray(t), jnp.asarray(r)


def _tangents(dt, dr):
    return jnp.array([0.5, 2.0]), jnp.asarray(dt), jnp.asarray(dr)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("slopes", [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("times", EDGES)
def test_differences_are_of_second_order(times, slopes):
    """Also at both ends of time, where they are one-sided; the order is a fitted slope."""
    point, tangents = _point(*times), _tangents(*slopes)
    value, exact = flow_maps.forward_derivative(_flow_map, point, tangents)
    steps = 0.005 / 2.0 ** np.arange(5)
    differences = jax.jit(jax.vmap(lambda step: flow_maps.central_difference(step)(_flow_map, point, tangents)))(steps)
    np.testing.assert_allclose(differences[0], jnp.broadcast_to(value, (5, 2)), rtol=1e-14)
    errors = np.max(np.abs(np.asarray(differences[1]) - np.asarray(exact)), axis=-1)
    assert abs(np.polyfit(np.log(steps), np.log(errors), 1)[0] - 2) < 0.05


@pytest.mark.usefixtures("x64")
def test_differences_are_exact_for_polynomials_of_second_degree():
    flow_map = lambda x, t, r: x**2 + x * t - 3 * t * r + r**2  # noqa: E731
    for times in EDGES:
        for slopes in ((1.0, 0.0), (0.0, 1.0)):
            exact = flow_maps.forward_derivative(flow_map, _point(*times), _tangents(*slopes))
            found = flow_maps.central_difference(0.1)(flow_map, _point(*times), _tangents(*slopes))
            np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)


def test_forward_mode_is_the_jvp():
    point, tangents = _point(0.2, 0.6), _tangents(1.0, 0.0)
    found = flow_maps.forward_derivative(_flow_map, point, tangents)
    np.testing.assert_allclose(found[1], jax.jvp(_flow_map, point, tangents)[1], rtol=1e-6)


@pytest.mark.parametrize("times", EDGES)
@pytest.mark.parametrize("step", [1e-3, 0.25])
def test_differences_stay_within_time(times, step):
    seen = []
    flow_map = lambda x, t, r: seen.append((float(t), float(r))) or x  # noqa: E731
    for slopes in ((1.0, 0.0), (0.0, 1.0)):
        flow_maps.central_difference(step)(flow_map, _point(*times), _tangents(*slopes))
    assert len(seen) == 6
    assert np.all((np.array(seen) >= 0) & (np.array(seen) <= 1))
    assert all(t <= r for t, r in seen) or times in ((0.0, 0.0), (1.0, 1.0))


def test_forward_mode_takes_plain_kernels_and_differences_take_any():
    """A kernel without forward mode stops the one, and not the other, whose gradient is by reverse mode."""

    @jax.custom_vjp
    def kernel(x):
        return jnp.sin(x)

    kernel.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda slope, cotangent: (slope * cotangent,))
    seen = []

    def flow_map(x, t, r):
        seen.append(kernels.are_plain())
        return t * (jnp.sin(x) if kernels.are_plain() else kernel(x))

    point, tangents = _point(0.2, 0.6), _tangents(1.0, 0.0)
    exact = flow_maps.forward_derivative(flow_map, point, tangents)[1]

    def difference(x):
        return flow_maps.central_difference(1e-2)(flow_map, (x, *point[1:]), tangents)[1]

    np.testing.assert_allclose(difference(point[0]), exact, atol=2e-4)
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(difference(x)))(point[0])))
    assert set(seen) == {True, False}
    assert seen[0]


def test_no_step_compiles_anything():
    traces = []

    @jax.jit
    def difference(step, t):
        traces.append(None)
        return flow_maps.central_difference(step)(_flow_map, _point(t, 0.8), _tangents(1.0, 0.0))

    for step, t in ((1e-3, 0.0), (0.01, 0.3), (0.1, 0.8)):
        difference(step, t)
    assert len(traces) == 1
