"""Preparing a data set, and reading a prepared one."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from array_record.python import array_record_module

from cfgjax.contracts import PathLike, PositiveInt, checked, instance
from cfgjax.data.idx import idx_builder, is_mnist_like
from cfgjax.data.image_folder import folder_builder
from cfgjax.data.known import registered, urls_of
from cfgjax.data.listing import Remark
from cfgjax.data.split import OpenedSplit, Split
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import check_memory, require_file, require_inside
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES, Declared, read_declared, require_name

_AT_ONCE = 1024
"""Records that are unpacked together."""
_SPLIT = re.compile(r"[A-Za-z0-9_%+:.\[\] -]{1,200}")


class Images(NamedTuple):
    """Labelled images in memory: ``pixels`` [n, H, W, C] uint8, ``label`` [n] int32 in 0..num_classes-1."""

    pixels: np.ndarray
    label: np.ndarray
    num_classes: int

    @property
    def image(self) -> np.ndarray:
        """The images scaled to [-1, 1], [n, H, W, C] float32."""
        return self.pixels.astype(np.float32) / 127.5 - 1


def _quiet() -> None:
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()


def _version(folder: Path) -> list[int]:
    return [int(part) for part in folder.name.split(".")]


def _newest(name: str, data_dir: Path) -> Path | None:
    """The folder of the data set's highest version."""
    infos = Path(data_dir, require_name(name)).glob("*/dataset_info.json")
    folders = (info.parent for info in infos if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", info.parent.name))
    return max(folders, key=_version, default=None)


@checked
def is_prepared(name: str, data_dir: PathLike) -> bool:
    """Whether the folder holds the data set, ready to be read; nothing is downloaded to find out.

    Raises:
        DataError: what could be no data set's name.
    """
    return _newest(name, Path(data_dir)) is not None


def _local_builder(
    name: str,
    data_dir: Path,
    source: Path | None,
    image_size: int | None,
    on_corrupt: Literal["refuse", "skip"],
    transpose: bool,
) -> tuple[Any, list[Remark]]:
    config = name.partition("/")[2]
    if transpose and (source is None or not is_mnist_like(name)):
        raise DataError("transpose is for idx files, whose folder is given as source")
    if name == "digits" and source is None:
        from cfgjax.data.digits import Digits

        return Digits(data_dir=str(data_dir), file_format="array_record"), []
    if source is not None and is_mnist_like(name):
        registered(name)
        return idx_builder(name, source, data_dir, transpose), []
    if source is not None:
        return folder_builder(name, source, data_dir, image_size, on_corrupt)
    known = registered(name)
    if importlib.util.find_spec("tensorflow") is None:
        hint = "give --source, the folder of its idx files, or install" if is_mnist_like(name) else "install"
        raise DataError(
            f"data set {name!r} is unpacked by TensorFlow, which is not installed: {hint} it once "
            f"(python -m pip install tensorflow); reading needs none{urls_of(name)}"
        )
    return known(data_dir=str(data_dir), file_format="array_record", **({"config": config} if config else {})), []


@checked
def prepare(
    name: str,
    data_dir: PathLike,
    source: PathLike | None = None,
    image_size: PositiveInt | None = None,
    on_corrupt: Literal["refuse", "skip"] = "refuse",
    transpose: Annotated[bool, instance(bool, "True or False")] = False,
) -> list[Remark]:
    """Writes the data set into the folder as array_record files, once; a prepared one is left alone.

    Args:
        name: digits; a set of the MNIST family with the folder of its idx files as ``source``; any name of your own
            with a folder of class folders as ``source``; or a data set of tfds, which downloads it.
        data_dir: where to write.
        source: a local folder to read.
        image_size: for a folder of pictures, the side that all are cut and resized to.
        on_corrupt: for a folder of pictures, what to do with one that does not read.
        transpose: for idx files, whether rows become columns: those of EMNIST hold its pictures lying on their side.

    Returns:
        What is to be told of the files of a folder of pictures: those left out or skipped, and colours among gray ones.

    Raises:
        DataError: a name that is unknown, files that are missing or wrong, or a download that fails.
    """
    _quiet()
    data_dir, source = Path(data_dir), None if source is None else Path(source)
    if is_prepared(name, data_dir):
        return []
    require_inside(data_dir / name, data_dir)
    builder, remarks = _local_builder(name, data_dir, source, image_size, on_corrupt, transpose)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # in a notebook tfds prints where it writes
            builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"data set {name!r} cannot be prepared in {data_dir}: {_first_line(error)}") from error
    return remarks


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _require_prepared(name: str, data_dir: Path) -> Path:
    folder = _newest(name, data_dir)
    if folder is None:
        files = " --source FOLDER_OF_ITS_IDX_FILES" if is_mnist_like(name) else ""
        raise DataError(
            f"data set {name!r} is not prepared in {data_dir}; run: "
            f"python -m experiments.prepare {name}{files} --data-dir {data_dir}{urls_of(name)}"
        )
    return require_inside(folder, data_dir)


def _instructions(builder: Any, name: str, split: str) -> list[Any]:
    """The files of a split, and which of their records belong to it."""
    if not _SPLIT.fullmatch(split):
        raise DataError(f"data set {name!r} has no split {split!r}")
    try:
        return list(builder.info.splits[split].file_instructions)
    except Exception as error:  # tfds refuses a split by errors of many types
        known = {its_name: its.num_examples for its_name, its in builder.info.splits.items() if its.num_examples}
        raise DataError(f"data set {name!r} has no split {split!r}{_instead(split, known, error)}") from None


def _instead(split: str, known: dict[str, int], error: Exception) -> str:
    """What a data set has in the place of a split that it has not."""
    if re.fullmatch(r"\w+", split) is None or not known:
        return f": {_first_line(error)}"
    one = max(known, key=lambda name: known[name])
    listed = ", ".join(f"{name} ({count})" for name, count in known.items())
    return f", only {listed}; parts of one are splits, too: {one}[:90%] and {one}[90%:]"


def _require_records(instructions: list[Any], data_dir: Path) -> list[Path]:
    """The files of a split, once each lies inside the folder and holds as many records as is declared."""
    files = [Path(one.filename) for one in instructions]
    for file, one in zip(files, instructions, strict=True):
        require_file(require_inside(file, data_dir))
        try:
            reader = array_record_module.ArrayRecordReader(str(file))
            found = reader.num_records()
            reader.close()
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{file} does not read as array_record: {_first_line(error)}") from None
        if found != one.examples_in_shard:
            raise DataError(f"{file} holds {found} records, and dataset_info.json says {one.examples_in_shard}")
    return files


def _builder_of(folder: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(folder.resolve()))
    except Exception as error:  # what is declared was read strictly; what is left is not ours to name
        raise DataError(f"{folder} does not read as a data set: {_first_line(error)}") from None


@checked
def open_split(name: str, split: str, data_dir: PathLike) -> Split:
    """A split of a prepared data set, by index: ``source[i]`` is a dict of image and label; nothing is decoded yet.

    Raises:
        DataError: it is not prepared there, not as array_record, not of images and labels, leads out of the folder,
            declares what is not allowed, or has no such split or an empty one. Nothing is ever downloaded here.
    """
    import tensorflow_datasets as tfds

    _quiet()
    data_dir = Path(data_dir)
    folder = _require_prepared(name, data_dir)
    declared: Declared = read_declared(folder, data_dir)
    if declared.file_format != "array_record":
        raise DataError(
            f"data set {name!r} in {data_dir} is written as {declared.file_format[:20]}; prepare it as array_record"
        )
    builder = _builder_of(folder)
    instructions = _instructions(builder, name, split)
    if not 0 < sum(one.take for one in instructions) <= MOST_EXAMPLES:
        raise DataError(f"split {split!r} of data set {name!r} is empty, or of more than {MOST_EXAMPLES} examples")
    files = _require_records(instructions, data_dir)
    raw = builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    place = f"split {split!r} of {folder}"
    return Split(place, raw, files, declared.shape, declared.num_classes, declared.label_names)


def split_lengths(name: str, data_dir: Path | str) -> dict[str, int]:
    """The number of examples of every split of a prepared data set, as it declares them."""
    data_dir = Path(data_dir)
    declared = read_declared(_require_prepared(name, data_dir), data_dir)
    return {split: sum(lengths) for split, lengths in declared.split_lengths.items()}


@checked
def num_classes_of(source: OpenedSplit) -> int:
    """K of an opened split."""
    return source.num_classes


@checked
def load(name: str, split: str, data_dir: PathLike) -> Images:
    """All images of a split of a prepared data set, decoded into memory.

    Args:
        name: the data set's name in tfds.
        split: a tfds split, for example "train" or "train[:80%]".
        data_dir: the folder it was prepared in.

    Raises:
        DataError: as ``open_split``; a record that does not read, named; images of several sizes, or more than memory.
    """
    source = open_split(name, split, data_dir)
    shape = source[0]["image"].shape
    check_memory(f"split {split!r} of data set {name!r}", len(source) * math.prod(shape))
    pixels, label = np.empty((len(source), *shape), np.uint8), np.empty(len(source), np.int32)
    for start in range(0, len(source), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(source)))
        for row, record in zip(rows, source.__getitems__(rows), strict=True):
            if record["image"].shape != shape:
                sizes = sorted({record["image"].shape, shape})
                raise DataError(f"data set {name!r} has images of several sizes, for example {sizes}")
            pixels[row], label[row] = record["image"], record["label"]
    return Images(pixels, label, source.num_classes)
