"""Exponential solvers: exact where the denoiser is constant, they step in the log signal-to-noise ratio.

(X1) With lambda = log(alpha / beta) and h = lambda' - lambda the ODE dx = u dt has the exact solution
     x' = (beta' / beta) x + c M,   c = alpha' - alpha beta' / beta = alpha' (1 - e^-h),
     where M is the mean of D over the step, weighted with e^lambda. Both coefficients are finite at t = 0 and t = 1.
(X2) first order:   M = D.
(X3) two steps:     M = D + (h / 2 h_prev) (D - D_prev).
(X4) corrector:     M = D + r [D_next - D] + q [D - D_prev] h / h_prev: the D of both ends and of the step before,
     exact for a D that is quadratic in lambda:  r + q = b1,  r - q h_prev / h = b2,  b_k = mean of s^k over [0, 1]
     weighted with e^(h s).
(X5) Steps from t = 0 are infinitely long in lambda, as is one that ends at t = 1. A step after an infinite one and one
     that ends at t = 1 are of first order, by the limit of (X3); the corrector of the first is M = (D + D_next) / 2.
     Each happens once, with an error of O(dt^2).
(X6) Where W = 0 the field says nothing of the denoiser; the weight of that step is O(dt^2) there.
(X7) From t = 1 down, where D is x, with a constant E:  x' = (alpha' / alpha) x + (beta' - beta alpha' / alpha) E.

``alpha``, ``beta`` are the path's at the step's start and a prime marks its end. The denoiser comes from the field.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from cfgjax.contracts import StateField, checked
from cfgjax.conversions import from_field
from cfgjax.paths import as_time, before_end, coefficients
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ends import inside
from cfgjax.types import Array, Field, GaussianPath, Prediction, Solver, State


def _advanced(path: GaussianPath, x: Array, mean: Array, t: Array, t_next: Array) -> Array:
    """The step (X1) with M = ``mean``."""
    c, end = coefficients(path, before_end(t)), coefficients(path, t_next)
    ratio = end.beta / c.beta
    return (ratio * x + (end.alpha - c.alpha * ratio) * mean).astype(x.dtype)


def _renoised(path: GaussianPath, x: Array, noise: Array, t: Array, t_next: Array) -> Array:
    """The step (X7) with E = ``noise``."""
    c, end = coefficients(path, t), coefficients(path, t_next)
    ratio = end.alpha / jnp.where(t >= 1, c.alpha, 1)
    return (ratio * x + (end.beta - c.beta * ratio) * noise).astype(x.dtype)


def _length(path: GaussianPath, t: Array, t_next: Array) -> Array:
    """h of (X1), [], or 0 where it is infinite."""
    c, end = coefficients(path, t), coefficients(path, t_next)
    is_finite = (c.alpha > 0) & (end.beta > 0)
    ratio = jnp.where(is_finite, end.alpha * c.beta, 1) / jnp.where(is_finite, c.alpha * end.beta, 1)
    return jnp.where(is_finite, jnp.log(ratio), 0)


def _predicted(path: GaussianPath, field: Field, x: Array, t: Array, t_next: Array) -> Prediction:
    """D and E at the step's start; at its middle from t = 1 down, and where W = 0 at the start (X6)."""
    is_silent = coefficients(path, before_end(t)).wronskian == 0
    time = jnp.where(is_silent, 0.5 * (t + t_next), inside(t, t_next))
    return from_field(path, field(x, time), x, time)


def _denoised(path: GaussianPath, field: Field, x: Array, t: Array, t_next: Array) -> Array:
    return _predicted(path, field, x, t, t_next).denoiser.astype(x.dtype)


def _extrapolated(denoiser: Array, before: Array, length: Array, length_before: Array) -> Array:
    """M of (X3), or of (X2) where a length is 0."""
    is_known = (length != 0) & (length_before != 0)
    ratio = jnp.where(is_known, 0.5 * length / jnp.where(is_known, length_before, 1), 0)
    return denoiser + ratio * (denoiser - before)


@piecewise
@checked
def ddim(path: GaussianPath, field: StateField) -> Solver:
    """The first-order exponential rule (X2), x' = alpha' D + beta' E, for a field: one evaluation a step.

    Backwards as well; a step from t = 1 is (X7).

    Source: Song et al., arXiv 2010.02502, equation 12 with eta = 0; here for any Gaussian path.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        predicted = _predicted(path, field, x, t, t_next)
        advanced = _advanced(path, x, predicted.denoiser.astype(x.dtype), t, t_next)
        return State(jnp.where(t >= 1, _renoised(path, x, predicted.noise, t, t_next), advanced))

    return Solver(init=State, step=step)


class Denoised(NamedTuple):
    """A state, with the denoiser at the start of the step before and that step's length in lambda."""

    x: Array
    denoiser: Array
    length: Array


def _no_length(x: Array) -> Array:
    return jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))


@piecewise
@checked
def dpm_solver(path: GaussianPath, field: StateField) -> Solver:
    """DPM-Solver++(2M), (X3), for a field: order 2, one evaluation a step, never at t = 1. Forwards only.

    Source: Lu et al., arXiv 2211.01095, algorithm 2; first and last step by (X5).
    """

    def init(x: Array) -> Denoised:
        return Denoised(x, jnp.zeros_like(x), _no_length(x))

    def step(key: Array, carry: Denoised, t: Array, t_next: Array) -> Denoised:
        denoiser, length = _denoised(path, field, carry.x, t, t_next), _length(path, t, t_next)
        mean = _extrapolated(denoiser, carry.denoiser, length, carry.length)
        x = _advanced(path, carry.x, mean, t, t_next)
        return Denoised(x, denoiser, length.astype(carry.length.dtype))

    return Solver(init=init, step=step, is_forward_only=True, restart=lambda carry: init(carry.x))


class Predicted(NamedTuple):
    """A predicted state, and what its correction needs of the step that led to it.

    ``start`` is the corrected state at that step's start ``t``, ``denoiser`` D there and ``before`` D a step earlier;
    ``length`` and ``length_before`` are both steps' lengths in lambda; ``t`` is negative before the first step.
    """

    x: Array
    start: Array
    denoiser: Array
    before: Array
    t: Array
    length: Array
    length_before: Array


def _moments(length: Array) -> tuple[Array, Array]:
    """b1 and b2 of (X4), each []: in closed form for h > 1 and by their series under it."""
    h = jnp.maximum(length, 1.0)
    growth = 1 / -jnp.expm1(-h)
    closed = growth - 1 / h
    closed_square = growth - 2 * closed / h
    small = jnp.minimum(length, 1.0)
    sums, term = [0.0, 0.0, 0.0], jnp.ones_like(small)
    for n in range(12):
        sums = [total + term / (n + k + 1) for k, total in enumerate(sums)]
        term = term * small / (n + 1)
    is_long = length > 1
    return jnp.where(is_long, closed, sums[1] / sums[0]), jnp.where(is_long, closed_square, sums[2] / sums[0])


def _corrected_mean(carry: Predicted, denoiser: Array) -> Array:
    """M of (X4) for the step that led to the predicted state, where D is ``denoiser``."""
    h, h_before = carry.length, carry.length_before
    first, second = _moments(h)
    is_known = (h > 0) & (h_before > 0)
    ratio = jnp.where(is_known, h_before, 1) / jnp.where(is_known, h, 1)
    late = jnp.where(is_known, (second + ratio * first) / (1 + ratio), jnp.where(h > 0, first, 0.5))
    early = jnp.where(is_known, (first - late) / ratio, 0)
    return carry.denoiser + late * (denoiser - carry.denoiser) + early * (carry.denoiser - carry.before)


@piecewise
@checked
def unipc(path: GaussianPath, field: StateField) -> Solver:
    """UniPC-2 for a field: predictor (X3), corrector (X4), one evaluation a step, never at t = 1. Forwards only.

    The evaluation at a predicted state first corrects it and then predicts the next. With B(h) = e^h - 1, the
    predictor UniP-2 is DPM-Solver++(2M). The state in the carry is the predicted one.

    Source: Zhao et al., arXiv 2302.04867, algorithms 1 to 4; first and last step by (X5).
    """

    def init(x: Array) -> Predicted:
        zeros, none = jnp.zeros_like(x), _no_length(x)
        return Predicted(x, zeros, zeros, zeros, none - 1, none, none)

    def step(key: Array, carry: Predicted, t: Array, t_next: Array) -> Predicted:
        denoiser = _denoised(path, field, carry.x, t, t_next)
        since = jnp.maximum(carry.t, 0)
        corrected = _advanced(path, carry.start, _corrected_mean(carry, denoiser), since, t)
        x = jnp.where(carry.t < 0, carry.x, corrected)
        length, length_before = _length(path, t, t_next), carry.length
        mean = _extrapolated(denoiser, carry.denoiser, length, length_before)
        end, kind = _advanced(path, x, mean, t, t_next), carry.t.dtype
        return Predicted(end, x, denoiser, carry.denoiser, as_time(t).astype(kind), length.astype(kind), length_before)

    return Solver(init=init, step=step, is_forward_only=True, restart=lambda carry: init(carry.x))
