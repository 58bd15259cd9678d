"""Images in memory with what is said of each: the record that all readers of pictures with conditions give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from cfgjax.contracts import checked, instance
from cfgjax.data.columns import Column
from cfgjax.data.listing import Remark, split_of
from cfgjax.data.picture_files import Kinds, require_size, with_channels
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import check_memory

WHOLE = "all"
"""The name of the one split of a source without splits."""


class ConditionedImages(NamedTuple):
    """Images with conditions in memory, n of them in one order.

    Attributes:
        pixels: [n, H, W, C] uint8.
        columns: what is said of them, by name: numbers [n] int32 or float32, n texts, or stored embeddings, [n, d] or
            [n, length, d] float32, with their mask, [n, length] booleans.
        class_names: the names of the classes of a column, in the order of its integers.
        file_name: the n files of the pictures, in the folder that was read; of a table the paths that it tells.
        row: [n] int64, the places of their rows among all that their source tells; None where these have another order
            than the pictures by their paths.
    """

    pixels: np.ndarray
    columns: dict[str, Column]
    class_names: dict[str, tuple[str, ...]]
    file_name: tuple[str, ...]
    row: np.ndarray | None

    @property
    def image(self) -> np.ndarray:
        """The images scaled to [-1, 1], [n, H, W, C] float32."""
        return self.pixels.astype(np.float32) / 127.5 - 1

    def take(self, indices: Sequence[int] | np.ndarray) -> ConditionedImages:
        """Some of the images, with what is said of them."""
        rows = np.asarray(indices, np.int64)
        columns = {name: _taken(column, rows) for name, column in self.columns.items()}
        names = tuple(self.file_name[row] for row in rows)
        row = None if self.row is None else self.row[rows]
        return self._replace(pixels=self.pixels[rows], columns=columns, file_name=names, row=row)


AnyConditionedImages = Annotated[ConditionedImages, instance(ConditionedImages, "ConditionedImages, as a reader gives")]
"""A ConditionedImages."""


def _taken(column: Column, rows: np.ndarray) -> Column:
    return column[rows] if isinstance(column, np.ndarray) else tuple(column[row] for row in rows)


@checked
def hold_out(images: AnyConditionedImages) -> dict[str, ConditionedImages]:
    """The splits ``train`` and ``test`` of a set without splits: every tenth image is held out, of 2 to 9 the last."""
    count = len(images.file_name)
    rows: dict[str, list[int]] = {}
    for index in range(count):
        rows.setdefault(split_of(index, count), []).append(index)
    return {split: images.take(its) for split, its in rows.items()}


def stack(what: str, count: int, decoded: Iterator[tuple[Path, np.ndarray]]) -> tuple[np.ndarray, list[Remark]]:
    """The pixels [count, H, W, C] of decoded pictures, all of one size, and what is to be told of their colours.

    One with colours makes all of them so; where all have three equal channels they keep these.

    Raises:
        DataError: pictures of several sizes, more than memory, or another number of them.
    """
    kinds, number, pixels = Kinds([], [], []), 0, np.empty((0, 0, 0, 3), np.uint8)
    for file, one in decoded:
        if number == 0:
            check_memory(what, count * one.shape[0] * one.shape[1] * 3)
            pixels = np.empty((count, *one.shape[:2], 3), np.uint8)
        require_size(file, one.shape[:2], pixels.shape[1:3])
        if number == count:
            raise DataError(f"{what} holds more than the {count} pictures that it declares")
        kinds.add(file, one)
        pixels[number] = with_channels(one, 3)
        number += 1
    if number < count or number == 0:
        raise DataError(f"{what} holds {number} pictures, not the {count} that it declares")
    return (pixels[..., :1].copy() if kinds.num_channels == 1 else pixels), kinds.remarks()
