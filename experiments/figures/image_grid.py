"""Grids of images: one picture of them all, a picture for each time, or a row for each label by guidance scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cfgjax import data
from experiments.figures.fonts import all_drawn, room_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PIXELS = 8
"""Screen pixels for each pixel of an image of 8 x 8, fewer for larger ones."""
_REACH = 3.0
"""Latents are shown between plus and minus so many standard deviations of theirs."""


def _columns(num_samples: int) -> int:
    return math.ceil(math.sqrt(num_samples))


def _times(height: int) -> int:
    return max(1, PIXELS // max(1, height // 8))


def num_pixels(shape: tuple[int, ...], num_samples: int) -> int | None:
    """The pixels of a grid of so many images; None where they have neither 1 nor 3 channels."""
    height, width, channels = shape
    if channels not in (1, 3):
        return None
    columns = _columns(num_samples)
    rows = math.ceil(num_samples / columns)
    return rows * (height + 1) * columns * (width + 1) * _times(height) ** 2


def grid(samples: np.ndarray) -> Image.Image:
    """One picture of images [n, height, width, channels] in [-1, 1], as near to a square as can be."""
    columns = _columns(len(samples))
    rows = math.ceil(len(samples) / columns)
    blank = np.full((rows * columns - len(samples), *samples.shape[1:]), -1.0)
    framed = np.pad(
        data.to_pixels(np.concatenate([samples, blank])), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=128
    )
    height, width, channels = framed.shape[1:]
    tiles = framed.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = image_of(tiles.reshape(rows * height, columns * width, channels))
    times = _times(samples.shape[1])
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def image_of(pixels: np.ndarray) -> Image.Image:
    """The picture of pixels [height, width, channels]."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def frames(seen: np.ndarray, labels: np.ndarray) -> Iterator[Image.Image]:
    """The grids of what was seen of n images at all times, [n, times, height, width, channels]."""
    return map(grid, np.moveaxis(seen, 1, 0))


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


def sample_grid(samples: np.ndarray, scales: tuple[float, ...], labels: Sequence[str], title: str) -> Figure:
    """The grid of images, or of the first channels of latents, [scales, K, 1, height, width, channels]."""
    from matplotlib.figure import Figure

    shown = samples[:, :, 0]
    if shown.shape[-1] not in (1, 3):
        shown = (shown[..., :3] if shown.shape[-1] > 3 else shown[..., :1]) / _REACH
    figure = Figure(
        figsize=(0.5 + room_for(labels) + 0.6 * len(scales), 0.7 + 0.6 * samples.shape[1]), layout="constrained"
    )
    axes = figure.subplots()
    show_grid(axes, shown, scales, labels)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize="small")
    axes.set_title(title, fontsize="medium")
    return figure
