"""Losses of consistency models: the end x_r of the trajectory through x at t is the same a step further on.

sg is stop_gradient, f(x, t) = x + (r - t) U(x, t, r) the end, r = 1 by default, v the velocity (``velocities``), u its
mean given x, s = min(t + step, r), and x_s the state of the same z and noise at s. f(x, r) = x holds by itself.

(C1) training:      |f(x, t) - sg[f(x_s + (s - t) (v - u(x|z)), s)]|^2 / D.
(C2) distillation:  |f(x, t) - sg[f(one step of a solver of the teacher's field from x at t to s, s)]|^2 / D.
(C3) continuous:    |U - sg[U + g]|^2 / D,   g = v - U + ramp (r - t) dU/dt along v.

In papers time runs from data to noise, and the target is the state nearer to the data: here, too, the later one.

The gradient of (C1) is 0 in the mean where f(x, t) is the mean of f(x_s, s) given x. Let D = d_t + u . d_x be the
derivative along the trajectory, 0 of the exact f, and a = alpha'' z + beta'' noise. By Taylor's series to step^2 the
error e of f has

    D e = -(step / 2) B,  so  e(x, t) = (step / 2) int_t^r B on the trajectory,
    B = (d_x f) (E[a|x] - Du) + tr[(d_x d_x f) Cov(v|x)]:

the error of Euler's steps, and one of the noise of v where f bends; both halve with the step. (C2) has no noise: f is
the end of the solver's own steps, of its order. The residual of both is of the order of the step, so that small steps
learn slowly, and where r - t is small nothing is asked. (C1) / (step (r - t)) has in the limit the gradient of (C3).
(C3) is the identity (F3) and has no bias. At ramp = 1 it has the gradient of ``mean_flow`` at this r; written with the
tangent g, it has sCM's own options: g / (|g| + c) is about ``residual_power(0.5)``, and their ramp goes from 0, which
is flow matching, to 1 early in training. With ``teacher_velocity`` it is distillation, and else training.

At rest: (C1) at the flow map of u but for e; (C2) at the solver's; (C3) at that of u. (C1) and (C2) take no derivative.

Source: Song et al., arXiv 2303.01469 (C1, C2); Lu & Song, arXiv 2410.11081 (C3).
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import TINY
from cfgjax.contracts import Key, StateFlowMap, UnitInterval, between, checked
from cfgjax.flow_maps.conversions import flow_of
from cfgjax.flow_maps.derivatives import forward_derivative
from cfgjax.flow_maps.regression import along, draw, velocity_of, weighted
from cfgjax.flow_maps.times import times_until
from cfgjax.flow_maps.velocities import conditional_velocity
from cfgjax.losses import DataPoint, flat
from cfgjax.paths import coefficients
from cfgjax.types import (
    Array,
    Derivative,
    GaussianPath,
    Number,
    ResidualWeight,
    Solver,
    TimesDensity,
    Velocity,
)

_UNTIL_DATA = times_until()
Step = Annotated[Number, between(TINY, 1)]
"""How far in time the two states of a loss lie apart."""


def _stays(flow_map: StateFlowMap, state: tuple[Array, Array], later: tuple[Array, Array], r: Array) -> Array:
    """The difference of the two ends, no gradient passing the later one's, [*D]."""
    end = flow_of(flow_map)
    return end(*state, r) - jax.lax.stop_gradient(end(*later, r))


@checked
def consistency(
    path: GaussianPath,
    flow_map: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    step: Step,
    velocity: Velocity = conditional_velocity,
    times: TimesDensity = _UNTIL_DATA,
    weight: ResidualWeight = flat,
) -> Array:
    """The loss of consistency training (C1) of one example at one draw of two times, [].

    Args:
        path: the path.
        flow_map: the learned flow map, called as flow_map(x, t, r).
        key: a key for times and noise.
        z: [*D], the data point.
        step: [], from t to the later time.
        velocity: what the flow map is to be the average of, ``guided_velocity`` with guidance.
        times: how t and r are drawn.
        weight: a further factor, of the mean square of the residual.

    Raises:
        TypeError, ValueError: times or a weight that are no such numbers.
    """
    t, r, at = draw(path, key, z, times)
    later = jnp.minimum(t + step, r)
    c = coefficients(path, later)
    guidance = velocity_of(velocity, t, at) - at.field
    moved = c.alpha * z + c.beta * at.noise + (later - t) * guidance
    return weighted(_stays(flow_map, (at.x, t), (moved, later), r), weight)


@checked
def consistency_distillation(
    path: GaussianPath,
    flow_map: StateFlowMap,
    solver: Solver,
    key: Key,
    z: DataPoint,
    *,
    step: Step,
    times: TimesDensity = _UNTIL_DATA,
    weight: ResidualWeight = flat,
) -> Array:
    """The loss of consistency distillation (C2), []; arguments as ``consistency``.

    Args:
        path: the path.
        flow_map: the student.
        solver: of the teacher's field, guided already: ``solvers.heun(field)``.
        key: a key for times, noise, and the solver's step.
        z: [*D], the data point.
        step: [], of the solver.
        times: how t and r are drawn.
        weight: a further factor, of the mean square of the residual.
    """
    draw_key, step_key = jax.random.split(key)
    t, r, at = draw(path, draw_key, z, times)
    later = jnp.minimum(t + step, r)
    moved = solver.step(step_key, solver.init(at.x), t, later).x
    return weighted(_stays(flow_map, (at.x, t), (moved, later), r), weight)


@checked
def continuous_consistency(
    path: GaussianPath,
    flow_map: StateFlowMap,
    key: Key,
    z: DataPoint,
    *,
    velocity: Velocity = conditional_velocity,
    times: TimesDensity = _UNTIL_DATA,
    derivative: Derivative = forward_derivative,
    ramp: UnitInterval = 1.0,
    weight: ResidualWeight = flat,
) -> Array:
    """The loss of continuous-time consistency models (C3), []; arguments as ``consistency``.

    Args:
        path: the path.
        flow_map: the learned flow map.
        key: a key for times and noise.
        z: [*D], the data point.
        velocity: ``conditional_velocity`` or ``guided_velocity`` to train, ``teacher_velocity`` to distil.
        times: how t and r are drawn.
        derivative: how dU/dt is taken.
        ramp: [], how much of the derivative counts: the minimiser is the flow map at 1 alone.
        weight: a further factor, of the mean square of the tangent g.
    """
    t, r, at = draw(path, key, z, times)
    instant = velocity_of(velocity, t, at).astype(at.x.dtype)
    value, slope = along(derivative, flow_map, (at.x, t, r), instant)
    tangent = instant - value + ramp * (r - t) * slope
    return weighted(value - jax.lax.stop_gradient(value + tangent), weight)
