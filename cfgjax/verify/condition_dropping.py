"""Dropping of conditions in training: exactly to the null of sampling, how often, together or apart.

Rates and draws are those of (V9) to (V11) of ``draws``, for every rate. A condition with a rate r of its own is dropped
with probability 1 - (1 - r) (1 - a), where a is ``rate_of_all``.

(V19) What comes out is y's or the null's in each condition, in all of its elements; -0 is 0, and no other difference is
      allowed. Where y is the null itself a draw is not seen, and not counted.
(V20) Two conditions with rates r and q of their own are both dropped with probability a + (1 - a) r q, a share of which
      (V22) of ``draws`` says what is allowed.
(V21) The rates of 64 conditions, which are drawn once and given in turn, scatter as those of the places of (V11): of
      each there are 64 draws or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Annotated, NamedTuple

import numpy as np

from cfgjax.checks import require_rates
from cfgjax.contracts import AnyNull, Contract, between, checked
from cfgjax.types import Array, Condition, Number, Tree
from cfgjax.verify.draws import (
    Statistics,
    draw_checks,
    places_allowed,
    rate_cause,
    rate_check,
    share_allowed,
    statistics,
    variance,
)
from cfgjax.verify.dropping_bugs import alike, constant, leaves_of, value_cause
from cfgjax.verify.dropping_calls import EXAMPLES, Calls, Drop, Problem, Unit, Wrong, called, problem_of
from cfgjax.verify.reference import Seed
from cfgjax.verify.report import UNKNOWN, Check, Report, at_most, collected


@checked
def dropping(
    drop: Drop,
    null: AnyNull,
    rate: Annotated[Tree, Contract(partial(require_rates, most=0.99))],
    draw: Callable[[Array], Condition],
    rate_of_all: Annotated[Number, between(0, 0.99)] = 0.0,
    is_batched: bool = False,
    seed: Seed = 0,
) -> Report:
    """The report on a function (key, y) -> y that drops conditions in training, to the null that sampling uses.

    Checked: y's structure, shapes and types stay; each condition comes out exactly as it was or exactly as the null is;
    conditions under one rate are dropped together, others by draws of their own; the rates; that they do not depend on
    y; an independent draw for each example; new draws with each key. A condition is a ``conditions.Known``, or else an
    array or a label; y is one of them or a tree of them.

    Causes told apart: another null, shown beside the right one; a value that is dropped where ``is_known`` stays, or
    the other way round; elements dropped one by one; dropout that scales what it keeps; a Bernoulli draw inverted;
    nothing or all dropped; another condition's rate; a rate of all that is not used; a draw that is shared and should
    not be, or should be and is not; one draw for a batch; a key that is not used. There are a million draws, fewer
    where y has over 256 numbers.

        null = {"label": jnp.asarray(10), "text": conditions.unknown(jnp.zeros(16))}
        verify.dropping(my_drop, null, {"label": 0.1, "text": 0.2}, draw, rate_of_all=0.05).require()
        guided = guidance.classifier_free(field, scale, null)  # the same object

    Args:
        drop: for ONE example; or with ``is_batched`` for a batch, y's leaves [n, ...], with ONE key.
        null: what sampling uses, as for ``guidance.pair``.
        rate: eta, as for ``guidance.drop_condition``: [], or a tree of rates that y's tree begins with, of which a 0
            never drops.
        draw: key -> y, a condition of ONE example as training has them, which is mostly not the null.
        rate_of_all: [], of a further draw that drops all, read with a tree of rates alone.
        is_batched: whether ``drop`` takes a batch.
        seed: chooses the conditions and keys.

    Raises:
        TypeError, ValueError: conditions that are not alike, or mostly the null; a null that is not like them; rates
            that y's tree does not begin with, that drop nothing, or that drop at a rate under 0.01 or over 0.99.
    """
    problem = problem_of(null, rate, draw, float(rate_of_all), seed)
    limits = (
        "that the loss uses the condition that comes out and sampling this null, nor a rate to more than its "
        "standard error"
    )
    return collected("verify.dropping", _checks(drop, problem, is_batched, seed), limits)


def _checks(drop: Drop, problem: Problem, is_batched: bool, seed: int) -> Iterator[Check]:
    calls = called(drop, problem, is_batched, seed)
    drops = np.where(calls.is_given & calls.is_null, np.nan, ~calls.is_given)
    causes: dict[int, str] = {}
    for index, name in enumerate(problem.names):
        share, cause = float(np.mean(calls.is_wrong(index))), ""
        if share:
            wrong = calls.wrong(drop, problem, index)
            cause = value_cause(name, *wrong)
            drops[_is_alike(wrong, problem, index)[calls.rows], index] = np.nan
            causes |= {} if constant(wrong.found) else {index: cause}
        yield _value_check(name, share, cause)
    seen = []
    for unit in problem.units:
        known = next((causes[index] for index in unit.entries if index in causes), "")
        if len(unit.entries) > 1:
            yield _together_check(unit, drops, problem.names, known)
        seen.append(_Seen(unit, _of_unit(drops[..., unit.entries])))
        yield from _unit_checks(seen[-1], calls, problem, known)
    if len(seen) > 1:
        yield from _apart_checks(seen, problem.rate_of_all)


def _value_check(name: str, share: float, cause: str) -> Check:
    return at_most(f"{name} share neither y's nor the null's".strip(), share, 0.0, lambda: cause)


def _is_alike(wrong: Wrong, problem: Problem, index: int) -> np.ndarray:
    """Which examples have the one wrong value of a condition already, so that a draw is not seen, [64]."""
    value = constant(wrong.found)
    rows = [leaves_of(problem.entry(problem.y, index, row)) for row in range(EXAMPLES)]
    return np.asarray([value is not None and alike(value, row) for row in rows])


def _together_check(unit: Unit, drops: np.ndarray, names: tuple[str, ...], known: str) -> Check:
    own = {names[index]: drops[..., index] for index in unit.entries}
    is_part = np.any(drops[..., unit.entries] == 1, axis=-1) & np.any(drops[..., unit.entries] == 0, axis=-1)

    def cause() -> str:
        never = [name for name, each in own.items() if np.any(each == 0) and not np.any(each == 1)]
        others = [name for name in own if name not in never]
        if never:
            return f"{never[0]} is never dropped, and should be together with {others[0]}"
        apart = (pair for pair in combinations(own, 2) if np.any(own[pair[0]] + own[pair[1]] == 1))
        return "{} and {} are dropped separately, and should be dropped together".format(*next(apart))

    return at_most(f"{unit.prefix}share dropped in part", np.mean(is_part), 0.0, lambda: known or cause())


def _of_unit(drops: np.ndarray) -> np.ndarray:
    """Whether a unit is dropped, [calls, n], by the first of its conditions for which it is seen."""
    first = np.argmin(np.isnan(drops), axis=-1, keepdims=True)
    return np.take_along_axis(drops, first, axis=-1)[..., 0]


class _Seen:
    """The draws of a unit, [calls, n], and their statistics."""

    def __init__(self, unit: Unit, drops: np.ndarray) -> None:
        self.unit, self.drops, self.found = unit, drops, statistics(drops, unit.rate)

    @property
    def is_right(self) -> bool:
        """Whether the rate is."""
        return abs(self.found.mean - self.unit.rate) <= self.found.rate_allowed


def _unit_checks(seen: _Seen, calls: Calls, problem: Problem, known: str) -> Iterator[Check]:
    unit, found = seen.unit, seen.found
    if unit.rate == 0:
        words = f"it is dropped at the rate {found.mean:.3g}, and should never be"
        yield at_most(f"{unit.prefix}share dropped", found.mean, 0.0, lambda: known or words)
        return
    by_example = _scatter_of_examples(seen.drops, calls.rows) / variance(found.mean)
    words = f"{unit.prefix}rate of each y: variance of examples"
    of_examples = at_most(words, by_example, places_allowed(EXAMPLES), lambda: known or "the rate depends on y")
    others = (of_examples, *draw_checks(found, unit.prefix))

    def cause() -> str:
        shared = next((check.cause for check in others if check.cause not in ("", UNKNOWN)), "")
        return known or shared or _other_rate(unit, found, problem) or rate_cause(found.mean, unit.rate, "condition")

    yield rate_check(found, cause, unit.prefix)
    yield from others


def _other_rate(unit: Unit, found: Statistics, problem: Problem) -> str:
    """The words for a rate that is another one's, or lacks a part; empty where none fits."""
    others = {f"it is dropped at the rate of {each.where}": each.rate for each in problem.units if each != unit}
    if problem.rate_of_all:
        others = {
            f"rate_of_all is not used: it drops {unit.own:g}": unit.own,
            f"its own rate is not used, and rate_of_all alone: it drops {problem.rate_of_all:g}": problem.rate_of_all,
        } | others
    return next((words for words, rate in others.items() if abs(found.mean - rate) <= found.rate_allowed), "")


def _scatter_of_examples(drops: np.ndarray, rows: np.ndarray) -> float:
    """The variance of the examples' rates, times the number of draws of each (V21)."""
    is_seen = ~np.isnan(drops)
    counts = np.bincount(rows[is_seen], minlength=EXAMPLES)
    rates = np.bincount(rows[is_seen], drops[is_seen], EXAMPLES)[counts > 0] / counts[counts > 0]
    return float(np.var(rates, ddof=1) * counts[counts > 0].mean()) if len(rates) > 1 else 0.0


class _Pair(NamedTuple):
    """Two units: how often both are dropped, and how often they should be."""

    first: _Seen
    second: _Seen
    both: float
    expected: float
    allowed: float
    rate_of_all: float

    @property
    def cause(self) -> str:
        """What they share, or do not."""
        names = f"{self.first.unit.where} and {self.second.unit.where}"
        means = self.first.found.mean, self.second.found.mean
        if abs(self.both - min(means)) <= self.allowed:
            return f"{names} are dropped by a shared draw, and should have one each"
        if self.rate_of_all and abs(self.both - means[0] * means[1]) <= self.allowed:
            return f"{names} are dropped independently, and should have a draw of rate_of_all together"
        wrong = [each.unit.where for each in (self.first, self.second) if not each.is_right]
        return f"the rate of {wrong[0]} is wrong" if wrong else f"{UNKNOWN}; both are dropped at {self.both:.3g}"


def _pair(first: _Seen, second: _Seen, rate_of_all: float) -> _Pair:
    """How often both are dropped, against (V20)."""
    product = first.drops * second.drops
    count = np.sum(~np.isnan(product)) / max(first.found.call_factor, second.found.call_factor)
    expected = rate_of_all + (1 - rate_of_all) * first.unit.own * second.unit.own
    return _Pair(first, second, float(np.nanmean(product)), expected, share_allowed(count, expected), rate_of_all)


def _apart_checks(seen: list[_Seen], rate_of_all: float) -> Iterator[Check]:
    """The check of the two units that are most often, or least often, dropped at once."""
    pairs = [_pair(*both, rate_of_all) for both in combinations([each for each in seen if each.unit.rate], 2)]
    if pairs:
        worst = max(pairs, key=lambda pair: abs(pair.both - pair.expected) / pair.allowed)
        words = "two dropped at once: largest difference"
        yield at_most(words, abs(worst.both - worst.expected), worst.allowed, lambda: worst.cause)
