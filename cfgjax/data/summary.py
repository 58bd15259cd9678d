"""What a prepared data set holds: how many pictures of which size, by split and label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, checked
from cfgjax.data.labels import label_counts
from cfgjax.data.sources import open_split, split_lengths


class Summary(NamedTuple):
    """What a prepared data set holds.

    Attributes:
        shape: height, width and channels of the pictures; None where they differ.
        counts: the pictures of each label, [K], by split.
        label_names: of the labels, in order; None where they have none.
    """

    shape: tuple[int | None, int | None, int]
    counts: dict[str, np.ndarray]
    label_names: tuple[str, ...] | None


@checked
def summary(name: str, data_dir: PathLike) -> Summary:
    """What a prepared data set holds; labels are read, and no picture is unpacked.

    Raises:
        DataError: as ``open_split``; a record that does not read.
    """
    lengths = split_lengths(name, data_dir)
    splits = {split: open_split(name, split, data_dir) for split, length in lengths.items() if length}
    counts = {split: label_counts(opened) for split, opened in splits.items()}
    first = next(iter(splits.values()))
    return Summary(first.shape, counts, first.label_names)
