"""Losses that train guidance into a field, so that sampling takes one evaluation: (L6) and (L7) of the package.

Derivation of (L7). Given x, y and w the target's mean is w (1 - kappa) u_y + kappa u + (1 - w (1 - kappa) - kappa)
u_null, with u the trained field itself and sg[...] not differentiated. A field that is this mean solves

    (1 - kappa) u = w (1 - kappa) u_y + (1 - kappa)(1 - w) u_null,

so u = (1 - w) u_null + w u_y, whatever kappa under 1. An exact fit to the target moves the error of u by the factor
kappa, so repeated ones go to that field for -1 < kappa < 1: with kappa = 1 - 1/w for w > 1/2 alone. Gradient descent of
rate h on half the loss's expectation, in the field itself, has the factor 1 - h (1 - kappa): with kappa = 1 - 1/w it
goes there for w > h/2. At w of 1/2 and less choose a kappa of your own, 0 for the plain rule.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced
from cfgjax.contracts import Finite, Key, StateField, checked
from cfgjax.losses.densities import flat, uniform
from cfgjax.losses.matching import DataPoint, draw, mean_square
from cfgjax.types import Array, GaussianPath, PathSample, Schedule, TimeDensity

_UNIFORM = uniform()


@checked
def distilled_guidance(
    path: GaussianPath,
    field: StateField,
    teacher: StateField,
    key: Key,
    z: DataPoint,
    *,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The loss (L6) of one example at one random time: a student's field against its teacher's guided one, [].

    The target is no mean over draws: each state alone has the minimiser, and any law of states that covers those of
    sampling serves. Guidance leads out of p_t(x|y): a small w to the states of all labels, a large one beyond the data.
    So let z be of any label in some of the examples, and in others a sample of the teacher at this y and w.

    Args:
        path: the path.
        field: the student at a condition and a guidance scale, u(x, t) = u(x, t, y, w).
        teacher: the guided field (x, t) at the same two, as ``guidance.classifier_free`` makes it. It is not learned.
        key: a key for time and noise.
        z: [*D], the data point.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.

    Source: Meng et al., arXiv 2210.03142, section 3.1.

    Raises:
        TypeError, ValueError: a time density or a weight that does not give one number.
    """
    t, at = drawn = draw(path, key, z, time_density)
    target = jax.lax.stop_gradient(teacher(at.x, t))
    return mean_square(lambda value, at, t: value - target, field, drawn, (), weight)


@checked
def model_guidance(
    path: GaussianPath,
    field: StateField,
    null_field: StateField,
    key: Key,
    z: DataPoint,
    scale: Finite,
    *,
    kappa: Finite | None = None,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The loss (L7) of one example at one random time: guidance trained into a field without a teacher, [].

    At a null y let ``scale`` be 1: there it is ``flow_matching``.

    Args:
        path: the path.
        field: the learned field at a condition and the scale, u(x, t) = u(x, t, y, w).
        null_field: the learned field at the null and the scale 1, u(x, t) = u(x, t, null, 1).
        key: a key for time and noise.
        z: [*D], the data point, of y.
        scale: [], w.
        kappa: [], the part of the field itself in the target, under 1; by default 1 - 1/w, at which the draw's own
            velocity stands in it with the factor 1, as without guidance.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.

    Source: Tang et al., arXiv 2502.12154 (kappa = 1 - 1/w); Geng et al., arXiv 2505.13447 (any kappa).

    Raises:
        TypeError, ValueError: a concrete scale that is not above 0 and no kappa; a time density or a weight that does
            not give one number.
    """
    if kappa is None:
        if not is_traced(scale) and float(scale) <= 0:
            raise ValueError(f"scale must be above 0 where kappa is 1 - 1/scale, got {scale}")
        kappa = 1 - 1 / jnp.asarray(scale)
    own = scale * (1 - kappa)

    def residual(value: Array, at: PathSample, t: Array) -> Array:
        of_null = jax.lax.stop_gradient(null_field(at.x, t))
        target = own * at.field + kappa * jax.lax.stop_gradient(value) + (1 - own - kappa) * of_null
        return value - target

    return mean_square(residual, field, draw(path, key, z, time_density), (), weight)
