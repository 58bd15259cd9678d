"""Grids of images: a row for each label, a column for each scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cfgjax import data
from experiments.figures.fonts import all_drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def grid_of(samples: np.ndarray) -> np.ndarray:
    """One picture of images [scales, K, height, width, channels]: a row for each label, a column for each scale."""
    framed = np.pad(samples, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1.0)
    num_scales, num_classes, height, width, channels = framed.shape
    return framed.transpose(1, 2, 0, 3, 4).reshape(num_classes * height, num_scales * width, channels)


def show_grid(axes: Axes, samples: np.ndarray, scales: tuple[float, ...], labels: Sequence[str]) -> None:
    """Shows images [scales, K, height, width, channels] in [-1, 1]: a row for each label, a column for each scale."""
    num_scales, num_classes = samples.shape[:2]
    grid = data.to_pixels(grid_of(np.clip(samples, -1, 1)))
    axes.imshow(grid if grid.shape[-1] == 3 else grid.mean(axis=-1), cmap="gray", interpolation="nearest")
    height, width = grid.shape[0] / num_classes, grid.shape[1] / num_scales
    axes.set_xticks((np.arange(num_scales) + 0.5) * width - 0.5, [f"w = {scale:g}" for scale in scales])
    axes.set_yticks((np.arange(num_classes) + 0.5) * height - 0.5, all_drawn(labels))
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
