"""Change of path: a field that was trained on one Gaussian path, on any other.

(X1) Two states with the same ratio alpha / beta differ by a factor alone:  x_old = c x_new, where
     (alpha_old, beta_old) at t_old is c times (alpha_new, beta_new) at t.
(X2) So D and E at x_new are those at x_old, and  s_new = c s_old,  that is  E_new = (c beta_new / beta_old) E_old,
     which for a t_old off by a rounding follows E to its zero at t = 1.
(X3) u_new = alpha' D + beta' E with the new path's alpha', beta'. The one of D, E whose coefficient is the larger
     is solved for in x_new = alpha D + beta E, so that the prediction fits the state exactly.

All of it is affine in u_old with a coefficient of x that no label changes: guidance commutes with a change of path.
Both ODEs lead from the same noise to the same data, along states that differ by c.
"""

from __future__ import annotations

from typing import cast

import jax
import jax.numpy as jnp

from cfgjax.checks import HUGE, is_traced, like_state, require_between, require_path
from cfgjax.conversions import AnyField, from_field
from cfgjax.paths import as_float, as_state, before_end, coefficients
from cfgjax.types import Array, GaussianPath, Number, Schedule


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


def time_at(path: GaussianPath, alpha: Number, beta: Number) -> Array:
    """The time in [0, 1] at which the path's alpha(t) : beta(t) is ``alpha`` : ``beta``, [].

    By bisection of the rising function alpha(t) beta - beta(t) alpha, which divides by nothing: to the spacing of the
    floating-point numbers, at 0 and 1 exactly.

    Args:
        path: the path.
        alpha: [], not negative: the weight of the data.
        beta: [], not negative: the weight of the noise. A ratio beyond the path's own (the original
            variance-preserving path does not begin at pure noise) gives the nearer end.

    Raises:
        TypeError, ValueError: no path; an alpha or beta that is not one number, negative, or not finite; both of
            them 0.

    >>> from cfgjax import paths
    >>> round(float(time_at(paths.linear(), 0.5, 1.5)), 6)
    0.25
    """
    require_path(path)
    require_between("alpha", alpha, 0, HUGE)
    require_between("beta", beta, 0, HUGE)
    if not is_traced((alpha, beta)) and not (alpha or beta):
        raise ValueError("alpha and beta must not both be 0")
    alpha, beta = as_float(alpha), as_float(beta)
    dtype = jnp.result_type(alpha, beta)
    return _bisect(lambda t: path.alpha(t) * beta - path.beta(t) * alpha, dtype)


def _regular_time(path: GaussianPath, t: Array) -> Array:
    """The time, held from below at the one where W reaches the root of the rounding error."""
    smallest = float(jnp.finfo(t.dtype).eps) ** 0.5
    return jnp.maximum(t, _bisect(lambda t: coefficients(path, t).wronskian - smallest, t.dtype, stop=0.5))


def change_path(field: AnyField, old: GaussianPath, new: GaussianPath) -> AnyField:
    """The vector field on the path ``new`` of a vector field that was trained on the path ``old``, by (X1) to (X3).

    The denoiser and the noise prediction are the same functions at equal ratio alpha / beta, so the change is exact
    for any field, guided or not, and costs no evaluation.

    Args:
        field: a vector field on ``old``, with or without a label. (Of a score, noise prediction or denoiser make a
            vector field first: ``conversions.field_of_score`` and its kin.)
        old: its path.
        new: the path wanted.

    Returns:
        A field of the same signature on ``new``. Singular points: the old field is never called at t = 1 but at the
        largest float below. Where its W is 0 (a polynomial path at t = 0) it says nothing of the denoiser, and is
        called a little later, where W is the root of the rounding error. Where ``new`` is noisier than ``old`` ever
        is, the denoiser is that of the old path's first time.

    A ``Piecewise`` field keeps its edges as times of the old path, and becomes a plain field that jumps there.

    Source: Lipman et al., arXiv 2412.06264, on changing the scheduler after training; Karras et al., arXiv 2206.00364,
    on noise level and scale as the only two numbers of a path.

    Raises:
        TypeError, ValueError: no function or no path; at a call, a value that is not like x, a t not in [0, 1].
    """
    require_path(old, "old")
    require_path(new, "new")
    checked = like_state("field", field)

    def changed(x: Array, t: Array, *y: Array) -> Array:
        x, t = as_state(x), before_end(t)
        now = coefficients(new, t)
        t_old = _regular_time(old, before_end(time_at(old, now.alpha, now.beta)))
        then = coefficients(old, t_old)
        scale = jnp.hypot(then.alpha, then.beta) / jnp.hypot(now.alpha, now.beta)
        x_old = (scale * x).astype(x.dtype)
        prediction = from_field(old, checked(x_old, t_old, *y), x_old, t_old)
        noise = scale * now.beta / then.beta * prediction.noise
        is_noisy = now.alpha < now.beta
        denoiser = jnp.where(is_noisy, prediction.denoiser, (x - now.beta * noise) / jnp.where(is_noisy, 1, now.alpha))
        noise = jnp.where(is_noisy, (x - now.alpha * denoiser) / jnp.where(is_noisy, now.beta, 1), noise)
        return now.alpha_dot * denoiser + now.beta_dot * noise

    return cast(AnyField, changed)
