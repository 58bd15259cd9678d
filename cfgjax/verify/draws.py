"""Bernoulli draws in calls of a user's function: their rate, and what they depend on.

(V9) R calls of n draws. The rate's standard error is that of R n draws, or what the calls' own rates scatter by where
     that is more; allowed are five of them (false alarms under 1e-6).
(V10) With eta as found, the calls' rates have variance eta (1 - eta) / n by an independent Bernoulli draw for each
      example, and n times it by one draw a call. Allowed is a ratio of 2.2: with R = 64 it is chi^2 / 63, above that
      with probability 1e-7.
(V11) The rates at each of n places in the calls have variance eta (1 - eta) / R by new draws in each call, and R times
      it by the same ones. Allowed is a ratio of 1 + 7 sqrt(3.5 / n), seven standard deviations at eta = 0.01, where it
      is widest.
(V22) Of N independent draws at p, however rare, the share differs from p by more than
      [L/3 + sqrt(L^2/9 + 2 L N p (1 - p))] / N with a probability under 2 e^-L (Bernstein's inequality); L = 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cfgjax.verify.report import UNKNOWN, Check, at_most

CALLS, DRAWS, LOOPED = 64, 16384, 4096
"""Calls; draws in each; and draws in all for a function that can be called only one at a time."""
_EXPONENT = 16.0


class Statistics(NamedTuple):
    """What was found of draws at a rate: their mean, and the scatters (V10) and (V11)."""

    rate: float
    mean: float
    by_call: float
    by_place: float
    count: int
    size: int

    @property
    def rate_allowed(self) -> float:
        """Five standard errors of the rate (V9)."""
        return 5 * np.sqrt(self.call_factor * (self.rate * (1 - self.rate)) / self.count)

    @property
    def call_factor(self) -> float:
        """By how much the draws of a call scatter more than independent ones."""
        return max(self.by_call, 1.0)


def statistics(drops: np.ndarray, rate: float) -> Statistics:
    """The statistics of draws [calls, n]: 1 for what is dropped, 0 for what is kept, NaN where that is not seen."""
    mean = float(np.nanmean(drops))
    by_call, by_place = (scatter(drops, axis) / variance(mean) for axis in (1, 0))
    return Statistics(rate, mean, by_call, by_place, int(np.sum(~np.isnan(drops))), drops.shape[1])


def variance(mean: float) -> float:
    """eta (1 - eta), not 0."""
    return max(mean * (1 - mean), 1e-6)


def scatter(drops: np.ndarray, axis: int) -> float:
    """The variance of the rates along an axis, times the number of draws in each (V10)."""
    counts = np.sum(~np.isnan(drops), axis=axis)
    if not counts.all():
        drops, counts = np.compress(counts, drops, axis=1 - axis), counts[counts > 0]
    return float(np.var(np.nanmean(drops, axis=axis), ddof=1) * counts.mean())


def places_allowed(size: int) -> float:
    """The ratio of (V11) that is allowed at n places."""
    return 1 + 7 * np.sqrt(3.5 / size)


def share_allowed(count: float, rate: float) -> float:
    """The difference that is allowed between a rate, however small, and the share in that many draws (V22)."""
    third = _EXPONENT / 3
    return float(third + np.sqrt(third**2 + 2 * _EXPONENT * count * rate * (1 - rate))) / count


def rate_check(found: Statistics, cause: Callable[[], str], prefix: str = "") -> Check:
    """The check of the rate (V9)."""
    return at_most(f"{prefix}rate: difference", abs(found.mean - found.rate), found.rate_allowed, cause)


def draw_checks(found: Statistics, prefix: str = "") -> Iterator[Check]:
    """The checks that each example and each key has a draw of its own (V10, V11)."""
    yield at_most(
        f"{prefix}an independent Bernoulli draw for each example: variance of calls",
        found.by_call,
        2.2,
        lambda: "one Bernoulli draw for a batch" if found.by_call > found.size / 3 else UNKNOWN,
    )
    yield at_most(
        f"{prefix}new draws with each key: variance of places",
        found.by_place,
        places_allowed(found.size),
        lambda: "the key is not used",
    )


def rate_cause(mean: float, rate: float, noun: str) -> str:
    """The words for a rate that is wrong."""
    if mean in (0.0, 1.0):
        return (f"all {noun}s are dropped" if mean else "nothing is dropped") + ", or the key is not used"
    if abs(mean - (1 - rate)) < 0.02:
        return f"the Bernoulli draw is inverted: a {noun} is kept with probability eta"
    return f"{UNKNOWN}; it drops {mean:.3g}"
