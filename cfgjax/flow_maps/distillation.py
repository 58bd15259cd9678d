"""Losses of flow maps from a teacher: its field, or its flow map.

sg is stop_gradient, u the teacher's field, T its flow map, U = U(x, t, r), x_r = x + (r - t) U, and x any state: here a
draw of the path at t. The target is one value given (x, t, r), so that a residual of 0 is reached, and every gradient
is 0 at the exact map with the sg or without it.

(D1) lagrangian:   |d_r x_r - sg[u(x_r, r)]|^2 / D,                 d_r x_r = U + (r - t) d_r U.
(D2) eulerian:     |U - sg[u + (r - t) (d_t U + (d_x U) u)]|^2 / D,  which is -(d_t x_r + (d_x x_r) u).
(D3) progressive:  |U - (T(x, t, m) + T(x_m, m, r)) / 2|^2 / D,      m = (t + r) / 2, x_m = x + (m - t) T(x, t, m).

(D1) says that x_r, seen as a curve in r, follows the field; with x_t = x there is one such curve, the trajectory.
(D2) says that x_r stays when its start (x, t) moves on the trajectory; with x_r = x at t = r it is the end of it.
Both are at rest at the flow map of u, and are 0 there. Without the sg they are the losses of flow map matching, plain
functions of the parameters; with it the teacher, or what is differentiated in x, has no backward pass. (D1) takes u
where the student goes, off the path at first, and differentiates in r alone; (D2) takes u on the path, and the
student's own d_x U enters its target. (D2) with the sg is ``mean_flow`` with ``teacher_velocity``. None discretises.
(D3) is at rest at two jumps of the teacher. Nothing is differentiated; student becomes teacher, with half the steps,
from round to round, and the errors of the rounds add up. With T of ``flow_maps.of_field`` it is regression on the
solver's trajectories.

Source: Boffi et al., arXiv 2406.07507 (D1, D2), 2505.18825 (with sg); Salimans & Ho, arXiv 2202.00512 (D3). Time of the
last one runs from data to noise.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.contracts import Key, RealArray, StateField, StateFlowMap, checked
from cfgjax.flow_maps.derivatives import forward_derivative
from cfgjax.flow_maps.regression import along, by_halves, draw, weighted
from cfgjax.flow_maps.times import ordered_times
from cfgjax.losses import DataPoint, flat
from cfgjax.types import Array, Derivative, GaussianPath, ResidualWeight, TimesDensity

_ORDERED = ordered_times()
_SPREAD = ordered_times(equal_rate=0.0)


@checked
def pass_gradient(target: RealArray) -> Array:
    """The target itself, through which the gradient passes: ``stop`` of a loss without a stop-gradient."""
    return target


@checked
def lagrangian(
    path: GaussianPath,
    flow_map: StateFlowMap,
    field: StateField,
    key: Key,
    z: DataPoint,
    *,
    times: TimesDensity = _ORDERED,
    derivative: Derivative = forward_derivative,
    stop: Callable[[Array], Array] = jax.lax.stop_gradient,
    weight: ResidualWeight = flat,
) -> Array:
    """The Lagrangian loss (D1) of one example at one draw of two times, [].

    Args:
        path: the path.
        flow_map: the student, called as flow_map(x, t, r).
        field: the teacher's field, guided already.
        key: a key for times and noise.
        z: [*D], the data point.
        times: how t and r are drawn.
        derivative: how d_r U is taken.
        stop: what becomes of the gradient at the teacher's side: ``pass_gradient`` is the paper's loss.
        weight: a further factor, of the mean square of the residual.

    Raises:
        TypeError, ValueError: times or a weight that are no such numbers.
    """
    t, r, at = draw(path, key, z, times)
    tangents = jnp.zeros_like(at.x), jnp.zeros_like(t), jnp.ones_like(r)
    value, slope = derivative(flow_map, (at.x, t, r), tangents)
    target = stop(field(at.x + (r - t) * value, r))
    return weighted(value + (r - t) * slope - target, weight)


@checked
def eulerian(
    path: GaussianPath,
    flow_map: StateFlowMap,
    field: StateField,
    key: Key,
    z: DataPoint,
    *,
    times: TimesDensity = _ORDERED,
    derivative: Derivative = forward_derivative,
    stop: Callable[[Array], Array] = jax.lax.stop_gradient,
    weight: ResidualWeight = flat,
) -> Array:
    """The Eulerian loss (D2) of one example at one draw of two times, []; arguments as ``lagrangian``.

    ``derivative`` is of dU/dt, and ``stop`` at all but the student's value.
    """
    t, r, at = draw(path, key, z, times)
    instant = field(at.x, t).astype(at.x.dtype)
    value, slope = along(derivative, flow_map, (at.x, t, r), instant)
    return weighted(value - stop(instant + (r - t) * slope), weight)


@checked
def progressive(
    path: GaussianPath,
    flow_map: StateFlowMap,
    teacher: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    times: TimesDensity = _SPREAD,
    weight: ResidualWeight = flat,
) -> Array:
    """The loss of progressive distillation (D3) of one example at one draw of two times, [].

    Args:
        path: the path.
        flow_map: the student, called as flow_map(x, t, r).
        teacher: the teacher's flow map; a field u as its Euler steps is lambda x, t, r: u(x, t).
        key: a key for times and noise.
        z: [*D], the data point.
        times: how t and r are drawn: ``step_times`` of the student's steps is the paper's.
        weight: a further factor, of the mean square of the residual.

    Raises:
        TypeError, ValueError: times or a weight that are no such numbers.
    """
    t, r, at = draw(path, key, z, times)
    return weighted(flow_map(at.x, t, r) - jax.lax.stop_gradient(by_halves(teacher, at.x, t, r)), weight)
