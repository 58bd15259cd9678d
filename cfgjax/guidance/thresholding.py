"""Rules on a guided field alone: thresholds of its denoiser, and a start without movement."""

from __future__ import annotations

from typing import Annotated, cast

import jax.numpy as jnp

from cfgjax.checks import BELOW_ONE, is_traced, require_between, require_point
from cfgjax.contracts import AnyField, Contract, FieldLikeX, Positive, PositiveOrInf, between, checked
from cfgjax.conversions import from_field
from cfgjax.paths import before_end, coefficients
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.types import Array, GaussianPath, Number

Percentile = Annotated[Number, between(0, 100)]


def _require_edge(name: str, start: float) -> None:
    if is_traced(start):
        raise TypeError(f"{name} must be a number that is not traced: the pieces' edges are fixed")
    require_between(name, start, 0, BELOW_ONE)


Edge = Annotated[float, Contract(_require_edge)]
"""One number in [0, 1) that is not traced."""


def with_denoiser(path: GaussianPath, value: Array, t: Array, denoiser: Array, wanted: Array) -> Array:
    """The field u + (W / beta) (D' - D) whose denoiser is D', given the field u of D; u itself where D' is D."""
    c = coefficients(path, before_end(t))
    return value + jnp.where(wanted == denoiser, 0, c.wronskian / c.beta * (wanted - denoiser))


@piecewise
@checked
def static_threshold(path: GaussianPath, field: FieldLikeX[AnyField], bound: PositiveOrInf = 1.0) -> AnyField:
    """The field whose denoiser is clipped to [-bound, bound] (static threshold).

    Acts in denoiser space and changes nothing where |D| <= bound, bitwise. It bounds what a large scale w can do,
    whatever w: above the bound the samples no longer depend on it. At t = 1 the correction is multiplied by
    W / beta at the largest float below 1.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        bound: [], the largest absolute value of data; infinity for none.

    Source: Ho et al., arXiv 2006.11239 (the clipped x_0); Saharia et al., arXiv 2205.11487, section 2.3.
    """

    def bounded(x: Array, t: Array, *y: Array) -> Array:
        value = field(x, t, *y)
        denoiser = from_field(path, value, x, t).denoiser
        return with_denoiser(path, value, t, denoiser, jnp.clip(denoiser, -bound, bound))

    return cast(AnyField, bounded)


@piecewise
@checked
def dynamic_threshold(
    path: GaussianPath, field: FieldLikeX[AnyField], percentile: Percentile = 99.5, bound: Positive = 1.0
) -> AnyField:
    """The field whose denoiser is clipped at a percentile s of its own |D| and divided by s (dynamic threshold).

    Acts in denoiser space, on one example's own values: D' = bound clip(D, -s, s) / s with
    s = max(percentile of |D|, bound). Where s = bound it is ``static_threshold``; percentile 100 and a bound that D
    never exceeds change nothing, bitwise. As for ``static_threshold``, samples depend little on w above the bound.

    Args:
        path: the path of the field.
        field: a vector field, guided or not.
        percentile: [], in [0, 100].
        bound: [], the largest absolute value of data.

    Source: Saharia et al., arXiv 2205.11487, section 2.3.
    """

    def bounded(x: Array, t: Array, *y: Array) -> Array:
        value = field(x, t, *y)
        denoiser = from_field(path, value, x, t).denoiser
        if denoiser.size == 0:
            return value
        limit = jnp.maximum(jnp.percentile(jnp.abs(denoiser), percentile), bound)
        wanted = jnp.clip(denoiser, -limit, limit) * (bound / limit)
        return with_denoiser(path, value, t, denoiser, wanted)

    return cast(AnyField, bounded)


@piecewise
@checked
def zero_init(field: AnyField, start: Edge) -> AnyField:
    """The field, and zero for t < start, where nothing is evaluated: a Piecewise.

    Acts on the vector field. An early field is the least accurate; start = 0 changes nothing. With the first n of
    N uniform steps left out, start = n / N.

    Source: Fan et al., arXiv 2503.18886 (zero-init).
    """

    def still(x: Array, t: Array, *y: Array) -> Array:
        require_point(x, t)
        return jnp.zeros_like(x)

    return cast(AnyField, Piecewise((float(start),), (still, field)))
