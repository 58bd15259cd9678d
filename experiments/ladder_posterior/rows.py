"""Rows of the ladder, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLOOR = "floor"
_HEAD = """\
Energy distance to the true posterior (bias of the mean in standard deviations, of the covariance relative, and of
the modes' weights as a total variation); the floor is the largest of exact draws."""


@dataclass(frozen=True)
class Row:
    """A method's errors, averaged over measurements, and what one sample costs it; infinite where it diverges.

    ``rank`` is how many numbers were measured. The method "floor" is the largest error of sets of exact draws.
    """

    method: str
    rank: int
    noise: float
    scale: float
    num_steps: int
    evaluations: float
    products: float
    energy: float
    mean: float
    covariance: float
    modes: float

    @property
    def cell(self) -> tuple[int, float, float]:
        """Which posterior it is of."""
        return self.rank, self.noise, self.scale

    def finite(self) -> dict[str, float | None]:
        """The errors, None where the method diverges."""
        found = {name: getattr(self, name) for name in ("energy", "mean", "covariance", "modes")}
        return {name: value if np.isfinite(value) else None for name, value in found.items()}


def floors_of(rows: Sequence[Row]) -> dict[tuple[int, float, float], Row]:
    """The floor of each posterior."""
    return {row.cell: row for row in rows if row.method == FLOOR}


def _entry(row: Row) -> str:
    if not np.isfinite(row.energy):
        return "diverges"
    return f"{row.energy:.4f} ({row.mean:.2f}, {row.covariance:.2f}, {row.modes:.2f})"


def table(rows: Sequence[Row]) -> str:
    """One table for each number of measured numbers and scale w: a line a method, a column a noise.

    >>> print(table([Row("floor", 1, 0.2, 1.0, 0, 0.0, 0.0, 0.01, 0.05, 0.1, 0.02)]))
    Energy distance to the true posterior (bias of the mean in standard deviations, of the covariance relative, and of
    the modes' weights as a total variation); the floor is the largest of exact draws.
    <BLANKLINE>
    numbers measured: 1, w = 1
    <BLANKLINE>
    | method | steps | evaluations | products | noise 0.2 |
    |---|---|---|---|---|
    | floor |  | 0 | 0 | 0.0100 (0.05, 0.10, 0.02) |
    <BLANKLINE>
    """
    lines = [_HEAD]
    for rank, scale in dict.fromkeys((row.rank, row.scale) for row in rows):
        own = [row for row in rows if (row.rank, row.scale) == (rank, scale)]
        noises = list(dict.fromkeys(row.noise for row in own))
        lines += ["", f"numbers measured: {rank}, w = {scale:g}", ""]
        lines.append("| method | steps | evaluations | products | " + " | ".join(f"noise {n:g}" for n in noises) + " |")
        lines.append("|---" * (4 + len(noises)) + "|")
        for name, steps in dict.fromkeys((row.method, row.num_steps) for row in own):
            found = [row for row in own if (row.method, row.num_steps) == (name, steps)]
            head = f"| {name} | {steps or ''} | {found[0].evaluations:g} | {found[0].products:g} | "
            lines.append(head + " | ".join(map(_entry, found)) + " |")
    return "\n".join(lines) + "\n"
