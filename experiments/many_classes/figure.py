"""The picture of the study: what guidance does to a class, by the number of directions and by the exponent."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.many_classes.families import EXPONENTS, exponential
from experiments.many_classes.limit import limit
from experiments.many_classes.measures import PATH
from experiments.many_classes.table import Row

_MARKS = "osD^v<>P"


def _points(axes: Axes, rows: Sequence[Row], across: str, up: str) -> None:
    for index, family in enumerate(dict.fromkeys(row.size.family for row in rows)):
        own = [row for row in rows if row.size.family == family]
        axes.errorbar(
            [getattr(row.size, across) for row in own],
            [getattr(row.found, up) for row in own],
            yerr=[getattr(row.found, f"{up.removesuffix('_ratio')}_error") for row in own],
            fmt=_MARKS[index % len(_MARKS)] + ("-" if across == "rank" else ""),
            markersize=5,
            linewidth=1,
            color=f"C{index}",
            label=family,
        )


def draw(rows: Sequence[Row], scale: float, std: float) -> Figure:
    """Overlap (above) and variance (below) by the directions r, with limits of K = exp(a d), and by a = log K / r."""
    figure = Figure(figsize=(10.5, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    exponents = np.geomspace(3e-4, 1.5, 40)
    curve = [limit(PATH, scale, a, std) for a in exponents]
    colours = {family: f"C{index}" for index, family in enumerate(dict.fromkeys(row.size.family for row in rows))}
    names = {exponential(a): limit(PATH, scale, a, std) for a in EXPONENTS}
    levels = [(colour, names[family]) for family, colour in colours.items() if family in names]
    for (left, right), (up, words) in zip(
        panels,
        (("overlap", "overlap with the centre"), ("variance_ratio", "variance over the class's own")),
        strict=True,
    ):
        _points(left, rows, "rank", up)
        _points(right, rows, "exponent", up)
        for colour, level in levels:
            value = level.overlap if up == "overlap" else level.variance_ratio
            left.axhline(value, color=colour, linestyle=":", linewidth=1)
        values = [each.overlap if up == "overlap" else each.variance_ratio for each in curve]
        right.plot(exponents, values, color="black", linewidth=1, label="limit")
        for axes in (left, right):
            axes.axhline(1, color="gray", linewidth=0.8)
            axes.set(xscale="log")
        left.set(ylabel=words)
    panels[1, 0].set(xlabel="directions in which classes differ, r")
    panels[1, 1].set(xlabel="a = log K / r")
    panels[0, 0].set_title(f"w = {scale:g}; dotted: limits of K = exp(a d)", fontsize="medium")
    panels[0, 1].set_title("the same by a; line: the limit of many directions", fontsize="medium")
    panels[0, 1].legend(fontsize="small")
    return figure
