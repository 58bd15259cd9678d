"""What rules on the denoised estimate have in common: the estimate, its pull-back, and the corrected field.

(E1) D(x, t) = E[z|x] of the field, guided or not, and J = dD/dx, of which J^T alone is applied: by one
     vector-Jacobian product, that of the evaluation in which D is found.
(E2) For exact fields J is symmetric and Cov[z|x] = (beta^2 / alpha) J.
(E3) A correction G, for grad_x log p_t(m|x), gives the field u + scale b G with b = beta W / alpha, whose denoiser is
     D + scale (beta^2 / alpha) G.

Ends. At t = 0, b is infinite and J is 0: all of (E3) is taken at max(t, ``start``), the field u, too, so that one
evaluation does. What that changes in a sample is O(start^2). At t = 1 coefficients are those at the largest float
below 1: there b is 0 to rounding, but on variance-preserving paths, where it has another limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from cfgjax.checks import is_known_as, require_number
from cfgjax.contracts import AnyField
from cfgjax.conversions import from_field
from cfgjax.paths import as_state, as_time, before_end, coefficients
from cfgjax.types import Array, Coefficients, GaussianPath, Number, Schedule

START = 0.01
"""The time before which corrections are held; b is at most 99 then on the linear path."""


class Denoised(NamedTuple):
    """What a rule knows of a state: the field's value and D, both [*D], and g [*D] -> J^T g of (E1)."""

    value: Array
    denoiser: Array
    pull_back: Callable[[Array], Array]
    coefficients: Coefficients

    @property
    def variance(self) -> Array:
        """beta^2 / alpha of (E2), [], by which J is the covariance of z."""
        return self.coefficients.beta / self.coefficients.alpha * self.coefficients.beta


Correction = Callable[[Denoised], Array]
"""``Denoised -> G [*D]`` of (E3)."""


def value_at(schedule: Number | Schedule, t: Array, name: str = "scale") -> Array:
    """The number, or the function's value at t, []."""
    value = schedule(t) if callable(schedule) else schedule
    require_number(name, value)
    return jnp.asarray(value)


def denoised_at(path: GaussianPath, field: AnyField, x: Array, t: Array, *y: Array) -> Denoised:
    """The field's value and D at (x, t) from one evaluation, with the pull-back of D."""

    def denoiser(x: Array) -> tuple[Array, Array]:
        value = field(x, t, *y)
        return from_field(path, value, x, t).denoiser, value

    found, pull_back, value = jax.vjp(denoiser, x, has_aux=True)
    return Denoised(value, found, lambda g: pull_back(g.astype(found.dtype))[0], coefficients(path, before_end(t)))


def corrected(
    path: GaussianPath, field: AnyField, correction: Correction, scale: Number | Schedule, start: Number
) -> AnyField:
    """The field u + scale b G of (E3); of a scale known as 0 the field itself."""
    if is_known_as(scale, 0):
        return field

    def steered(x: Array, t: Array, *y: Array) -> Array:
        held = before_end(jnp.maximum(as_time(t), start))
        at = denoised_at(path, field, as_state(x), held, *y)
        c = at.coefficients
        return at.value + value_at(scale, held) * (c.beta * c.wronskian / c.alpha) * correction(at)

    return cast(AnyField, steered)
