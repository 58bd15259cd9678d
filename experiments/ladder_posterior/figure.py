"""The picture of the ladder: errors against cost."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from experiments.ladder_posterior.rows import FLOOR, Row, floors_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = "osD^v<>Pp*hX8d"


def picture(rows: Sequence[Row]) -> "Figure":
    """A panel for each noise (columns) and each number of measured numbers with each w (rows).

    Across is the cost of a sample, its evaluations and twice its products; up is the energy distance in floors, 0.5 at
    least; what diverges lies on the upper edge.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    floors = floors_of(rows)
    noises = list(dict.fromkeys(row.noise for row in rows))
    lines = list(dict.fromkeys((row.rank, row.scale) for row in rows))
    names = [name for name in dict.fromkeys(row.method for row in rows) if name != FLOOR]
    figure = Figure(figsize=(1.8 + 3.2 * len(noises), 0.6 + 2.4 * len(lines)), layout="constrained")
    panels = figure.subplots(len(lines), len(noises), squeeze=False, sharex=True, sharey=True)
    ratios = [row.energy / floors[row.cell].energy for row in rows if row.method != FLOOR]
    top = 2 * max([ratio for ratio in ratios if np.isfinite(ratio)], default=1.0)
    for (rank, scale), by_noise in zip(lines, panels, strict=True):
        for noise, axes in zip(noises, by_noise, strict=True):
            floor = floors[rank, noise, scale].energy
            for index, (name, mark) in enumerate(zip(names, cycle(_MARKS), strict=False)):
                own = [row for row in rows if row.method == name and row.cell == (rank, noise, scale)]
                cost = [row.evaluations + 2 * row.products for row in own]
                error = [np.clip(row.energy / floor, 0.5, top) for row in own]
                axes.plot(cost, error, mark, linestyle="-", markersize=5, color=f"C{index % 10}", label=name)
            axes.axhline(1, color="0.6", linewidth=0.8)
            axes.set(xscale="log", yscale="log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{rank} measured, w = {scale:g}, noise {noise:g}", fontsize="small")
    figure.supxlabel("evaluations and 2 x products of a sample", fontsize="small")
    figure.supylabel("energy distance, in floors", fontsize="small")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize="x-small")
    return figure
