"""The scales of rules that guide within the step: a number, a function of t, or a policy of both sides."""

from __future__ import annotations

from typing import Annotated, cast

import jax.numpy as jnp

from cfgjax.checks import require_scalar, require_scale, takes_label
from cfgjax.contracts import Contract
from cfgjax.types import Array, Condition, Interval, Number, Policy, Schedule


def _require_rate(name: str, scale: object) -> None:
    if isinstance(scale, Policy):
        raise ValueError(f"{name} must be a number or a function of t here, got a policy")
    _require_rate_or_policy(name, scale)


def _require_rate_or_policy(name: str, scale: object) -> None:
    if isinstance(scale, Interval):
        raise ValueError(f"{name} must be a number, a function of t or a policy here, got an interval")
    require_scale(name, cast(Number, scale))
    if callable(scale) and takes_label(scale):
        raise TypeError(f"{name} must be a function of t here, got one of (t, y)")


Rate = Annotated[Number | Schedule, Contract(_require_rate)]
"""One number, finite where concrete, or a function of t."""
RateOrPolicy = Annotated[Number | Schedule | Policy, Contract(_require_rate_or_policy)]
"""One number, finite where concrete, a function of t, or a policy of the state and both sides."""


def rate_at(
    scale: Number | Schedule | Policy, x: Array, t: Array, y: Condition, sides: tuple[Array, Array] | None = None
) -> Array:
    """The number that the scale is at x and t, [], given the null and the labelled side for a policy."""
    if isinstance(scale, Policy) and sides is not None:
        value = scale.scale_of(x, t, y, *sides)
    else:
        value = cast(Schedule, scale)(t) if callable(scale) else scale
    require_scalar("scale", value)
    return jnp.asarray(value)
