"""Which numbers a report can give, by what there is of data and samples; reported before training, too."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments.runtime import distributed

NEIGHBOURS = 5
"""k of precision, recall, density and coverage."""


class Counts(NamedTuple):
    """What there is: samples of a rule at one scale, pictures held out, labels that have examples to train on."""

    samples: int
    held_out: int
    labels: int


class Need(NamedTuple):
    """Numbers, and the counts without which they are not defined."""

    numbers: str
    least: Counts


WORDS = "samples at each scale", "pictures held out", "labels with training examples"
RECOGNITION = Need("recognised", Counts(1, 0, 2))
ACCURACY = Need("feature classifier's accuracy", Counts(1, 1, 2))
DISTANCES = Need("frechet, kernel", Counts(2, 4, 2))
NEIGHBOURHOODS = Need("precision, recall, density, coverage", Counts(NEIGHBOURS + 1, 2 * (NEIGHBOURS + 1), 2))
COPIES = Need("copies", Counts(1, 1, 1))
BITS = Need("bits per dimension", Counts(1, 2, 1))
RESIDUALS = Need("residuals", Counts(1, 1, 2))
BY_TIME = Need("accuracy and calibration by time", Counts(1, 1, 2))
RECONSTRUCTION = Need("reconstruction", Counts(1, 1, 1))


def left_out(needs: Iterable[Need], there: Counts) -> dict[str, str]:
    """The numbers that cannot be given, with the first reason of each.

    >>> left_out([DISTANCES, COPIES], Counts(samples=100, held_out=3, labels=2))
    {'frechet, kernel': 'needs 4 pictures held out, there are 3'}
    """
    found = {}
    for need in needs:
        short = [(word, least, has) for word, least, has in zip(WORDS, need.least, there, strict=True) if has < least]
        for word, least, has in short[:1]:
            found[need.numbers] = f"needs {least} {word}, there {'is' if has == 1 else 'are'} {has}"
    return found


def tell(missing: dict[str, str]) -> None:
    """Says in one line what is left out, if anything is."""
    if missing:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        distributed.warn(f"warning: left out of the report: {reasons}")


def finite(value: Any, name: str = "") -> tuple[Any, list[str]]:
    """The value without numbers that are not finite, and their names: gone from objects, null in lists.

    >>> finite({"a": 1.0, "b": [float("nan"), 2.0], "rows": [{"c": float("inf"), "d": 3}]})
    ({'a': 1.0, 'b': [None, 2.0], 'rows': [{'d': 3}]}, ['b', 'c'])
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None, [name]
    if isinstance(value, dict):
        found = {key: finite(its, key) for key, its in value.items()}
        kept = {key: its for key, (its, _) in found.items() if its is not None or value[key] is None}
        return kept, _once(names for _, names in found.values())
    if isinstance(value, list):
        pairs = [finite(its, name) for its in value]
        return [its for its, _ in pairs], _once(names for _, names in pairs)
    return value, []


def _once(names: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for some in names for name in some))
