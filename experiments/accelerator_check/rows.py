"""Rows of OUT/rows.jsonl: one for each check, on the disk as soon as it is done."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from experiments.cli.main import UserError

NAME = "rows.jsonl"
Value = str | bool | int | float | None


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
        group: the part of the page that it belongs to.
        name: what was checked.
        values: what came out, by name.
        skipped: why it was not begun, if it was not.
        failed: the error that ended it, in one line, if one did.
        seconds: that it took.
        programs: how many it compiled or read from the folder of compiled programs.
        kept_programs: how many of them it read.
        compile_seconds: that both took.
    """

    group: str
    name: str
    values: dict[str, Value] = field(default_factory=dict)
    skipped: str | None = None
    failed: str | None = None
    seconds: float = 0.0
    programs: int = 0
    kept_programs: int = 0
    compile_seconds: float = 0.0


_ROW = TypeAdapter(Row)


def _as_json(value: Value) -> Value:
    """The value, or its name where JSON has no such number."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def append(file: Path, row: Row) -> None:
    """Appends a line, and waits until the disk has it."""
    content = asdict(row) | {"values": {name: _as_json(value) for name, value in row.values.items()}}
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(content) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read(file: Path) -> list[Row]:
    """The rows of a file; a last line that was cut off is left out.

    Raises:
        UserError: no such file, or a line that is no row.
    """
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    try:
        return [_ROW.validate_json(line) for line in lines[:-1]]
    except ValidationError:
        raise UserError(f"{file} does not hold the rows of a check") from None


def value_text(value: Value) -> str:
    """The value as it is shown: numbers to three digits, or whole from a thousand on."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def text_of(values: Mapping[str, Value]) -> str:
    """The values in one line.

    >>> text_of({"images_per_s": 51234.5, "is_same": True, "batch": 64, "error": 1.234e-6, "unknown": None})
    'images/s 51,234, is same yes, batch 64, error 1.23e-06'
    """
    told = {name.replace("_per_s", "/s").replace("_", " "): value for name, value in values.items()}
    return ", ".join(f"{name} {value_text(value)}" for name, value in told.items() if value is not None)


def outcome(row: Row) -> str:
    """What came out, in one line."""
    if row.skipped is not None:
        return f"skipped: {row.skipped}"
    return text_of(row.values) if row.failed is None else f"failed: {row.failed}"


def line(row: Row) -> str:
    """A row for the terminal."""
    if row.skipped is not None:
        return f"{row.name}: {outcome(row)}"
    compiling = f", compiling {row.compile_seconds:.1f} s" if row.programs else ""
    return f"{row.name}: {outcome(row)} ({row.seconds:.1f} s{compiling})"


def summary(rows: Sequence[Row]) -> str:
    """How many rows there are of each kind."""
    failed, skipped = (sum(getattr(row, kind) is not None for row in rows) for kind in ("failed", "skipped"))
    return f"{len(rows)} rows, {failed} failed, {skipped} skipped"
