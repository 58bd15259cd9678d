"""The laws of the two times, and the weight of a residual, which moves the minimiser of a random target."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from cfgjax import flow_maps, losses, paths
from tests.support import guided_normal as normal

NUM_SAMPLES = 20_000


def _drawn(times):
    t, r = jax.jit(jax.vmap(times))(jax.random.split(jax.random.key(0), NUM_SAMPLES))
    return np.asarray(t, np.float64), np.asarray(r, np.float64)


def _close(found, share):
    return abs(np.mean(found) - share) < 4 * np.sqrt(share * (1 - share) / len(found))


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_ordered_times_are_two_draws_in_order(rate):
    """P(t <= a) = 1 - (1 - a)^2 of the earlier of two, for r = t as well; of the later a^2."""
    t, r = _drawn(flow_maps.ordered_times(losses.uniform(), rate))
    is_equal = r == t
    assert np.all(t <= r)
    assert _close(is_equal, rate)
    for a in (0.2, 0.5, 0.8):
        assert _close(t[is_equal] <= a, 1 - (1 - a) ** 2)
        assert _close(t[~is_equal] <= a, 1 - (1 - a) ** 2)
        assert _close(r[~is_equal] <= a, a**2)
        assert _close((t[~is_equal] <= a) & (r[~is_equal] > a), 2 * a * (1 - a))


def test_ordered_times_without_equal_ones_and_of_them_alone():
    t, r = _drawn(flow_maps.ordered_times(equal_rate=0.0))
    assert np.all(t < r)
    t, r = _drawn(flow_maps.ordered_times(equal_rate=1.0))
    assert np.all(t == r)


def test_the_whole_way_is_drawn_at_its_rate():
    """The others keep their law, and their share of r = t."""
    t, r = _drawn(flow_maps.ordered_times(losses.uniform(), 0.25, 0.4))
    is_whole = (t == 0) & (r == 1)
    t, r = t[~is_whole], r[~is_whole]
    assert _close(is_whole, 0.4)
    assert _close(r == t, 0.25)
    assert _close(t <= 0.5, 0.75)
    assert np.all(_drawn(flow_maps.ordered_times(whole_rate=1.0))[1] == 1)


def test_times_until_one_end():
    t, r = _drawn(flow_maps.times_until(0.5, losses.uniform()))
    assert np.all(r == 0.5)
    for a in (0.1, 0.25, 0.4):
        assert _close(t <= a, 2 * a)
    assert np.all(_drawn(flow_maps.times_until())[1] == 1)


def test_step_times_are_the_ends_of_even_steps():
    """Each step as often; the number of steps may be traced."""
    t, r = _drawn(flow_maps.step_times(4))
    np.testing.assert_array_equal(r - t, np.full(NUM_SAMPLES, 0.25))
    for start in (0.0, 0.25, 0.5, 0.75):
        assert _close(t == start, 0.25)
    traces = []
    draw = jax.jit(lambda count, key: traces.append(None) or flow_maps.step_times(count)(key))
    for count in (1, 2, 8):
        t, r = draw(count, jax.random.key(1))
        np.testing.assert_allclose((r - t) * count, 1.0, rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("times", [lambda key: (0.5, 1.5), lambda key: (-0.5, 0.5), lambda key: (0.5, jnp.ones(2))])
def test_times_that_are_none_are_refused(times):
    with pytest.raises(ValueError, match=r"times\(key\)\[[01]\] must be"):
        flow_maps.mean_flow(paths.linear(), lambda x, t, r: x, normal.KEY, jnp.ones(2), times=times)


def test_one_time_is_refused_where_two_are_drawn():
    with pytest.raises(TypeError, match=r"times\(key\) must be two times, \(t, r\), got 0\.5"):
        flow_maps.mean_flow(paths.linear(), lambda x, t, r: x, normal.KEY, jnp.ones(2), times=lambda key: 0.5)


def test_times_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"times\(key\) must be t <= r, got 0\.5 and 0\.25"):
        flow_maps.mean_flow(paths.linear(), lambda x, t, r: x, normal.KEY, jnp.ones(2), times=lambda key: (0.5, 0.25))


LEAST, SHARES, VALUES = 1e-2, np.array([0.8, 0.2]), np.array([0.0, 1.0])


def _expected_gradient(theta, weight):
    """Of MeanFlow at t = r = 0, where x is noise and v = z - x, for data of two values: U = theta - x."""

    def of_value(z):
        return jax.grad(
            lambda theta: flow_maps.mean_flow(
                paths.linear(),
                lambda x, t, r: theta - x,
                normal.KEY,
                jnp.full(1, z),
                times=lambda key: (0.0, 0.0),
                weight=weight,
            )
        )(theta)

    return float(np.dot(SHARES, [of_value(z) for z in VALUES]))


def _weighted_residual(theta, power):
    residuals = theta - VALUES
    return SHARES @ (residuals * (residuals**2 + LEAST) ** -power)


@pytest.mark.usefixtures("x64")
def test_a_power_of_the_residual_moves_the_minimiser_of_a_lopsided_law():
    """From the mean, 0.2, towards the likelier value: to the root of the weighted residuals."""
    mean = float(np.dot(SHARES, VALUES))
    assert abs(_expected_gradient(mean, losses.flat)) < 1e-12
    for power in (0.5, 1.0):
        weight = flow_maps.residual_power(power, LEAST)
        rest = brentq(
            lambda at, power=power: SHARES @ ((at - VALUES) * ((at - VALUES) ** 2 + LEAST) ** -power), 0.0, mean
        )
        assert rest < 0.6 * mean
        assert abs(_expected_gradient(mean, weight)) > 0.05
        assert abs(_expected_gradient(rest, weight)) < 1e-10


def test_no_gradient_passes_the_weight():
    """At one residual the gradient is the unweighted one over (m + c)^p."""
    loss = partial(flow_maps.mean_flow, paths.linear(), key=normal.KEY, z=jnp.array([0.3, 2.0]))

    def slope(weight):
        return jax.value_and_grad(lambda scale: loss(flow_map=lambda x, t, r: scale * x, weight=weight))(0.7)

    (value, plain), (weighted, found) = slope(losses.flat), slope(flow_maps.residual_power(1.0, LEAST))
    np.testing.assert_allclose((weighted, found), np.array([value, plain]) / (value + LEAST), rtol=1e-5)
