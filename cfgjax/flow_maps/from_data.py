"""Losses by the identity (F3) of the package, from data alone: MeanFlow, its improvement, and shortcut models.

sg is stop_gradient, v the velocity (``velocities``), u its mean given x, which is the field of the flow map,
U = U(x, t, r), and dU/dt along a direction a is d_t U + (d_x U) a.

(B1) MeanFlow:            |U - sg[v + (r - t) dU/dt along v]|^2 / D.
(B2) improved MeanFlow:   |U - (r - t) sg[dU/dt along U(x, t, t)] - sg[v]|^2 / D.
(B3) shortcut:            at r = t |U - sg[v]|^2 / D, else |U - sg[(U(x, t, m) + U(x_m, m, r)) / 2]|^2 / D,
                          m = (t + r) / 2, x_m = x + (m - t) U(x, t, m).

In papers time runs from data to noise, and the identity reads U = v - (t - r) dU/dt: the same with t, r and U turned.

Why they rest at the exact map. The gradient of (B1) passes U alone; it is 0 in the mean over v given x where
U = u + (r - t) (d_t U + (d_x U) u), since the target is linear in v: (F3). That equation in t, along the trajectory
to r, has the exact map as its only solution that is finite at t = r: two differ by C / (r - t). Without the sg the
loss would hold the variance of (1 + (r - t) d_x U) v, and its minimiser would make that small as well.
(B2) rests where (B1) does: at r = t its gradient says U(x, t, t) = u, and then its direction is u. What is regressed
on v is a function of x alone, as in flow matching, with the variance of v as its least value. The noise of v enters
(B1) through 1 + (r - t) d_x U = d_x x_r, and (B2) as it is. (B2) costs one evaluation more.
(B3) asks for the semigroup (F4) with two equal halves. Halved again and again it is the mean of the field along the
trajectory, (F1), and the field is learned at r = t: that must be drawn. Errors of short spans add up in the long ones.
The paper's spans are powers of 1/2, and half of the shortest is one step of the field: an error of its order, which
t and r from all of [0, 1] have not.

All three are at rest at the flow map of u, without a teacher and without discretisation; (B3) without a derivative.

Source: Geng et al., arXiv 2505.13447 (B1) and arXiv 2512.02012 (B2); Frans et al., arXiv 2410.12557 (B3).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cfgjax.contracts import Key, StateFlowMap, checked
from cfgjax.flow_maps.derivatives import forward_derivative
from cfgjax.flow_maps.regression import along, by_halves, draw, velocity_of, weighted
from cfgjax.flow_maps.times import ordered_times
from cfgjax.flow_maps.velocities import conditional_velocity
from cfgjax.losses import DataPoint, flat
from cfgjax.types import Array, Derivative, GaussianPath, ResidualWeight, TimesDensity, Velocity

_ORDERED = ordered_times()


@checked
def mean_flow(
    path: GaussianPath,
    flow_map: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    velocity: Velocity = conditional_velocity,
    times: TimesDensity = _ORDERED,
    derivative: Derivative = forward_derivative,
    weight: ResidualWeight = flat,
) -> Array:
    """The MeanFlow loss (B1) of one example at one draw of two times, [].

    Args:
        path: the path.
        flow_map: the learned flow map, called as flow_map(x, t, r).
        key: a key for times and noise.
        z: [*D], the data point.
        velocity: what the flow map is to be the average of, ``guided_velocity`` with guidance.
        times: how t and r are drawn.
        derivative: how dU/dt is taken.
        weight: a further factor, of the mean square of the residual: ``residual_power`` is the paper's.

    Raises:
        TypeError, ValueError: times or a weight that are no such numbers.
    """
    t, r, at = draw(path, key, z, times)
    instant = velocity_of(velocity, t, at).astype(at.x.dtype)
    value, slope = along(derivative, flow_map, (at.x, t, r), instant)
    return weighted(value - jax.lax.stop_gradient(instant + (r - t) * slope), weight)


@checked
def improved_mean_flow(
    path: GaussianPath,
    flow_map: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    velocity: Velocity = conditional_velocity,
    times: TimesDensity = _ORDERED,
    derivative: Derivative = forward_derivative,
    weight: ResidualWeight = flat,
) -> Array:
    """The improved MeanFlow loss (B2) of one example at one draw of two times, []; arguments as ``mean_flow``."""
    t, r, at = draw(path, key, z, times)
    target = jax.lax.stop_gradient(velocity_of(velocity, t, at))
    own = jax.lax.stop_gradient(flow_map(at.x, t, t)).astype(at.x.dtype)
    value, slope = along(derivative, flow_map, (at.x, t, r), own)
    return weighted(value - (r - t) * jax.lax.stop_gradient(slope) - target, weight)


@checked
def shortcut(
    path: GaussianPath,
    flow_map: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    velocity: Velocity = conditional_velocity,
    times: TimesDensity = _ORDERED,
    weight: ResidualWeight = flat,
) -> Array:
    """The shortcut loss (B3) of one example at one draw of two times, []; arguments as ``mean_flow``.

    ``times`` must draw r = t with some probability.
    """
    t, r, at = draw(path, key, z, times)
    target = jnp.where(r == t, velocity_of(velocity, t, at), by_halves(flow_map, at.x, t, r))
    return weighted(flow_map(at.x, t, r) - jax.lax.stop_gradient(target), weight)
