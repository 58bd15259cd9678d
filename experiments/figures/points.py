"""Points of the plane as pictures: coloured by label, in one plot, in frames, or in a row of panels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SIDE = 600
"""Pixels of a side of a plot."""


def num_pixels(num_samples: int) -> int:
    """The pixels of a plot, of any number of points."""
    return SIDE**2


def plots(frames: Iterable[np.ndarray], labels: np.ndarray, limit: float | None = None) -> Iterator[Image.Image]:
    """A scatter plot of points [n, 2] for each frame, coloured by label, all to the same ``limit`` if there is one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=SIDE / 5, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for points in frames:
        axes.clear()
        axes.scatter(*points.T, s=8, c=labels, cmap="tab10", linewidths=0)
        axes.set_aspect("equal")
        if limit is not None:
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
        canvas.draw()
        figure.set_layout_engine("none")  # all frames lie as the first
        yield Image.fromarray(np.array(canvas.buffer_rgba())).convert("RGB")


def picture(samples: np.ndarray, labels: np.ndarray) -> Image.Image:
    """One plot of points [n, 2]."""
    return next(plots([samples], labels))


def frames(seen: np.ndarray, labels: np.ndarray) -> Iterator[Image.Image]:
    """The plots of what was seen of n points at all times, [n, times, 2]."""
    return plots(np.moveaxis(seen, 1, 0), labels, limit=1.05 * float(np.abs(seen).max()))


def sample_grid(
    limit: float, samples: np.ndarray, scales: tuple[float, ...], labels: Sequence[str], title: str
) -> Figure:
    """The panels of points [scales, K, n, 2]: a panel for each scale, a colour for each of the labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.3 + 1.5 * len(scales), 2.1), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, scale, by_label in zip(np.ravel(figure.subplots(1, len(scales))), scales, samples, strict=True):
        for label, points in enumerate(by_label):
            axes.scatter(*points.T, s=2, color=f"C{label % 10}", linewidths=0)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"w = {scale:g}", fontsize="medium")
    return figure
