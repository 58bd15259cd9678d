"""Field, score, noise prediction and denoiser: from any one of them to all four.

(C1) x = alpha D + beta E,   s = -E / beta,   u = alpha' D + beta' E,   with D = E[z|x] and E = E[noise|x].
(C2) from u:  D = (beta u - beta' x) / W,   E = (alpha' x - alpha u) / W,   W = alpha' beta - alpha beta'.
(C3) from s:  E = -beta s,  D = (x - beta E) / alpha;  so u = (alpha'/alpha) x + b s with b = beta W / alpha.
(C4) from D:  E = (x - alpha D) / beta.

Each map is affine in its value, with the same coefficient of x whatever the label, so an affine combination whose
weights sum to 1 (classifier-free guidance) commutes with all of them.

Ends. Coefficients are those at ``paths.before_end(t)``, the largest float below 1 for t = 1: a product such as
beta beta' then has its limit. What a value does not determine at an end comes out as a documented finite number.

Source: MIT 6.S184 notes (arXiv 2506.02070v3), proposition 1; the forms with fewest singular points are this module's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import jax.numpy as jnp

from cfgjax.checks import like_state, require_path, require_real, require_shape
from cfgjax.paths import before_end, coefficients
from cfgjax.pieces import by_piece
from cfgjax.types import Array, Coefficients, Field, GaussianPath, LabelledField, Number, Prediction

AnyField = TypeVar("AnyField", Field, LabelledField)


def _divide(numerator: Array, denominator: Array, otherwise: Array | float) -> Array:
    """numerator / denominator, and ``otherwise`` where the denominator is zero."""
    is_zero = denominator == 0
    return jnp.where(is_zero, otherwise, numerator / jnp.where(is_zero, 1, denominator))


def _at(path: GaussianPath, value: Array, x: Array, t: Number) -> Coefficients:
    """The coefficients before the end, once value and x are found to be alike."""
    require_real("x", x)
    require_shape("value", value, jnp.shape(x))
    return coefficients(path, before_end(t))


def _from_noise(c: Coefficients, noise: Array, x: Array) -> tuple[Array, Array]:
    denoiser = _divide(x - c.beta * noise, c.alpha, 0)
    return c.alpha_dot * denoiser + c.beta_dot * noise, denoiser


def from_field(path: GaussianPath, value: Array, x: Array, t: Number) -> Prediction:
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
        TypeError, ValueError: no path, a value that is not like x, numbers that are not real, a t not in [0, 1].
    """
    c = _at(path, value, x, t)
    denoiser = _divide(c.beta * value - c.beta_dot * x, c.wronskian, 0)
    noise = _divide(c.alpha_dot * x - c.alpha * value, c.wronskian, x / c.beta)
    return Prediction(value, -noise / c.beta, noise, denoiser)


def from_score(path: GaussianPath, value: Array, x: Array, t: Number) -> Prediction:
    """All four predictions from the score s = ``value`` at (x, t), by (C3).

    Singular at t = 0, where alpha = 0 and the score says nothing of the data: the denoiser comes out as 0, the field
    as beta' E. Just above it, errors of the score reach field and denoiser multiplied by 1/alpha. Raises as
    ``from_field``.
    """
    c = _at(path, value, x, t)
    noise = -c.beta * value
    field, denoiser = _from_noise(c, noise, x)
    return Prediction(field, value, noise, denoiser)


def from_noise(path: GaussianPath, value: Array, x: Array, t: Number) -> Prediction:
    """All four predictions from the noise prediction E = ``value`` at (x, t), by (C1).

    Singular at t = 0 as ``from_score`` is, with the same outcome. At t = 1 the score is -E/beta with beta at the
    largest float below 1: finite, and meaningless unless E is 0. Raises as ``from_field``.
    """
    c = _at(path, value, x, t)
    field, denoiser = _from_noise(c, value, x)
    return Prediction(field, -value / c.beta, value, denoiser)


def from_denoiser(path: GaussianPath, value: Array, x: Array, t: Number) -> Prediction:
    """All four predictions from the denoiser D = ``value`` at (x, t), by (C4).

    Singular at t = 1, where beta = 0: the noise prediction comes out as its limit 0, and the score, which D does not
    determine there, as 0. Just below it, errors of D reach the field multiplied by W/beta. Raises as ``from_field``.
    """
    c = _at(path, value, x, t)
    is_end = coefficients(path, t).beta == 0
    noise = jnp.where(is_end, 0, (x - c.alpha * value) / c.beta)
    return Prediction(c.alpha_dot * value + c.beta_dot * noise, -noise / c.beta, noise, value)


@by_piece
def _view(
    convert: Callable[..., Prediction], path: GaussianPath, field: AnyField, name: str, given: str = "field"
) -> AnyField:
    require_path(path)
    checked = like_state(given, field)

    def converted(x: Array, t: Array, *y: Array) -> Array:
        return getattr(convert(path, checked(x, t, *y), x, t), name)

    return cast(AnyField, converted)


def score_of(path: GaussianPath, field: AnyField) -> AnyField:
    """The score that belongs to a vector field, as a field of the same signature; singular points: ``from_field``."""
    return _view(from_field, path, field, "score")


def noise_of(path: GaussianPath, field: AnyField) -> AnyField:
    """The noise prediction that belongs to a vector field, as a field of the same signature."""
    return _view(from_field, path, field, "noise")


def denoiser_of(path: GaussianPath, field: AnyField) -> AnyField:
    """The denoiser that belongs to a vector field, as a field of the same signature."""
    return _view(from_field, path, field, "denoiser")


def field_of_score(path: GaussianPath, score: AnyField) -> AnyField:
    """The vector field that belongs to a score, as a field of the same signature; singular points: ``from_score``."""
    return _view(from_score, path, score, "field", "score")


def field_of_noise(path: GaussianPath, noise: AnyField) -> AnyField:
    """The vector field that belongs to a noise prediction, as a field of the same signature."""
    return _view(from_noise, path, noise, "field", "noise")


def field_of_denoiser(path: GaussianPath, denoiser: AnyField) -> AnyField:
    """The vector field that belongs to a denoiser, as a field of the same signature; see ``from_denoiser``."""
    return _view(from_denoiser, path, denoiser, "field", "denoiser")
