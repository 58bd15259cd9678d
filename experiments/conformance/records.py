"""What is asked of a callable, and the row that came out: data, which imports no library."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cfgjax.verify import Check
from cfgjax.verify.call_user import format_error

Kind = Literal["guider", "solver", "law", "conversion", "loss", "figure", "run"]


@dataclass(frozen=True)
class Record:
    """One call of a library, what is asked of it, and which checks are known to fail.

    ``fails`` holds names of checks; what else fails is news. The remark is one sentence that says what is seen, or why
    it is meant so.
    """

    call: str
    kind: Kind
    checks: Callable[[], Iterable[Check]]
    fails: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """One check of a row; a call that raised has no number."""

    name: str
    is_passed: bool
    measured: float | None
    allowed: float | None
    cause: str = ""


@dataclass(frozen=True)
class Row:
    """What one record gave, where, and when."""

    library: str
    version: str
    call: str
    kind: Kind
    findings: tuple[Finding, ...]
    fails: tuple[str, ...]
    remark: str
    seconds: float
    python: str
    framework: str
    machine: str
    date: str

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(finding.name for finding in self.findings if not finding.is_passed)

    @property
    def is_as_expected(self) -> bool:
        """Whether just those checks failed that are known to."""
        return set(self.failed) == set(self.fails)


def finding_of(check: Check) -> Finding:
    """A check as data, in which a number that is none is left out."""
    measured, allowed = (None if math.isnan(each) else float(each) for each in (check.measured, check.allowed))
    return Finding(check.name, check.is_passed, measured, allowed, check.cause)


def findings_of(record: Record) -> tuple[Finding, ...]:
    """The findings of a record, as they come; a call that raises makes the last of them."""
    found: list[Finding] = []
    try:
        for check in record.checks():
            found.append(finding_of(check))
    except Exception as error:
        found.append(finding_of(Check("call", False, math.nan, math.nan, format_error(error))))
    return tuple(found)


def prefixed(prefix: str, checks: Iterable[Check]) -> Iterator[Check]:
    """The checks, their names after a prefix."""
    for check in checks:
        yield replace(check, name=prefix + check.name)


def to_json(row: Row) -> str:
    """The row in one line; infinity is written as JavaScript has it."""
    return json.dumps(asdict(row))


def _of_json(line: str) -> Row:
    values: dict[str, Any] = json.loads(line)
    findings = tuple(Finding(**each) for each in values.pop("findings"))
    return Row(findings=findings, fails=tuple(values.pop("fails")), **values)


def read_rows(file: Path) -> tuple[list[Row], int]:
    """The rows of a file of lines, and the number of lines that are none, as a child that was killed leaves one."""
    rows, bad = [], 0
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(_of_json(line))
        except (ValueError, TypeError, KeyError, AttributeError):
            bad += 1
    return rows, bad
