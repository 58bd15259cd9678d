"""OUT/page.md: what the rows of a check say, made from them alone."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from experiments.accelerator_check import rows
from experiments.accelerator_check.rows import Row
from experiments.run import folder as run_folder

NAME = "page.md"
MACHINE = "Machine"
"""The group of the row that describes the machine."""
_READING = """An error is ||found − expected|| / ||expected|| over all numbers together; the largest one is the largest
difference over the largest expected number. Float32 rounds at 6e-8. AdamW's first update is about the sign of the
gradient, so that where the gradient is nearly 0 rounding turns it over: its error is larger than the gradient's. Model
FLOPs count products of matrices and convolutions, two for a multiply-add: two evaluations of the network for each of
the guided field, three for a training example; their share is that of the measured product of matrices on each device.
Times are the least of three turns. Seconds are those of the whole check, compilation included."""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _machine(row: Row | None) -> list[str]:
    """The title and what the machine tells of itself."""
    if row is None or not row.values:
        why = "it was not asked" if row is None else rows.outcome(row)
        return ["# Accelerator check: unknown device", "", f"The machine: {why}.", ""]
    told = {name: value for name, value in row.values.items() if value is not None}
    lines = [f"- {name.replace('_', ' ')}: {rows.value_text(value)}" for name, value in told.items()]
    return [f"# Accelerator check: {told.get('device', 'unknown device')}", "", *lines, ""]


def _compiled(row: Row) -> str:
    kept = f", {row.kept_programs} kept" if row.kept_programs else ""
    return f"{row.programs} in {row.compile_seconds:.1f} s{kept}" if row.programs else ""


def _table(found: Sequence[Row]) -> list[str]:
    lines = ["| check | outcome | seconds | programs compiled |", "|---|---|---|---|"]
    for row in found:
        seconds = "" if row.skipped is not None else f"{row.seconds:.1f}"
        lines.append(f"| {_cell(row.name)} | {_cell(rows.outcome(row))} | {seconds} | {_compiled(row)} |")
    return lines


def page_of(found: Sequence[Row]) -> str:
    """The page in Markdown."""
    machine = next((row for row in found if row.group == MACHINE), None)
    others = [row for row in found if row.group != MACHINE]
    lines = [
        f"Made by `python -m experiments.accelerator_check` from `rows.jsonl` alone: {rows.summary(found)}.",
        "",
    ]
    lines = [*_machine(machine), *lines, _READING, ""]
    for group, some in itertools.groupby(others, key=lambda row: row.group):
        lines += [f"## {group}", "", *_table(list(some)), ""]
    return "\n".join(lines)


def write(folder: Path) -> Path:
    """Makes the page anew from the folder's rows alone.

    Raises:
        UserError: rows that do not read.
    """
    file = folder / NAME
    run_folder.write_atomically(file, page_of(rows.read(folder / rows.NAME)))
    return file
