"""Which labels the examples of a split have, read without unpacking a picture."""

from __future__ import annotations

import numpy as np

from cfgjax.checks import require_kind
from cfgjax.data.split import Split

_OPENED = "a Split, as data.open_split gives it"


def label_counts(source: Split) -> np.ndarray:
    """The number of examples of each label of an opened split, [K] int64.

    Raises:
        TypeError: no split.
        DataError: a record that does not read.
    """
    require_kind("source", source, Split, _OPENED)
    counts = np.zeros(source.num_classes, np.int64)
    for labels in source.labels():
        counts += np.bincount(labels, minlength=source.num_classes)
    return counts


def present_labels(source: Split) -> np.ndarray:
    """The labels of which an opened split has an example, in order, int64; read until all K are found.

    A network never learns the others: their rows stay as they were drawn.

    Raises:
        TypeError: no split.
        DataError: a record that does not read.
    """
    require_kind("source", source, Split, _OPENED)
    is_present = np.zeros(source.num_classes, bool)
    for labels in source.labels():
        is_present[labels] = True
        if is_present.all():
            break
    return np.flatnonzero(is_present)
