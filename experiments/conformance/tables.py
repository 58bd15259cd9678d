"""Cells of the page's tables: a tick for what is passed, else the number that was measured."""

import math
from collections.abc import Callable, Iterable

from experiments.conformance import identities, names
from experiments.conformance.records import Finding, Kind, Row

_TICK = "✓"
_GUIDER = {
    "w = 0": names.NULL,
    "w = 1": names.LABELLED,
    "other w": names.OTHER,
    "slope at 1": identities.CONTINUOUS_AT_ONE,
    "slope at 0": identities.CONTINUOUS_AT_ZERO,
    "other space": identities.ANY_SPACE,
    "batch": identities.ALONE,
    "again": identities.AGAIN,
    "inputs": identities.IN_PLACE,
}
_SOLVER = {"end": names.END, "limit": names.LIMIT, "order": names.ORDER, "another key": names.KEY}


def number(value: float | None) -> str:
    """Two digits, or how large it is where it is beyond all bounds."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "NaN or inf"
    if abs(value) >= 1e4:
        return "over 10,000"
    if abs(value) >= 100:
        return f"{float(f'{value:.2g}'):,.0f}"
    return f"{value:.2g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "-"
    return _TICK if finding.is_passed else number(finding.measured)


def call_cell(row: Row) -> str:
    """The call, as code."""
    return f"`{row.call}`".replace("|", "\\|")


def raised(row: Row) -> str:
    """What a call that raised says, or nothing."""
    causes = [finding.cause for finding in row.findings if finding.name.endswith(names.CALL) and not finding.is_passed]
    return causes[0].replace("|", "\\|") if causes else ""


def _with_raised(row: Row, cells: list[str]) -> list[str]:
    """The cells of a row; of a call that gave nothing the first one says so."""
    why = raised(row)
    if why and not any(finding.is_passed for finding in row.findings):
        cells[0] = "NaN" if "NaN" in why else "raises"
    return [call_cell(row), *cells]


def table(columns: Iterable[str], lines: Iterable[list[str]]) -> str:
    """A table of Markdown."""
    columns = list(columns)
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _guider(row: Row) -> list[str]:
    found = {finding.name: finding for finding in row.findings}
    return _with_raised(row, [_cell(found.get(name)) for name in _GUIDER.values()])


def _solver(row: Row) -> list[str]:
    found = {finding.name: finding for finding in row.findings}
    cells = {title: _cell(found.get(name)) for title, name in _SOLVER.items()}
    order = found.get(names.ORDER)
    if order is not None and order.measured is not None and order.allowed is not None:
        measured = "at rounding" if math.isinf(order.measured) else f"{order.measured:.2f}"
        cells["order"] = f"{measured} of {order.allowed + 0.35:g}".replace("-0.00", "0.00")
    return _with_raised(row, list(cells.values()))


def _law(row: Row) -> list[str]:
    def steps_of(finding: Finding) -> str:
        steps = finding.name.removesuffix(names.LAW).rstrip(", ")
        return f"{steps}: " if steps else ""

    moments = [finding for finding in row.findings if finding.name.endswith(names.LAW)]
    cells = [f"{steps_of(finding)}{number(finding.measured)}{f' {_TICK}' * finding.is_passed}" for finding in moments]
    bad = [finding.name for finding in row.findings if not finding.is_passed and finding not in moments]
    others = "; ".join(f"{name}: fails" for name in bad) if moments else "-"
    return _with_raised(row, ["; ".join(cells) or "-", others or _TICK])


def _plain(row: Row) -> list[str]:
    bad = [
        f"{finding.name}: {number(finding.measured)} (allowed {number(finding.allowed)})"
        for finding in row.findings
        if not finding.is_passed
    ]
    passed = sum(finding.is_passed for finding in row.findings)
    return [call_cell(row), f"{passed} of {len(row.findings)}", "; ".join(bad) or _TICK]


def figure(row: Row) -> list[str]:
    """The cells of a row of figures, before and now."""

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    def pair(finding: Finding) -> str:
        differs = "" if finding.is_passed else ", **differs**"
        return f"{finding.name}: {shown(finding.allowed)} → {shown(finding.measured)}{differs}"

    return [call_cell(row), "; ".join(map(pair, row.findings)).replace("**FLOW", "\\*\\*FLOW")]


TABLES: dict[Kind, tuple[str, tuple[str, ...], Callable[[Row], list[str]]]] = {
    "guider": ("guidance", ("call", *_GUIDER), _guider),
    "solver": ("ODE", ("call", *_SOLVER), _solver),
    "law": ("law of samples", ("call", "moments", "draws independent, new with each seed"), _law),
    "conversion": ("conversion", ("call", "checks passed", "else"), _plain),
    "loss": ("loss or SDE", ("call", "checks passed", "else"), _plain),
}
