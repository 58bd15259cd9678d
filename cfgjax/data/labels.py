"""Which labels the examples of a split have, read without unpacking a picture."""

from __future__ import annotations

import numpy as np

from cfgjax.contracts import checked
from cfgjax.data.split import OpenedSplit


@checked
def label_counts(source: OpenedSplit) -> np.ndarray:
    """The number of examples of each label of an opened split, [K] int64.

    Raises:
        DataError: a record that does not read.
    """
    counts = np.zeros(source.num_classes, np.int64)
    for labels in source.labels():
        counts += np.bincount(labels, minlength=source.num_classes)
    return counts


@checked
def present_labels(source: OpenedSplit) -> np.ndarray:
    """The labels of which an opened split has an example, in order, int64; read until all K are found.

    A network never learns the others: their rows stay as they were drawn.

    Raises:
        DataError: a record that does not read.
    """
    is_present = np.zeros(source.num_classes, bool)
    for labels in source.labels():
        is_present[labels] = True
        if is_present.all():
            break
    return np.flatnonzero(is_present)
