"""A sheet of pictures, each above what it is reconstructed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cfgjax import data
from experiments.figures.image_grid import image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "held-out pictures (upper rows) and what the means of their latents are decoded to (lower)"
COLUMNS, MOST = 10, 30
"""Pictures in a row, and on a sheet at most."""
_GAP = 2
"""Pixels between one pair of rows and the next."""


def sheet(images: np.ndarray, reconstructed: np.ndarray) -> np.ndarray:
    """One picture [height, width, channels], in pixels, of two rows for every COLUMNS of n images, n <= MOST.

    Args:
        images: [n, H, W, C] in [-1, 1].
        reconstructed: like ``images``.
    """
    pairs = data.to_pixels(np.stack([images, np.clip(reconstructed, -1, 1)], axis=1))
    blank = np.full((-len(pairs) % COLUMNS, *pairs.shape[1:]), 255, np.uint8)
    framed = np.pad(np.concatenate([pairs, blank]), ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0)), constant_values=255)
    rows = framed.reshape(-1, COLUMNS, *framed.shape[1:]).transpose(0, 2, 3, 1, 4, 5)
    count, _, height, columns, width, channels = rows.shape
    tall = rows.reshape(count, 2 * height, columns * width, channels)
    apart = np.pad(tall, ((0, 0), (0, _GAP), (0, 0), (0, 0)), constant_values=255)
    return apart.reshape(-1, columns * width, channels)


def figure(images: np.ndarray, reconstructed: np.ndarray, title: str) -> Figure:
    """The sheet as a figure with a title; arguments as ``sheet``."""
    from matplotlib.figure import Figure

    picture = np.asarray(image_of(sheet(images, reconstructed)))
    drawn = Figure(figsize=(7, 0.5 + 7 * picture.shape[0] / picture.shape[1]), layout="constrained")
    axes = drawn.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize="medium")
    return drawn
