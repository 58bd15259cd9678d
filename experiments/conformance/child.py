"""One library's records in this process, a line of JSON for each row as it comes.

    python -m experiments.conformance.child NAME FILE

Rows go to the file alone, whatever the library prints.
"""

import importlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from experiments.conformance.records import Record, Row, findings_of, to_json
from experiments.conformance.registry import LIBRARIES


def _framework(base: str) -> str:
    names = ("torch", "jax") if base == "torch" else ("jax",)
    return ", ".join(f"{name} {version(name)}" for name in names)


def _machine() -> str:
    return f"{platform.system()} on {os.cpu_count()} cores of an {platform.machine()} CPU"


def row_of(name: str, record: Record) -> Row:
    """The row of a record of a library."""
    start, library = time.perf_counter(), LIBRARIES[name]
    findings = findings_of(record)
    seconds = round(time.perf_counter() - start, 2)
    made = platform.python_version(), _framework(library.base), _machine(), datetime.now(UTC).date().isoformat()
    known = record.call, record.kind, findings, record.fails, record.remark
    return Row(name, version(library.package), *known, seconds, *made)


def write(name: str, records: Iterable[Record], file: Path) -> None:
    """Appends a line for each record."""
    with file.open("a", encoding="utf-8") as lines:
        for record in records:
            lines.write(to_json(row_of(name, record)) + "\n")
            lines.flush()


def main(name: str, file: str) -> None:
    """The rows of all records of a library."""
    warnings.simplefilter("ignore")
    if LIBRARIES[name].base == "torch":
        importlib.import_module("torch").set_num_threads(1)
    adapter = importlib.import_module(f"experiments.conformance.libraries.{name}")
    write(name, adapter.RECORDS, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
