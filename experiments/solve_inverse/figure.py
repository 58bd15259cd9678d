"""The picture of solved inverse problems: a row for each picture, and what was drawn beside what is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.figures.fonts import as_drawn, room_for
from experiments.solve_inverse.problems import Problems

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PICTURES, MOST_SAMPLES = 10, 3
_MISSING = np.array([0.35, 0.55, 0.85])
"""The colour of pixels of which nothing is known."""
_INCH = 0.62
"""Of a picture's side."""


def _colours(images: np.ndarray) -> np.ndarray:
    """Images [n, H, W, C] in [-1, 1], of any channels, as colours [n, H, W, 3] in [0, 1]."""
    shown = np.clip((images + 1) / 2, 0, 1)
    return shown if shown.shape[-1] == 3 else np.repeat(shown.mean(axis=-1, keepdims=True), 3, axis=-1)


def _values(problems: Problems) -> np.ndarray:
    """What was measured, as colours of the pictures' size [n, H, W, 3]; what is missing in a colour of its own."""
    height, width = problems.truth.shape[1:3]
    is_measured = problems.is_measured.any(axis=-1, keepdims=True)
    shown = np.where(is_measured, _colours(problems.value), _MISSING)
    rows, columns = height // shown.shape[1], width // shown.shape[2]
    return shown.repeat(rows, axis=1).repeat(columns, axis=2)


def _columns_of(samples: np.ndarray) -> dict[str, np.ndarray]:
    """What is shown of samples [n, S, H, W, C], as colours by name: some of them, their mean and their deviation."""
    shown = {f"sample {i + 1}": _colours(samples[:, i]) for i in range(min(MOST_SAMPLES, samples.shape[1]))}
    deviation = np.std(samples, axis=1, ddof=1)
    return shown | {"mean": _colours(np.mean(samples, axis=1)), "deviation": _colours(2 * deviation - 1)}


def figure(
    problems: Problems, samples: np.ndarray, scales: Sequence[float], texts: Sequence[str], title: str
) -> Figure:
    """Measurement and truth of the first pictures, and for each scale samples, their mean and standard deviation.

    Args:
        problems: n pictures.
        samples: [scales, n, S, H, W, C].
        scales: their guidance scales.
        texts: what each label is called.
        title: of the figure; deviations are shown from 0, black, to 1, white.
    """
    from matplotlib.figure import Figure

    columns = {"measured": _values(problems), "truth": _colours(problems.truth)}
    for scale, its in zip(scales, samples, strict=True):
        columns |= {f"w = {scale:g}\n{name}": shown for name, shown in _columns_of(its).items()}
    count = min(MOST_PICTURES, len(problems.label))
    tiles = np.pad(
        np.stack(list(columns.values()))[:, :count], ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1
    )
    num_columns, _, height, width, _ = tiles.shape
    picture = tiles.transpose(1, 2, 0, 3, 4).reshape(count * height, num_columns * width, 3)
    rows = [as_drawn(y, texts[y]) for y in problems.label[:count].tolist()]
    size = 0.4 + room_for(texts) + _INCH * num_columns, 0.9 + _INCH * count
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots()
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks((np.arange(num_columns) + 0.5) * width - 0.5, list(columns), rotation=35, ha="left")
    axes.set_yticks((np.arange(count) + 0.5) * height - 0.5, rows)
    axes.tick_params(length=0, labelsize="small")
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    drawn.suptitle(title, fontsize="medium")
    return drawn
