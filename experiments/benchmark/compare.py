"""Two benchmarks of the same workloads: the ratios of their times, and what became slower."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from experiments.benchmark.rows import Row
from experiments.cli.main import UserError

ROWS = TypeAdapter(list[Row])
SLOWER = 1.1
"""A ratio of times from which a row is flagged; below it is a tie on a machine like those in the tables."""


def read(file: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        UserError: no such file, or not rows of a benchmark.
    """
    try:
        return ROWS.validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (ValidationError, json.JSONDecodeError):
        raise UserError(f"{file} does not hold the rows of a benchmark") from None


def lines(earlier: Sequence[Row], later: Sequence[Row]) -> list[str]:
    """One line for each implementation in both: the time for an example, later over earlier, and SLOWER where it is.

    Times are first divided by the time of a matrix product in the same run, so that a slower machine is not a slower
    program; the ratio without that stands beside it.
    """
    before = {_identity(row): row for row in earlier}
    found = []
    for row in later:
        old = before.get(_identity(row))
        if old is None or not (old.examples_per_s and row.examples_per_s):
            continue
        plain = old.examples_per_s / row.examples_per_s
        fair = plain * (row.gemm_peak_measured or 1.0) / (old.gemm_peak_measured or 1.0)
        flag = "  SLOWER" if fair >= SLOWER and plain >= SLOWER else ""
        found.append(f"{_name(row):60} {fair:6.3f} ({plain:.3f} in seconds){flag}")
    return found or ["no row in common"]


def _identity(row: Row) -> tuple:
    return row.work, row.method, row.batch, row.evaluations, row.num_scales, row.implementation


def _name(row: Row) -> str:
    sizes = f"batch {row.batch}, {row.evaluations or 0:g} evaluations"
    sizes += f", {row.num_scales} scales" if row.num_scales else ""
    return f"{row.work} {row.method}, {sizes}: {row.implementation}"
