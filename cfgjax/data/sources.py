"""Preparing a data set, and reading a prepared one into memory."""

import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow_datasets as tfds

from cfgjax.data.digits import Digits

_BUILDERS = {"digits": Digits}


class DataError(Exception):
    """A data set that is unknown or not prepared; the message says what to do."""


class Images(NamedTuple):
    """Labelled images in memory.

    ``image`` is [n, height, width, channels] float32 in [-1, 1], ``label`` [n] int32 in 0..num_labels-1.
    """

    image: np.ndarray
    label: np.ndarray
    num_labels: int


def _quiet() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether the folder holds the data set, ready to be read; nothing is downloaded to find out."""
    return any(Path(data_dir, name).glob("*/dataset_info.json"))


def prepare(name: str, data_dir: Path) -> None:
    """Writes the data set into the folder as array_record files, once; a prepared one is left alone.

    Raises:
        DataError: a name that this function cannot make.
    """
    _quiet()
    if name not in _BUILDERS:
        raise DataError(f"data set {name!r} cannot be prepared here; known: {', '.join(sorted(_BUILDERS))}")
    _BUILDERS[name](data_dir=str(data_dir), file_format="array_record").download_and_prepare()


def load(name: str, split: str, data_dir: Path) -> Images:
    """All images of a split of a prepared data set, scaled to [-1, 1].

    Args:
        name: the data set's name in tfds.
        split: a tfds split, for example "train" or "train[:80%]".
        data_dir: the folder it was prepared in.

    Raises:
        DataError: it is not prepared there, or has no such split; nothing is ever downloaded here.
    """
    _quiet()
    if not is_prepared(name, data_dir):
        raise DataError(
            f"data set {name!r} is not prepared in {data_dir}; run: "
            f"python -m experiments.prepare {name} --data-dir {data_dir}"
        )
    try:
        source = cast(Any, tfds.data_source(name, split=split, data_dir=str(data_dir)))
    except ValueError as error:
        raise DataError(f"data set {name!r} has no split {split!r}: {str(error).strip().splitlines()[0]}") from None
    if len(source) == 0:
        raise DataError(f"split {split!r} of data set {name!r} is empty")
    records = source.__getitems__(range(len(source)))
    pixels = np.stack([record["image"] for record in records])
    label = np.asarray([record["label"] for record in records], np.int32)
    num_labels = source.dataset_info.features["label"].num_classes
    return Images(pixels.astype(np.float32) / 127.5 - 1, label, num_labels)
