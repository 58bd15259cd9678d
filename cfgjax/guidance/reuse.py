"""Guidance that evaluates the null side in some steps of a solve alone, and extrapolates u_y - u_null in the others.

With d_i = u_y - u_null at the last times t_i of evaluation, one more of them than the schedule's order:

    d(t) = sum_i d_i prod_(j != i) (t - t_j) / (t_i - t_j),      u_w = u_y + (w - 1) d(t),

the polynomial through them; of lower degree while fewer are known. u_y is evaluated everywhere: of n null evaluations
m are left, and of 2 n evaluations n + m.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple, cast, get_args

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_choice, require_count, require_grid, require_kind
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, ConcreteTimeGrid, Contract, GuidanceScale, PositiveInt, at_least, checked
from cfgjax.guidance.pairs import extrapolate
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.types import (
    Array,
    Condition,
    Evaluated,
    Interval,
    LabelledField,
    Pair,
    ReuseSchedule,
    Scale,
    StatefulField,
)

MAX_ORDER = 2
OUTSIDE = "outside"
"""The mode of a step outside the interval of guidance, beside those of ``Evaluated``."""


def require_schedule(name: str, value: Any) -> ReuseSchedule:
    """The schedule as one of Python's numbers and words; TypeError or ValueError for what is none."""
    require_kind(name, value, ReuseSchedule, "a ReuseSchedule, as guidance.reuse_every(ts, 2) is")
    ts = np.asarray(value.ts)
    require_grid(f"{name}.ts", ts)
    require_kind(f"{name}.evaluated", value.evaluated, (tuple, list), "a word for each step")
    for word in value.evaluated:
        require_choice(f"{name}.evaluated", word, get_args(Evaluated))
    if len(value.evaluated) != len(ts) - 1:
        raise ValueError(f"{name}.evaluated must be {len(ts) - 1} words for the steps, got {len(value.evaluated)}")
    require_count(f"{name}.order", value.order, 0, MAX_ORDER)
    return ReuseSchedule(tuple(ts.tolist()), tuple(value.evaluated), value.order)


Order = Annotated[int, at_least(0, MAX_ORDER)]
"""The degree of an extrapolation, 0, 1 or 2."""
AnySchedule = Annotated[ReuseSchedule, Contract(require_schedule)]
"""A schedule of reuse with a word for each step of a grid, of an order in 0..2."""


class Differences(NamedTuple):
    """The memory of ``reused``: u_y - u_null at the last evaluations, [k, *D], their times [k], and how many are known.

    The newest comes first.
    """

    values: Array
    times: Array
    count: Array


@checked
def reuse_every(ts: ConcreteTimeGrid, period: PositiveInt, order: Order = 1) -> ReuseSchedule:
    """The schedule that evaluates both sides at the start of each ``period``-th step, and nowhere else.

    Args:
        ts: [n + 1], the grid.
        period: 1 for every step, where later evaluations of a step are spared alone.
        order: the degree of the extrapolation.

    >>> reuse_every(np.linspace(0, 1, 5), 2).evaluated
    ('first', 'none', 'first', 'none')
    """
    words: list[Evaluated] = ["none" if step % period else "first" for step in range(len(ts) - 1)]
    return ReuseSchedule(tuple(np.asarray(ts).tolist()), tuple(words), order)


def extrapolation_weights(times: Any, is_known: Any, t: Any) -> Array:
    """Lagrange's factor at t of the value at each of the times that are known, [k]; 0 for the others."""
    gaps = times[:, None] - times[None, :]
    is_factor = is_known[None, :] & ~np.eye(len(times), dtype=bool)
    ratios = jnp.where(is_factor, (t - times)[None, :] / jnp.where(is_factor, gaps, 1), 1)
    return jnp.where(is_known, jnp.prod(ratios, axis=1), 0)


def _empty(order: int, x: Array) -> Differences:
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return Differences(jnp.zeros((order + 1, *x.shape), dtype), jnp.zeros(order + 1, dtype), jnp.zeros((), jnp.int32))


def _noted(memory: Differences, difference: Array, t: Array) -> Differences:
    """The memory with an evaluation more: in the place of the newest where that is of the same time."""
    values, times, count = memory
    is_again = (count > 0) & (times[0] == t)

    def pushed(new: Array, known: Array) -> Array:
        first = jnp.asarray(new, known.dtype)[None]
        return jnp.concatenate([first, jnp.where(is_again, known[1:], known[:-1])])

    count = jnp.minimum(count + jnp.where(is_again, 0, 1), len(times)).astype(count.dtype)
    return Differences(pushed(difference, values), pushed(t, times), count)


def _guess(memory: Differences, t: Array) -> Array:
    """u_y - u_null at t of what is known; NaN before any evaluation."""
    values, times, count = memory
    factors = extrapolation_weights(times, jnp.arange(len(times)) < count, jnp.asarray(t, times.dtype))
    factors = jnp.where(count > 0, factors, jnp.nan)
    return jnp.sum(factors.reshape(-1, *(1 for _ in values.shape[1:])) * values, axis=0)


Apply = Callable[[Array, Array, Differences], tuple[Array, Differences]]
Build = Callable[[Pair, Scale], LabelledField]


def _built(build: Build, pair: Pair, scale: Scale) -> LabelledField:
    """The field that ``build`` makes; TypeError for none, ValueError for one in pieces, of unknown sides."""
    field = build(pair, scale)
    if isinstance(field, Piecewise):
        raise ValueError(
            f"build must give one field for all times, got one in pieces with the edges {field.edges}: an interval is "
            "the scale's"
        )
    if not callable(field):
        raise TypeError(f"build must give a field, got {type(field).__name__}")
    return field


def _evaluating(pair: Pair, scale: Scale, y: Condition, build: Build) -> Apply:
    """The guided field of both sides, whose difference the memory notes."""

    def apply(x: Array, t: Array, memory: Differences) -> tuple[Array, Differences]:
        seen: list[Array] = []

        def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
            null, labelled = pair.both(x, t, y)
            seen.append(labelled - null)
            return null, labelled

        value = _built(build, pair._replace(both=both), scale)(x, t, y)
        return value, _noted(memory, seen[-1], t) if seen else memory

    return apply


def _guessing(pair: Pair, scale: Scale, y: Condition, build: Build) -> Apply:
    """The guided field of the labelled side and what the memory makes of the other."""

    def apply(x: Array, t: Array, memory: Differences) -> tuple[Array, Differences]:
        def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
            labelled = pair.labelled(x, t, y)
            return (labelled - _guess(memory, t)).astype(labelled.dtype), labelled

        return _built(build, pair._replace(both=both), scale)(x, t, y), memory

    return apply


def _modes(schedule: ReuseSchedule, scale: Scale) -> list[str]:
    """What is done in each step: inside the interval what the schedule says, but that the first one evaluates."""
    middles = np.convolve(schedule.ts, [0.5, 0.5], mode="valid")
    start, stop = (float(scale.start), float(scale.stop)) if isinstance(scale, Interval) else (0.0, 1.0)
    is_inside = (middles >= start) & (middles < stop)
    modes = [word if inside else OUTSIDE for word, inside in zip(schedule.evaluated, is_inside, strict=True)]
    first = int(np.argmax(is_inside))
    modes[first] = "first" if modes[first] == "none" else modes[first]
    return modes


@piecewise
@checked
def reused(
    pair: Pair, scale: GuidanceScale, y: AnyCondition, schedule: AnySchedule, build: Build = extrapolate
) -> StatefulField:
    """The guided field of a condition that evaluates the null side by a schedule, for ``solvers.with_field_state``.

    Elsewhere the labelled side alone is evaluated, and u_y - u_null is extrapolated in t from its last evaluations.
    The schedule is structure: the compiled program holds no evaluation that is not made, and w may be traced. w = 1 is
    the labelled side bitwise, and a schedule of "every" is ``build(pair, scale)`` bitwise.

    The first guided step evaluates both sides, whatever the schedule. A solve that begins after it, on another grid,
    knows nothing at first: its value is NaN. ``analysis.reuse`` finds a schedule for a tolerance.

    Args:
        pair: the two sides, after the rules on pairs that are to act.
        scale: w. Outside an ``interval`` between numbers, to which a step belongs by its middle, the labelled side
            alone is evaluated, whatever the schedule.
        y: the condition.
        schedule: which steps evaluate both sides, as ``reuse_every(ts, 2)``.
        build: the rule for both sides, ``extrapolate`` or one of its kind.

    Returns:
        A Piecewise of StatefulFields, one for each mode, with edges at the grid's times where the mode changes.

    Source: Lv et al., arXiv 2410.19355 (section 3.3), who add a kept difference of both sides in the frequencies;
    Castillo et al., arXiv 2312.12487, who leave the null side out at the end, or fit it linearly to the last ones.
    """
    y, is_known = as_condition(y), not (isinstance(scale, Interval) and is_traced(scale[1:]))
    inner = scale.scale if isinstance(scale, Interval) and is_known else scale
    both, guess = (make(pair, inner, y, build) for make in (_evaluating, _guessing))
    init = partial(_empty, schedule.order)
    fields = {
        "every": StatefulField(init, both, both),
        "first": StatefulField(init, both, guess),
        "none": StatefulField(init, guess, guess),
        OUTSIDE: StatefulField(init, lambda x, t, memory: (pair.labelled(x, t, y), memory)),
    }
    modes = _modes(schedule, scale if is_known else 1)
    ts = schedule.ts if schedule.ts[0] < schedule.ts[-1] else schedule.ts[::-1]
    modes = modes if ts is schedule.ts else modes[::-1]
    changes = [step for step in range(1, len(modes)) if modes[step] != modes[step - 1]]
    pieces = tuple(fields[modes[step]] for step in (0, *changes))
    return cast(StatefulField, Piecewise(tuple(ts[step] for step in changes), pieces))
