"""What a verification found: rows, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")

UNKNOWN = "no known cause fits"


class VerificationError(AssertionError):
    """A report with a failed check; its message is the table."""


class CallError(Exception):
    """What went wrong in a call of the user's object, in words."""


@dataclass(frozen=True)
class Check:
    """One row: a measured number beside what is allowed, and in words the likely cause of a failure.

    ``cause`` is empty for a check that is passed. A call that failed has no number: NaN.
    """

    name: str
    is_passed: bool
    measured: float
    allowed: float
    cause: str = ""

    def __str__(self) -> str:
        state = "passed" if self.is_passed else "FAILED"
        return f"{state}  {self.name}  {_number(self.measured)}  {_number(self.allowed)}  {self.cause}".rstrip()


@dataclass(frozen=True)
class Report:
    """All rows of one verification; ``str`` gives them as a table of plain text, and then what a pass leaves open."""

    checks: tuple[Check, ...]
    subject: str = "verify"
    limits: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check is passed, and there is at least one."""
        return bool(self.checks) and all(check.is_passed for check in self.checks)

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes of the failed checks, in the rows' order, each once."""
        return tuple(dict.fromkeys(check.cause for check in self.checks if not check.is_passed))

    def require(self) -> None:
        """Raises VerificationError with the table where a check failed: for the user's own tests."""
        if not self.passed:
            raise VerificationError(f"\n{self}")

    def __str__(self) -> str:
        num_failed = sum(not check.is_passed for check in self.checks)
        head = f"{self.subject}: {num_failed or 'none'} of {len(self.checks)} checks failed"
        rows = [("", "check", "measured", "allowed", "likely cause")]
        for check in self.checks:
            state = "passed" if check.is_passed else "FAILED"
            rows.append((state, check.name, _number(check.measured), _number(check.allowed), check.cause))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        end = [f"A pass does not show {self.limits}."] if self.limits else []
        return "\n".join([head, *("  ".join(_aligned(row, widths)).rstrip() for row in rows), *end])


def _aligned(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for column, width in enumerate(widths):
        yield row[column].ljust(width) if column < 2 else row[column].rjust(width)
    yield row[4]


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def at_most(name: str, measured: float, allowed: float, cause: Callable[[], str] = lambda: UNKNOWN) -> Check:
    """The check that a number is at most ``allowed``; the cause is only looked for where it is not."""
    is_passed = bool(measured <= allowed)
    return Check(name, is_passed, float(measured), float(allowed), "" if is_passed else cause())


def at_least(name: str, measured: float, allowed: float, cause: Callable[[], str] = lambda: UNKNOWN) -> Check:
    """The check that a number is at least ``allowed``, as ``at_most``."""
    is_passed = bool(measured >= allowed)
    return Check(name, is_passed, float(measured), float(allowed), "" if is_passed else cause())


def collected(subject: str, checks: Iterable[Check], limits: str) -> Report:
    """The report of rows as they come; a call of the user's object that fails makes the last of them.

    Args:
        subject: what was verified.
        checks: the rows.
        limits: what a pass does not show, to be read after "A pass does not show".
    """
    rows: list[Check] = []
    try:
        for check in checks:
            rows.append(check)
    except CallError as error:
        rows.append(Check("call", False, math.nan, math.nan, str(error)))
    return Report(tuple(rows), subject, limits)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected| over all values; infinite where the found ones are not finite."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    error = float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))
    return error if math.isfinite(error) else math.inf


def likely_cause(
    error_of: Callable[[Value], float], exact: Value, candidates: dict[str, Value], tolerance: float
) -> str:
    """The words of the candidate that the finding agrees with, or that no known cause fits.

    A candidate agrees where its error is within ``tolerance`` AND under a quarter of the error of what is exact: a
    finding halfway between the two is not explained by either. Several that agree as well are all named.

    Args:
        error_of: the finding's error, seen from a candidate.
        exact: what should have been found.
        candidates: by their words, what would have been found.
        tolerance: the largest error of a candidate that agrees.
    """
    bound = min(tolerance, error_of(exact) / 4)
    errors = {words: error_of(value) for words, value in candidates.items()}
    best = min(errors.values(), default=math.inf)
    if best > bound:
        return UNKNOWN
    near = max(2 * best, bound / 10)
    return " or ".join(words for words, error in errors.items() if error <= min(near, bound))
