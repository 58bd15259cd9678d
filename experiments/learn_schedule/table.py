"""Rows of the comparison of learned scales, and their table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_HEAD = """\
KL from the tilted law, in nats: mean over labels, with its standard error over seeds; the gap to the best row, of
equal seeds; the worst label; KL from the labelled law; energy distance to the tilted law in floors, of one seed.
"""


class Row(NamedTuple):
    """What was measured of a rule, of each seed and label, [seeds, K]; ``turned`` is how often the map turns over."""

    name: str
    tilted: np.ndarray
    labelled: np.ndarray
    turned: np.ndarray
    energy: float

    @property
    def mean(self) -> float:
        """The KL from the tilted law, over labels and seeds."""
        return float(np.mean(self.tilted))

    @property
    def by_seed(self) -> np.ndarray:
        """The KL from the tilted law of each seed, over labels, [seeds]."""
        return np.mean(self.tilted, axis=1)


def error_of(values: np.ndarray) -> float:
    """The standard error of the mean, by the spread of the values; NaN where one is infinite."""
    if not np.all(np.isfinite(values)):
        return float("nan")
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _with_error(values: np.ndarray) -> str:
    error = error_of(values)
    return f"{np.mean(values):.4f}" + (f" ± {error:.4f}" if np.isfinite(error) else "")


def table(rows: Sequence[Row]) -> str:
    """A line a rule, in Markdown.

    >>> print(table([Row("w = 1", np.array([[0.5], [0.7]]), np.zeros((2, 1)), np.array([[0.0], [0.5]]), 12.0)]))
    KL from the tilted law, in nats: mean over labels, with its standard error over seeds; the gap to the best row, of
    equal seeds; the worst label; KL from the labelled law; energy distance to the tilted law in floors, of one seed.
    <BLANKLINE>
    | rule | KL from tilted | gap | worst label | KL from labelled | energy, floors |
    |---|---|---|---|---|---|
    | w = 1 * | 0.6000 ± 0.1000 | 0.0000 ± 0.0000 | 0.6000 | 0.0000 | 12.0 |
    <BLANKLINE>
    * its map turns over at 25.0 % of the noise: densities are less than the true ones there, and so are its KLs.
    """
    best = min(rows, key=lambda row: row.mean).by_seed
    lines = [_HEAD, "| rule | KL from tilted | gap | worst label | KL from labelled | energy, floors |"]
    lines.append("|---|---|---|---|---|---|")
    notes = []
    for row in rows:
        share = float(np.mean(row.turned))
        name = f"{row.name} *" if share > 0 else row.name
        worst, labelled = np.max(np.mean(row.tilted, axis=0)), np.mean(row.labelled)
        divergence = f"{_with_error(row.by_seed)} | {_with_error(row.by_seed - best)}"
        numbers = f"{divergence} | {worst:.4f} | {labelled:.4f} | {row.energy:.1f}"
        lines.append(f"| {name} | {numbers} |")
        notes += [f"{share:.1%}".replace("%", " %")] if share > 0 else []
    if notes:
        words = "of the noise: densities are less than the true ones there, and so are its KLs."
        lines.append(f"\n* its map turns over at {', '.join(notes)} {words}")
    return "\n".join(lines)
