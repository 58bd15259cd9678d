"""Checks one after another until the minutes are up: one that fails is a row, too, and the rest goes on."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from experiments.accelerator_check.rows import Row, Value
from experiments.benchmark.timed_functions import Skipped
from experiments.cli import main as cli
from experiments.cli.compilation_cache import Seen

LONGEST = 500
"""Letters of an error that are kept."""


class Check(NamedTuple):
    """One check.

    Attributes:
        group: the part of the page that it belongs to.
        name: what is checked.
        run: gives the row's values, or why there are none.
        latest: the share of the minutes after which it is not begun, so that later groups have theirs.
    """

    group: str
    name: str
    run: Callable[[], Mapping[str, Value] | Skipped]
    latest: float = 1.0


class Budget:
    """The minutes that there are.

    Args:
        minutes: from now on.
        clock: the seconds now.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes, self._clock, self._start = minutes, clock, clock()

    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def refusal(self, latest: float = 1.0) -> str | None:
        """Why nothing is begun any more that must begin within this share of the minutes; None while it may."""
        if self.seconds() < 60 * self.minutes * latest:
            return None
        return f"{'the' if latest == 1 else f'{100 * latest:.0f} % of the'} {self.minutes:g} minutes are up"


def error_in_a_line(error: Exception) -> str:
    """The kind of the error and its message."""
    return cli.plain(f"{type(error).__name__}: {error}")[:LONGEST]


def _row(check: Check, budget: Budget) -> Row:
    refusal = budget.refusal(check.latest)
    if refusal is not None:
        return Row(check.group, check.name, skipped=refusal)
    begun, seen = budget.seconds(), Seen()
    values, failed, skipped = {}, None, None
    try:
        found = check.run()
        skipped = found.reason if isinstance(found, Skipped) else None
        values = {} if isinstance(found, Skipped) else dict(found)
    except Exception as error:
        failed = error_in_a_line(error)
    finally:
        seen.stop()
    return Row(
        check.group, check.name, values, skipped, failed, budget.seconds() - begun, seen.count, seen.kept, seen.seconds
    )


def run(checks: Sequence[Check], budget: Budget) -> Iterator[Row]:
    """The rows of the checks, as they come."""
    for check in checks:
        row = _row(check, budget)
        gc.collect()  # the arrays of a check that failed lie in cycles of its error
        yield row
