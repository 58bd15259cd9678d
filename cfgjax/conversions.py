"""Field, score, noise prediction and denoiser: from any one of them to all four; and from one path to any other.

(C1) x = alpha D + beta E,   s = -E / beta,   u = alpha' D + beta' E,   with D = E[z|x] and E = E[noise|x].
(C2) from u:  D = (beta u - beta' x) / W,   E = (alpha' x - alpha u) / W,   W = alpha' beta - alpha beta'.
(C3) from s:  E = -beta s,  D = (x - beta E) / alpha;  so u = (alpha'/alpha) x + b s with b = beta W / alpha.
(C4) from D:  E = (x - alpha D) / beta.

Each map is affine in its value, with the same coefficient of x whatever the label, so an affine combination whose
weights sum to 1 (classifier-free guidance) commutes with all of them.

Ends. Coefficients are those at ``paths.before_end(t)``, the largest float below 1 for t = 1: a product such as
beta beta' then has its limit. What a value does not determine at an end comes out as a documented finite number.

Change of path: a field that was trained on one Gaussian path, on any other.

(X1) Two states with the same ratio alpha / beta differ by a factor alone:  x_old = c x_new, where
     (alpha_old, beta_old) at t_old is c times (alpha_new, beta_new) at t.
(X2) So D and E at x_new are those at x_old, and  s_new = c s_old,  that is  E_new = (c beta_new / beta_old) E_old,
     which for a t_old off by a rounding follows E to its zero at t = 1.
(X3) u_new = alpha' D + beta' E with the new path's alpha', beta'. The one of D, E whose coefficient is the larger
     is solved for in x_new = alpha D + beta E, so that the prediction fits the state exactly.

All of it is affine in u_old with a coefficient of x that no label changes: guidance commutes with a change of path.
Both ODEs lead from the same noise to the same data, along states that differ by c.

Source: MIT 6.S184 notes (arXiv 2506.02070v3), proposition 1; the forms with fewest singular points are this module's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced, require_shape
from cfgjax.contracts import AnyField, FieldLikeX, NonNegative, Positive, RealArray, Time, checked
from cfgjax.paths import as_float, as_state, as_time, before_end, coefficients
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Coefficients, GaussianPath, Number, Prediction, Schedule


def _divide(numerator: Array, denominator: Array, otherwise: Array | float) -> Array:
    """numerator / denominator, and ``otherwise`` where the denominator is zero."""
    is_zero = denominator == 0
    return jnp.where(is_zero, otherwise, numerator / jnp.where(is_zero, 1, denominator))


def _at(path: GaussianPath, value: Array, x: Array, t: Number) -> Coefficients:
    """The coefficients before the end, once value and x are found to be alike."""
    require_shape("value", value, jnp.shape(x))
    return coefficients(path, before_end(t))


def _from_noise(c: Coefficients, noise: Array, x: Array) -> tuple[Array, Array]:
    denoiser = _divide(x - c.beta * noise, c.alpha, 0)
    return c.alpha_dot * denoiser + c.beta_dot * noise, denoiser


@checked
def from_field(path: GaussianPath, value: Array, x: RealArray, t: Time) -> Prediction:
    """All four predictions from the vector field u = ``value`` at (x, t), by (C2).

    Args:
        path: the path the field belongs to.
        value: [*D], the field u(x, t).
        x: [*D], the state.
        t: [], the time in [0, 1].

    Returns:
        Prediction. Regular at t = 0 (score -x) and inside. Where W = 0 (a polynomial path at t = 0) the field says
        nothing of the denoiser, which comes out as 0; noise and score are exact. At t = 1 the score of a path with
        finite beta' is not determined by the field: -E/beta with beta at the largest float below 1 comes out, finite.

    Raises:
        ValueError: a value that is not like x.
    """
    c = _at(path, value, x, t)
    denoiser = _divide(c.beta * value - c.beta_dot * x, c.wronskian, 0)
    noise = _divide(c.alpha_dot * x - c.alpha * value, c.wronskian, x / c.beta)
    return Prediction(value, -noise / c.beta, noise, denoiser)


@checked
def from_score(path: GaussianPath, value: Array, x: RealArray, t: Time) -> Prediction:
    """All four predictions from the score s = ``value`` at (x, t), by (C3).

    Singular at t = 0, where alpha = 0 and the score says nothing of the data: the denoiser comes out as 0, the field
    as beta' E. Just above it, errors of the score reach field and denoiser multiplied by 1/alpha.
    """
    c = _at(path, value, x, t)
    noise = -c.beta * value
    field, denoiser = _from_noise(c, noise, x)
    return Prediction(field, value, noise, denoiser)


@checked
def from_noise(path: GaussianPath, value: Array, x: RealArray, t: Time) -> Prediction:
    """All four predictions from the noise prediction E = ``value`` at (x, t), by (C1).

    Singular at t = 0 as ``from_score`` is, with the same outcome. At t = 1 the score is -E/beta with beta at the
    largest float below 1: finite, and meaningless unless E is 0.
    """
    c = _at(path, value, x, t)
    field, denoiser = _from_noise(c, value, x)
    return Prediction(field, -value / c.beta, value, denoiser)


@checked
def from_denoiser(path: GaussianPath, value: Array, x: RealArray, t: Time) -> Prediction:
    """All four predictions from the denoiser D = ``value`` at (x, t), by (C4).

    Singular at t = 1, where beta = 0: the noise prediction comes out as its limit 0, and the score, which D does not
    determine there, as 0. Just below it, errors of D reach the field multiplied by W/beta.
    """
    c = _at(path, value, x, t)
    is_end = coefficients(path, t).beta == 0
    noise = jnp.where(is_end, 0, (x - c.alpha * value) / c.beta)
    return Prediction(c.alpha_dot * value + c.beta_dot * noise, -noise / c.beta, noise, value)


def _view(convert: Callable[..., Prediction], path: GaussianPath, field: AnyField, name: str) -> AnyField:
    def converted(x: Array, t: Array, *y: Array) -> Array:
        return getattr(convert(path, field(x, t, *y), x, t), name)

    return cast(AnyField, converted)


@piecewise
@checked
def score_of(path: GaussianPath, field: FieldLikeX[AnyField]) -> AnyField:
    """The score that belongs to a vector field, as a field of the same signature; singular points: ``from_field``."""
    return _view(from_field, path, field, "score")


@piecewise
@checked
def noise_of(path: GaussianPath, field: FieldLikeX[AnyField]) -> AnyField:
    """The noise prediction that belongs to a vector field, as a field of the same signature."""
    return _view(from_field, path, field, "noise")


@piecewise
@checked
def denoiser_of(path: GaussianPath, field: FieldLikeX[AnyField]) -> AnyField:
    """The denoiser that belongs to a vector field, as a field of the same signature."""
    return _view(from_field, path, field, "denoiser")


@piecewise
@checked
def field_of_score(path: GaussianPath, score: FieldLikeX[AnyField]) -> AnyField:
    """The vector field that belongs to a score, as a field of the same signature; singular points: ``from_score``."""
    return _view(from_score, path, score, "field")


@piecewise
@checked
def field_of_noise(path: GaussianPath, noise: FieldLikeX[AnyField]) -> AnyField:
    """The vector field that belongs to a noise prediction, as a field of the same signature."""
    return _view(from_noise, path, noise, "field")


@piecewise
@checked
def field_of_denoiser(path: GaussianPath, denoiser: FieldLikeX[AnyField]) -> AnyField:
    """The vector field that belongs to a denoiser, as a field of the same signature; see ``from_denoiser``."""
    return _view(from_denoiser, path, denoiser, "field")


LEAST_BETA = 0.05
"""The least beta where the data are predicted and nothing else is said, as Li & He have it."""


@piecewise
@checked
def bounded_field_of_denoiser(
    path: GaussianPath, denoiser: FieldLikeX[AnyField], least_beta: Positive = LEAST_BETA
) -> AnyField:
    """u = (W D + beta' x) / max(beta, least_beta) for a denoiser D, as a field of the same signature.

    It is that of ``field_of_denoiser`` where beta is at least ``least_beta``; nearer to the data it is shorter, and
    errors of D reach it multiplied by W / least_beta. On the linear path it is (D - x) / max(1 - t, least_beta).

    Source: Li & He, arXiv 2511.13720, on the linear path.
    """

    def bounded(x: Array, t: Array, *y: Array) -> Array:
        c = coefficients(path, t)
        return (c.wronskian * denoiser(x, t, *y) + c.beta_dot * x) / jnp.maximum(c.beta, least_beta)

    return cast(AnyField, bounded)


def _bisect(rising: Schedule, dtype: jnp.dtype, stop: float = 1.0) -> Array:
    """The last floating-point time in [0, stop] where ``rising`` is not positive; 0 where there is none."""
    num_halvings = jnp.finfo(dtype).nmant + 6
    last = jnp.asarray(stop, dtype)
    first = jnp.where(rising(last) <= 0, last, jnp.zeros((), dtype))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        is_low = rising(middle) <= 0
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    return jax.lax.fori_loop(0, num_halvings, halve, (first, last))[0]


@checked
def time_at(path: GaussianPath, alpha: NonNegative, beta: NonNegative) -> Array:
    """The time in [0, 1] at which the path's alpha(t) : beta(t) is ``alpha`` : ``beta``, [].

    By bisection of the rising function alpha(t) beta - beta(t) alpha, which divides by nothing: to the spacing of the
    floating-point numbers, at 0 and 1 exactly.

    Args:
        path: the path.
        alpha: [], not negative: the weight of the data.
        beta: [], not negative: the weight of the noise. A ratio beyond the path's own (the original
            variance-preserving path does not begin at pure noise) gives the nearer end.

    Raises:
        ValueError: both of them 0.

    >>> from cfgjax import paths
    >>> round(float(time_at(paths.linear(), 0.5, 1.5)), 6)
    0.25
    """
    if not is_traced((alpha, beta)) and not (alpha or beta):
        raise ValueError("alpha and beta must not both be 0")
    alpha, beta = as_float(alpha), as_float(beta)
    dtype = jnp.result_type(alpha, beta)
    return _bisect(lambda t: path.alpha(t) * beta - path.beta(t) * alpha, dtype)


@checked
def regular_time(path: GaussianPath, t: Time) -> Array:
    """The time, held from below at the one where W reaches the root of the rounding error, [].

    Earlier a field says nothing of the denoiser; on a path whose W is above 0 at t = 0 it is the time itself.
    """
    t = as_time(t)
    smallest = float(jnp.finfo(t.dtype).eps) ** 0.5
    return jnp.maximum(t, _bisect(lambda t: coefficients(path, t).wronskian - smallest, t.dtype, stop=0.5))


@checked
def change_path(old: GaussianPath, new: GaussianPath, field: FieldLikeX[AnyField]) -> AnyField:
    """The vector field on the path ``new`` of a vector field that was trained on the path ``old``, by (X1) to (X3).

    The denoiser and the noise prediction are the same functions at equal ratio alpha / beta, so the change is exact
    for any field, guided or not, and costs no evaluation.

    Args:
        old: the path of the field.
        new: the path wanted.
        field: a vector field on ``old``, with or without a label. (Of a score, noise prediction or denoiser make a
            vector field first: ``conversions.field_of_score`` and its kin.)

    Returns:
        A field of the same signature on ``new``. Singular points: the old field is never called at t = 1 but at the
        largest float below. Where its W is 0 (a polynomial path at t = 0) it says nothing of the denoiser, and is
        called a little later, where W is the root of the rounding error. Where ``new`` is noisier than ``old`` ever
        is, the denoiser is that of the old path's first time.

    A ``Piecewise`` field keeps its edges as times of the old path, and becomes a plain field that jumps there.

    Source: Lipman et al., arXiv 2412.06264, on changing the scheduler after training; Karras et al., arXiv 2206.00364,
    on noise level and scale as the only two numbers of a path.
    """

    def changed(x: Array, t: Array, *y: Array) -> Array:
        x, t = as_state(x), before_end(t)
        now = coefficients(new, t)
        t_old = regular_time(old, before_end(time_at(old, now.alpha, now.beta)))
        then = coefficients(old, t_old)
        scale = jnp.hypot(then.alpha, then.beta) / jnp.hypot(now.alpha, now.beta)
        x_old = (scale * x).astype(x.dtype)
        prediction = from_field(old, field(x_old, t_old, *y), x_old, t_old)
        noise = scale * now.beta / then.beta * prediction.noise
        is_noisy = now.alpha < now.beta
        denoiser = jnp.where(is_noisy, prediction.denoiser, (x - now.beta * noise) / jnp.where(is_noisy, 1, now.alpha))
        noise = jnp.where(is_noisy, (x - now.alpha * denoiser) / jnp.where(is_noisy, now.beta, 1), noise)
        return now.alpha_dot * denoiser + now.beta_dot * noise

    return cast(AnyField, changed)
