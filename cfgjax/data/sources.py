"""Preparing a data set, and reading a prepared one."""

import importlib.util
import json
import logging
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import tensorflow_datasets as tfds

from cfgjax.data.digits import Digits
from cfgjax.data.errors import DataError
from cfgjax.data.folder import folder_builder
from cfgjax.data.idx import idx_builder, is_of_family


class Images(NamedTuple):
    """Labelled images in memory: ``pixels`` [n, H, W, C] uint8, ``label`` [n] int32 in 0..num_labels-1."""

    pixels: np.ndarray
    label: np.ndarray
    num_labels: int

    @property
    def image(self) -> np.ndarray:
        """The images scaled to [-1, 1], [n, H, W, C] float32."""
        return self.pixels.astype(np.float32) / 127.5 - 1


def _quiet() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)


def _info_file(name: str, data_dir: Path) -> Path | None:
    files = Path(data_dir, name).glob("*/dataset_info.json")
    return max((file for file in files if re.fullmatch(r"\d+\.\d+\.\d+", file.parent.name)), default=None)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether the folder holds the data set, ready to be read; nothing is downloaded to find out."""
    return _info_file(name, data_dir) is not None


def _registered(name: str) -> Any:
    """The class of a data set that tfds knows.

    Raises:
        DataError: it knows none of this name, or none of this configuration.
    """
    family, _, config = name.partition("/")
    try:
        found = cast(Any, tfds.builder_cls(family))
    except (tfds.core.registered.DatasetNotFoundError, ValueError):
        raise DataError(
            f"tensorflow-datasets knows no data set {name!r}; for a folder of pictures of your own give --source"
        ) from None
    configs = [settings.name for settings in found.BUILDER_CONFIGS]
    if (config or configs) and config not in configs:
        known = ", ".join(f"{family}/{one}" for one in configs) or family
        raise DataError(f"data set {name!r} has no such configuration; known: {known}")
    return found


def _urls(name: str) -> str:
    try:
        urls = sorted(_registered(name).url_infos)
    except DataError:
        return ""
    shown = " ".join(urls[:4]) + (" ..." if len(urls) > 4 else "")
    return f" (it is made of {shown})" if urls else ""


def _local_builder(
    name: str, data_dir: Path, source: Path | None, image_size: int | None, on_corrupt: Literal["refuse", "skip"]
) -> tuple[Any, list[Path]]:
    config = name.partition("/")[2]
    if name == "digits" and source is None:
        return Digits(data_dir=str(data_dir), file_format="array_record"), []
    if source is not None and is_of_family(name):
        _registered(name)
        return idx_builder(name, source, data_dir), []
    if source is not None:
        return folder_builder(name, source, data_dir, image_size, on_corrupt)
    known = _registered(name)
    if importlib.util.find_spec("tensorflow") is None:
        hint = "give --source, the folder of its idx files, or install" if is_of_family(name) else "install"
        raise DataError(
            f"data set {name!r} is unpacked by TensorFlow, which is not installed: {hint} it once "
            f"(pip install tensorflow); reading needs none{_urls(name)}"
        )
    return known(data_dir=str(data_dir), file_format="array_record", **({"config": config} if config else {})), []


def prepare(
    name: str,
    data_dir: Path,
    source: Path | None = None,
    image_size: int | None = None,
    on_corrupt: Literal["refuse", "skip"] = "refuse",
) -> list[Path]:
    """Writes the data set into the folder as array_record files, once; a prepared one is left alone.

    Args:
        name: digits; a set of the MNIST family with the folder of its idx files as ``source``; any name of your own
            with a folder of class folders as ``source``; or a data set of tfds, which downloads it.
        data_dir: where to write.
        source: a local folder to read.
        image_size: for a folder of pictures, the side that all are cut and resized to.
        on_corrupt: for a folder of pictures, what to do with one that does not read.

    Returns:
        The pictures that were skipped.

    Raises:
        DataError: a name that is unknown, files that are missing or wrong, or a download that fails.
    """
    _quiet()
    if is_prepared(name, data_dir):
        return []
    builder, skipped = _local_builder(name, data_dir, source, image_size, on_corrupt)
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"data set {name!r} cannot be prepared in {data_dir}: {_first_line(error)}") from error
    return skipped


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def open_split(name: str, split: str, data_dir: Path) -> Any:
    """A split of a prepared data set, by index: ``source[i]`` is a dict of image and label; nothing is decoded yet.

    Raises:
        DataError: it is not prepared there, not as array_record, not of images and labels, or has no such split or
            an empty one. Nothing is ever downloaded here.
    """
    _quiet()
    file = _info_file(name, data_dir)
    if file is None:
        files = " --source FOLDER_OF_ITS_IDX_FILES" if is_of_family(name) else ""
        raise DataError(
            f"data set {name!r} is not prepared in {data_dir}; run: "
            f"python -m experiments.prepare {name}{files} --data-dir {data_dir}{_urls(name)}"
        )
    written_as = json.loads(file.read_text()).get("fileFormat", "tfrecord")
    if written_as != "array_record":
        raise DataError(f"data set {name!r} in {data_dir} is written as {written_as}; prepare it as array_record")
    try:
        source = cast(Any, tfds.builder_from_directory(str(file.parent)).as_data_source(split=split))
    except ValueError as error:
        raise DataError(f"data set {name!r} has no split {split!r}: {_first_line(error)}") from None
    if not {"image", "label"} <= set(source.dataset_info.features):
        raise DataError(f"data set {name!r} has no image and label, only {', '.join(source.dataset_info.features)}")
    if len(source) == 0:
        raise DataError(f"split {split!r} of data set {name!r} is empty")
    return source


def num_labels_of(source: Any) -> int:
    """K of an opened split."""
    return source.dataset_info.features["label"].num_classes


def load(name: str, split: str, data_dir: Path) -> Images:
    """All images of a split of a prepared data set, decoded into memory.

    Args:
        name: the data set's name in tfds.
        split: a tfds split, for example "train" or "train[:80%]".
        data_dir: the folder it was prepared in.

    Raises:
        DataError: as ``open_split``, or images of several sizes.
    """
    source = open_split(name, split, data_dir)
    records = source.__getitems__(range(len(source)))
    shapes = {record["image"].shape for record in records}
    if len(shapes) > 1:
        raise DataError(f"data set {name!r} has images of several sizes, for example {sorted(shapes)[:2]}")
    pixels = np.stack([record["image"] for record in records])
    label = np.asarray([record["label"] for record in records], np.int32)
    return Images(pixels, label, num_labels_of(source))
