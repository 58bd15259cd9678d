"""Guided fields and flow maps of one evaluation, u(x, t, y, w): what stands in the place of a pair and a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, cast

import jax.numpy as jnp

from cfgjax.checks import is_traced, require_number
from cfgjax.conditions import as_condition
from cfgjax.contracts import LIKE_X, Finite, GuidanceScale, checked
from cfgjax.guidance.schedules import in_pieces, scale_at
from cfgjax.types import Array, Condition, GuidedField, Interval, LabelledField, Number, Policy

GuidedStateField = Annotated[GuidedField, LIKE_X]
"""A guided field whose values are found to be like x."""


def _number_within(scale: Any, low: Number, high: Number) -> Any:
    """The number of a scale, or of an interval of one, found to be in the trained range where all are concrete.

    Raises:
        TypeError, ValueError: what is neither, a number outside the range.
    """
    number = cast(Any, scale.scale) if isinstance(scale, Interval) else scale
    require_number("scale", number)
    if not is_traced((number, low, high)) and not float(low) <= float(number) <= float(high):
        raise ValueError(f"scale must be in [{low:g}, {high:g}], the range that was trained, got {float(number):g}")
    return number


@checked
def within(guided: Callable[..., Array], low: Finite, high: Finite) -> Callable[..., Array]:
    """The guided field or flow map, refused at scales that it was not trained on.

    A network that was told scales of a range says nothing of others, and gives them finite values all the same.

    Args:
        guided: a ``GuidedField`` (x, t, y, w) or a ``FlowMap`` (x, t, r, y, w); w, the last argument, is one number or
            an ``Interval`` of one.
        low: [], the least scale of the training.
        high: [], the largest one.

    Returns:
        A function of the same signature. A concrete w outside [low, high] is an error; where one that only a trace
        holds is outside, the values are NaN.

    Raises:
        ValueError: a low over high.

    >>> within(lambda x, t, y, w: w * x, 0.0, 5.0)(jnp.ones(2), 0.5, 1, 7.5)
    Traceback (most recent call last):
    ValueError: scale must be in [0, 5], the range that was trained, got 7.5
    """
    if not is_traced((low, high)) and float(low) > float(high):
        raise ValueError(f"low must be at most high, got {low} and {high}")

    def at(*point: Any) -> Array:
        *state, scale = point
        number = _number_within(scale, low, high)
        value = guided(*state, scale)
        if not is_traced((number, low, high)):
            return value
        return jnp.where((low <= number) & (number <= high), value, jnp.nan)

    return at


@checked
def at_scale(guided_field: GuidedStateField, scale: GuidanceScale) -> LabelledField:
    """The guided field at a scale of any kind but a policy, as a LabelledField of one evaluation.

    Guidance by a schedule or an interval is at each time guidance by the scale of that time: the field is told that
    number, and never an interval.

    Args:
        guided_field: (x, t, y, w) -> like x, of one number w.
        scale: w: a number, a function of t or (t, y), or an ``interval``, outside which the number is 1.

    Returns:
        A LabelledField; of an interval between numbers a ``Piecewise``, as of ``extrapolate``.

    Raises:
        ValueError: a policy, which asks for both sides.
    """
    if isinstance(scale, Interval) and not is_traced(scale[1:]):
        return in_pieces(scale, at_scale(guided_field, scale.scale), at_scale(guided_field, 1.0))

    is_number = not (callable(scale) or isinstance(scale, Interval | Policy))

    def at(x: Array, t: Array, y: Condition) -> Array:
        return guided_field(x, t, as_condition(y), scale if is_number else scale_at(scale, t, y))

    return at
