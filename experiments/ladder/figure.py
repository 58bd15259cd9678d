"""The picture of the ladder: how far every rule is from the tilted and from the labelled law, by dimension and w."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.ladder.climb import Found, Result
from experiments.ladder.rules import OWN, STOCHASTIC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATH, SOLVER, SIGMA = "linear", "heun", 1.0
"""The path of the picture and of the table, and the solver, where a rule is none itself."""


def shown(rows: Sequence[Found]) -> list[Found]:
    """The rows of the picture: by Heun's rule or the rule's own solver, on the straight path."""
    of_path = [row for row in rows if row.path == PATH]
    plain = [row for row in of_path if row.solver in (SOLVER, OWN)]
    names = {row.rule for row in plain}
    return plain + [row for row in of_path if row.rule not in names and row.solver in STOCHASTIC and row.sigma == SIGMA]


def picture(result: Result) -> Figure:
    """Two maps, a line for each rule, a column for each dimension and w; colours from the floor to 300 floors.

    What diverged is left white.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = shown(result.rows)
    names = list(dict.fromkeys(row.rule for row in rows))
    columns = list(dict.fromkeys((row.dimension, row.scale) for row in rows))
    floor = max(result.floors.values())
    figure = Figure(figsize=(4.5 + 0.42 * len(columns), 1.6 + 0.22 * len(names)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, measure) in zip(
        panels, (("to the tilted law", "to_tilted"), ("to the labelled law", "to_labelled")), strict=True
    ):
        values = np.full((len(names), len(columns)), np.nan)
        for row in rows:
            value = getattr(row, measure)
            place = names.index(row.rule), columns.index((row.dimension, row.scale))
            values[place] = max(value, floor) if np.isfinite(value) else np.nan
        image = axes.imshow(values, aspect="auto", cmap="viridis", norm=LogNorm(floor, 300 * floor))
        axes.set_title(title, fontsize="small")
        axes.set_xticks(range(len(columns)), [f"{scale:g}" for _, scale in columns], fontsize="x-small")
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
        dimensions = list(dict.fromkeys(dimension for dimension, _ in columns))
        for dimension in dimensions:
            own = [place for place, column in enumerate(columns) if column[0] == dimension]
            axes.text(np.mean(own), -0.8, f"D = {dimension}", ha="center", va="bottom", fontsize="x-small")
            if own[0]:
                axes.axvline(own[0] - 0.5, color="white", linewidth=2)
        axes.set_title(title, fontsize="small", pad=16)
    figure.supxlabel("guidance scale w", fontsize="small")
    figure.colorbar(image, ax=panels, label="energy distance", shrink=0.6)
    return figure
