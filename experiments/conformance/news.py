"""What a run says that was not known: against what is expected of each call, and against an older run."""

from collections.abc import Iterable, Iterator

from experiments.conformance.records import Finding, Row


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _said(finding: Finding) -> str:
    cause = f", {finding.cause}" if finding.cause else ""
    return f"{finding.name} ({_number(finding.measured)}, allowed {_number(finding.allowed)}{cause})"


def unexpected(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each row in which other checks fail than are known to."""
    for row in rows:
        if row.is_as_expected:
            continue
        new = [_said(finding) for finding in row.findings if not finding.is_passed and finding.name not in row.fails]
        gone = [name for name in row.fails if name not in row.failed]
        parts = [f"now fails {'; '.join(new)}"] * bool(new) + [f"no longer fails {'; '.join(gone)}"] * bool(gone)
        yield f"{row.library} {row.version}, {row.call}: {', and '.join(parts)}"


def _verdict(row: Row) -> str:
    return f"fails {'; '.join(row.failed)}" if row.failed else "passes"


def changes(rows: Iterable[Row], before: Iterable[Row]) -> Iterator[str]:
    """A line for each call, also in an older run, of which other checks fail than there."""
    known = {(row.library, row.call, row.kind): row for row in before}
    for row in rows:
        old = known.get((row.library, row.call, row.kind))
        if old is not None and set(old.failed) != set(row.failed):
            now = f"now {_verdict(row)} ({row.version})"
            yield f"{row.library}, {row.call}: was: {_verdict(old)} ({old.version}); {now}"
