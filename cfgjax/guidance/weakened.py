"""Guidance by a weakened self: two sides from one evaluation, and a weak field beside classifier-free guidance.

The weak field is the same network made worse: blocks passed over, attention maps replaced or smoothed, or the output of
a head in its middle. Alone it is ``autoguidance``, whatever its kind.
"""

from __future__ import annotations

from typing import Any

from cfgjax.checks import is_known_as, is_traced, require_like, require_point
from cfgjax.conditions import as_condition
from cfgjax.contracts import GuidanceScale, LabelledStateField, checked
from cfgjax.guidance.pairs import autoguidance_pair, extrapolate, interpolate
from cfgjax.guidance.schedules import in_pieces, scale_at
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Both, Condition, Interval, LabelledField, Pair, Scale


@piecewise
@checked
def pair_of_sides(both: Both) -> Pair:
    """The pair of two sides that one function evaluates together, the null side first.

    For sides that share their evaluation, as the output of an internal head and that of the whole network do: guidance
    then costs ONE evaluation. Compiled, a scale known as 1 or 0 leaves out what only the other side needs.

    Args:
        both: (x, t, y) -> (null side, labelled side), both like x.

    Raises:
        TypeError, ValueError: at a call, what is not two values like x.

    >>> import jax.numpy as jnp
    >>> sides = pair_of_sides(lambda x, t, y: (x, 3 * x))
    >>> float(extrapolate(sides, 2.0)(jnp.float32(1), 0.5, 0))
    5.0
    """

    def sides(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        require_point(x, t)
        found: Any = both(x, t, as_condition(y))
        if not isinstance(found, tuple | list) or len(found) != 2:
            size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
            raise TypeError(f"both must give (null, labelled), got {type(found).__name__}{size}")
        null, labelled = (require_like("both", value, x) for value in found)
        return null, labelled

    return Pair(sides, lambda x, t, y: sides(x, t, y)[1], lambda x, t, y: sides(x, t, y)[0])


def _by_time(scale: Scale) -> Any:
    """The scale; of an interval between numbers the Piecewise of its inner scale and 1."""
    if isinstance(scale, Interval) and not is_traced(scale[1:]):
        return in_pieces(scale, scale.scale, 1.0)
    return scale


@piecewise
def _weakened(pair: Pair, weak_field: LabelledField, scale: Scale, weak_scale: Scale) -> LabelledField:
    if is_known_as(weak_scale, 1):
        return extrapolate(pair, scale)
    if is_known_as(scale, 1):
        return extrapolate(autoguidance_pair(pair.labelled, weak_field), weak_scale)

    def guided(x: Array, t: Array, y: Condition) -> Array:
        null, labelled = pair.both(x, t, y)
        weak = weak_field(x, t, as_condition(y))
        value = interpolate(null, labelled, scale_at(scale, t, y, (x, null, labelled)))
        return value + (scale_at(weak_scale, t, y, (x, weak, labelled)) - 1) * (labelled - weak)

    return guided


@piecewise
@checked
def weakened(
    pair: Pair, weak_field: LabelledStateField, scale: GuidanceScale, weak_scale: GuidanceScale
) -> LabelledField:
    """The field u_y + (w - 1) (u_y - u_null) + (v - 1) (u_y - u_weak): classifier-free guidance and a weakened self.

    Acts in any space, as the weights w + v - 1, 1 - w and 1 - v sum to 1. v = 1 is classifier-free guidance and w = 1
    autoguidance, each bitwise; both at 1 are the labelled field. Three evaluations; a w or v known as 1 leaves out its
    own, as outside an ``interval``, which may be another for each.

    Papers write the scale s = v - 1 of skipped layers (Stability AI, Stable Diffusion 3.5), of perturbed attention
    (PAG, arXiv 2403.17377, whose first code has v itself), of smoothed energy (SEG, arXiv 2408.00760) and of
    spatio-temporal skips (STG, arXiv 2411.18664; for Wan2.1 its code leads away from the weak field at the NULL label
    and multiplies the guided one: another rule, ``extrapolate`` of the pair of those two).

    Args:
        pair: the null and the labelled side.
        weak_field: the same network made worse, at y as the labelled side is, in the pair's space.
        scale: w, as for ``extrapolate``.
        weak_scale: v = 1 + s, of the same kinds; a ``policy`` has the weak side in the null side's place.

    Source: the formula common to their authors' code.
    """
    return _weakened(pair, weak_field, _by_time(scale), _by_time(weak_scale))
