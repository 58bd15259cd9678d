"""A split of a prepared data set: its records by index, each checked as it is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, SupportsIndex

import numpy as np

from cfgjax.contracts import instance
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.array_record import require_bounded_chunks
from cfgjax.data.untrusted.image_decoding import MOST_PIXELS, unpack

_SLACK = 65_536
"""Bytes of a record beside its picture."""
_AT_ONCE = 1024
"""Records whose labels are read together."""


class Record(NamedTuple):
    """The two fields of a record: a PNG or JPEG file, and the label."""

    picture: bytes
    label: int


@cache
def _example_type() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return vars(tf_example_pb2)["Example"]


def parse(content: bytes) -> Record:
    """The image and the label of a serialised tf.train.Example.

    Raises:
        DataError: it is none, or lacks one of them.
    """
    try:
        features = _example_type().FromString(content).features.feature
        (picture,), (label,) = features["image"].bytes_list.value, features["label"].int64_list.value
    except Exception as error:  # protobuf's own error is not public under one name
        raise DataError(f"it holds no image and label: {(str(error).splitlines() or ['malformed'])[0]}") from None
    return Record(picture, label)


class Split:
    """The images and labels of a split: ``split[i]`` is a dict of ``image`` [H, W, C] uint8 and ``label``.

    Attributes:
        shape: height, width and channels of every image; None where they differ.
        num_classes: K.
        label_names: of the labels, in order; None where they have none.
    """

    def __init__(
        self,
        name: str,
        raw: Any,
        files: Sequence[Path],
        shape: tuple[int | None, int | None, int],
        num_classes: int,
        label_names: tuple[str, ...] | None = None,
    ) -> None:
        self.shape, self.num_classes, self.label_names = shape, num_classes, label_names
        self._name, self._raw, self._files = name, raw, tuple(files)
        self._lock, self._is_bounded = threading.Lock(), False

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return self.__getitems__([index.__index__()])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The records of some indices.

        Raises:
            DataError: a file or record that is not as it should be; the message names it.
        """
        return [
            {"image": self._image(index, record.picture), "label": np.int32(record.label)}
            for index, record in zip(indices, self._records(indices), strict=True)
        ]

    def labels(self) -> Iterator[np.ndarray]:
        """The labels in the order of the split, some records' after some, int32; no picture is unpacked.

        Raises:
            DataError: a file or record that is not as it should be; the message names it.
        """
        for start in range(0, len(self), _AT_ONCE):
            records = self._records(range(start, min(start + _AT_ONCE, len(self))))
            yield np.asarray([record.label for record in records], np.int32)

    def _records(self, indices: Sequence[int]) -> list[Record]:
        self._require_bounded()
        try:
            contents = self._raw.__getitems__(list(indices))
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise DataError(f"{self._name} does not read: {str(error).splitlines()[0][:200]}") from None
        return [self._parsed(index, content) for index, content in zip(indices, contents, strict=True)]

    def _require_bounded(self) -> None:
        """Looks at all headers of the files once, before the first record is unpacked."""
        with self._lock:
            if self._is_bounded:
                return
            height, width, channels = self.shape
            most = MOST_PIXELS // 4 if height is None or width is None else 2 * height * width * channels
            for file in self._files:
                require_bounded_chunks(file, most + _SLACK)
            self._is_bounded = True

    def _parsed(self, index: int, content: bytes) -> Record:
        try:
            record = parse(content)
            if not 0 <= record.label < self.num_classes:
                raise DataError(f"its label is {record.label}, of 0..{self.num_classes - 1}")
        except DataError as error:
            raise DataError(f"record {index} of {self._name}: {error}") from None
        return record

    def _image(self, index: int, picture: bytes) -> np.ndarray:
        try:
            return unpack(picture, self.shape)
        except DataError as error:
            raise DataError(f"record {index} of {self._name}: {error}") from None


OpenedSplit = Annotated[Split, instance(Split, "a Split, as data.open_split gives it")]
"""A Split."""
