"""A run's metrics.jsonl: a JSON line at every interval, none lost, none twice."""

import contextlib
import json
from collections.abc import Mapping
from io import FileIO
from math import isfinite
from pathlib import Path
from typing import Any

from experiments.run import folder as run_folder
from experiments.runtime import distributed

NAME = "metrics.jsonl"


def _as_json(row: Mapping[str, Any]) -> str:
    """One line; a number that is not finite is null, as JSON has none such."""
    plain = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in row.items()}
    return json.dumps(plain) + "\n"


class MetricsLog:
    """Appends JSON lines to a run's metrics.jsonl; lines that cannot be written now are kept for the next time.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / NAME
        self._waiting: list[str] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends a line. That the disk is full is no reason to lose a step: it is said once."""
        is_first_failure = not self._waiting
        self._waiting.append(_as_json(row))
        try:
            self.flush()
        except OSError as error:
            if is_first_failure:
                distributed.warn(f"warning: {self._file}: {error.strerror}; its lines are kept and tried again")

    def is_written(self) -> bool:
        """Whether no line waits any more, after another try."""
        with contextlib.suppress(OSError):
            self.flush()
        return not self._waiting

    def flush(self) -> None:
        """Writes the lines that wait, all or none of them.

        Raises:
            OSError: they cannot be written.
        """
        if not self._waiting:
            return
        with self._file.open("ab", buffering=0) as stream:
            start = stream.tell()
            try:
                _write_all(stream, "".join(self._waiting).encode())
            except OSError as error:
                stream.truncate(start)
                raise OSError(error.errno, error.strerror, str(self._file)) from None
        self._waiting = []


def _write_all(stream: FileIO, content: bytes) -> None:
    while content:
        content = content[stream.write(content) or 0 :]


def row_of(line: str) -> dict[str, Any] | None:
    """The row of a line, or None for one that was cut off or corrupt."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, in order; lines that were cut off or corrupt are left out."""
    file = run_dir / NAME
    rows = map(row_of, file.read_text(errors="replace").splitlines()) if file.exists() else ()
    return [row for row in rows if row is not None]


def rewind(run_dir: Path, step: int) -> None:
    """Removes the lines of metrics.jsonl that a resumed run will write again, and one that was cut off."""
    file = run_dir / NAME
    if file.exists():
        kept = [json.dumps(row) for row in read(run_dir) if row["step"] <= step]
        run_folder.write_atomically(file, "".join(f"{line}\n" for line in kept))
