"""Latents that others wrote, as they are read: a block of rows at a time, float32, channels last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from cfgjax.data.latents import Views, require_floats
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

BLOCK = 256
"""Rows of a block, but for the last of a file."""
Axes = Literal["nhwc", "nchw"]
"""Whether channels are the last axis or the first one after the rows."""


class LatentSource(NamedTuple):
    """Latents of others.

    Attributes:
        count: how many pictures.
        label: [count] integers.
        blocks: what is stored of them, in order, float32 and channels last.
        remarks: what is to be told of them, a line each.
    """

    count: int
    label: np.ndarray
    blocks: Callable[[], Iterator[Views]]
    remarks: tuple[str, ...]


def require_count(where: str, count: int) -> None:
    """Raises DataError for no latents, and for too many."""
    if count == 0:
        raise DataError(f"{where} holds no latents")
    if count > MOST_EXAMPLES:
        raise DataError(f"{where} holds {count} latents, more than {MOST_EXAMPLES}")


def as_latents(where: str, stored: np.ndarray, axes: Axes, first_row: int | None = 0) -> np.ndarray:
    """Stored latents [n, H, W, C] or [n, C, H, W] as float32 with channels last.

    Args:
        where: file and array, for a message.
        stored: the numbers.
        axes: their order.
        first_row: the number of the first row, for a message; None where the file is the row.

    Raises:
        DataError: another type, or numbers that are not finite in float32, by their row.
    """
    if stored.dtype.name != "bfloat16":
        require_floats(where, stored.dtype)
    with np.errstate(over="ignore"):
        values = stored.astype(np.float32)
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        row = "" if first_row is None else f"row {first_row + int(np.flatnonzero(~is_finite)[0])} of "
        raise DataError(f"{row}{where} is not finite in float32")
    return values if axes == "nhwc" else np.moveaxis(values, 1, -1)


def require_deviations(where: str, values: np.ndarray) -> None:
    """Raises DataError for a standard deviation below 0."""
    if values.min() < 0:
        raise DataError(f"{where} has a negative deviation, {values.min():.3g}")


def labels_of(where: str, found: list[np.ndarray]) -> np.ndarray:
    """The labels of all parts, from 0.

    Raises:
        DataError: one that is below 0, or does not fit into 32 bits.
    """
    label = np.concatenate(found)
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= 2**31:
        raise DataError(f"{where} must be integers in 0..{2**31 - 1}, got {low}..{high}")
    return label.astype(np.int64)
