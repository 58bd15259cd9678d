"""What the report on images draws and lists: a grid of samples, and the curves of every number along w."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from experiments.evaluation import by_scale
from experiments.evaluation.guided_samples import Draws
from experiments.figures.fonts import room_for
from experiments.figures.image_grid import show_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TITLES = {"heun": "ODE (Heun)", "euler": "ODE (Euler)", "euler_maruyama": "SDE (Euler-Maruyama)"}
_ROOM_FOR_TITLE = 3.3
"""Inches of a panel."""
COLUMNS = (
    "guidance", "solver", "scale", "recognised", "frechet", "kernel", "precision", "recall", "density", "coverage",
    "copies", "nearest_training_distance",
)  # fmt: skip


def title_of(rule: tuple[str, str]) -> str:
    """What a guidance and a solver are called."""
    guidance, solver = rule
    return f"{guidance}, {TITLES.get(solver, solver)}"


def draw_samples(
    draws: Draws, scales: dict[str, tuple[float, ...]], labels: Sequence[str], file: Path | BinaryIO
) -> None:
    """Writes the picture: for each rule a row for each label and a column for each scale, one noise along a row."""
    from matplotlib.figure import Figure

    num_classes = next(iter(draws.values())).shape[1]
    width = sum(max(_ROOM_FOR_TITLE, 1.1 * len(samples)) for samples in draws.values())
    figure = Figure(figsize=(1.2 + len(draws) * room_for(labels) + width, 0.6 + num_classes), layout="constrained")
    widths = [len(samples) for samples in draws.values()]
    panels = np.ravel(figure.subplots(1, len(draws), width_ratios=widths))
    for axes, (rule, samples) in zip(panels, draws.items(), strict=True):
        show_grid(axes, samples[:, :, 0], scales[rule[0]], labels)
        axes.set_title(title_of(rule))
    figure.savefig(file, dpi=100)


def write_samples(draws: Draws, scales: dict[str, tuple[float, ...]], labels: Sequence[str], out_dir: Path) -> None:
    """Writes samples.png of ``draw_samples``, and beside it the first samples by scale."""
    draw_samples(draws, scales, labels, out_dir / "samples.png")
    titled = {title_of(rule): samples for rule, samples in draws.items()}
    by_scale.write(out_dir, titled, [scales[guidance] for guidance, _ in draws], labels)


def _plot(axes: Axes, rows: list[dict[str, Any]], across: str, up: str) -> None:
    """One curve for each rule, along the scales; the points are marked with w."""
    rules = dict.fromkeys((row["guidance"], row["solver"]) for row in rows)
    for rule in rules:
        own = [row for row in rows if (row["guidance"], row["solver"]) == rule and up in row and across in row]
        line = axes.plot([row[across] for row in own], [row[up] for row in own], "o-", ms=4, label=title_of(rule))
        if across == "scale":
            continue
        for row in own:
            axes.annotate(f"{row['scale']:g}", (row[across], row[up]), fontsize=7, color=line[0].get_color())
    axes.set(xlabel=across, ylabel=up)


def draw_curves(rows: list[dict[str, Any]], real: dict[str, Any], name: str, file: Path) -> None:
    """Writes the picture of the curves: each number against w, and fidelity against coverage along w."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.suptitle(f"{name}; distances over the feature classifier's features; dotted: real against real")
    panels = figure.subplots(2, 3)
    pairs = (
        ("scale", "recognised"), ("scale", "frechet"), ("scale", "coverage"),
        ("coverage", "frechet"), ("recall", "precision"), ("recognised", "coverage"),
    )  # fmt: skip
    for axes, (across, up) in zip(np.ravel(panels), pairs, strict=True):
        if not any(across in row and up in row for row in rows):
            axes.set_axis_off()
            axes.set_title(f"{up}: too few to measure", fontsize=9)
            continue
        _plot(axes, rows, across, up)
        if up in real:
            axes.axhline(real[up], color="gray", linestyle=":")
        if up == "frechet":
            axes.set_yscale("log")
        if across == "scale":
            axes.set_xlabel("w")
    drawn = [axes for axes in np.ravel(panels) if axes.lines]
    if drawn:
        drawn[0].legend(fontsize=7)
    figure.savefig(file, dpi=100)


def write_curves(rows: list[dict[str, Any]], file: Path) -> None:
    """Writes the rows as CSV, one line for each rule and scale."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
