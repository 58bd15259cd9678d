"""Flows, their average velocities, and the field at which these begin: (F1), (F2), on a flow that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps

X = jnp.array([0.5, -2.0])


def _flow(x, t, r, rate):
    """Of dx = 2 rate t x dt."""
    return x * jnp.exp(rate * (r**2 - t**2))


def _field(x, t, rate):
    return 2 * rate * t * x


AVERAGE = flow_maps.average_velocity_of(_flow, _field)


def test_a_flow_becomes_its_average_velocity_and_this_the_flow():
    np.testing.assert_allclose(AVERAGE(X, 0.25, 0.75, 2.0), X * np.expm1(2 * (0.75**2 - 0.25**2)) / 0.5, rtol=1e-6)
    for t, r in ((0.25, 0.75), (0.75, 0.25), (0.5, 0.5)):
        np.testing.assert_allclose(flow_maps.flow_of(AVERAGE)(X, t, r, 2.0), _flow(X, t, r, 2.0), rtol=1e-6)


def test_at_an_instant_it_is_the_field_with_its_derivatives():
    """None is NaN, though the quotient is 0 / 0 there: r's is 0, the others the field's."""
    np.testing.assert_array_equal(AVERAGE(X, 0.5, 0.5, 2.0), _field(X, 0.5, 2.0))
    np.testing.assert_array_equal(flow_maps.field_of(AVERAGE)(X, 0.5, 2.0), _field(X, 0.5, 2.0))
    found = jax.jit(jax.jacrev(AVERAGE, (0, 1, 2)))(X, 0.5, 0.5, 2.0)
    wanted = (*jax.jacrev(_field, (0, 1))(X, 0.5, 2.0), jnp.zeros(2))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_further_arguments_are_given_once():
    bare = flow_maps.given(AVERAGE, 2.0)
    np.testing.assert_array_equal(bare(X, 0.25, 0.75), AVERAGE(X, 0.25, 0.75, 2.0))
    several = flow_maps.given(lambda x, t, r, y, w: (y + w["a"]) * x, 2.0, {"a": 3.0})
    np.testing.assert_array_equal(several(X, 0.25, 0.75), 5 * X)


def test_a_map_that_goes_forwards_only_refuses_the_way_back():
    forward = flow_maps.forward_only(AVERAGE)
    for r in (0.25, 0.75):
        np.testing.assert_array_equal(forward(X, 0.25, r, 2.0), AVERAGE(X, 0.25, r, 2.0))
    with pytest.raises(ValueError, match=r"r must not be under t .* got t = 0.25 and r = 0.125"):
        forward(X, 0.25, 0.125, 2.0)
    jax.jit(forward)(X, 0.25, 0.125, 2.0)  # a traced number is not known


@pytest.mark.parametrize("build", [flow_maps.given, flow_maps.flow_of, flow_maps.field_of, flow_maps.forward_only])
def test_a_value_unlike_the_state_is_refused(build):
    made = build(lambda x, t, r: jnp.ones(()))
    with pytest.raises(ValueError, match=r"flow_map must give the shape \(2,\), got \(\)"):
        made(X, *([0.5] if build is flow_maps.field_of else [0.5, 0.75]))
