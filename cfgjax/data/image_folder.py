"""A folder of class folders as a tfds data set: what ``listing`` finds there, read, in one size and kind."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cfgjax.data.listing import Picture, Remark, list_pictures
from cfgjax.data.picture_files import Kinds, read_picture, require_size, with_channels
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.image_decoding import encode_png


class _Readable(NamedTuple):
    """The pictures that read, the shape of all of them, and what is to be told of the files."""

    pictures: dict[str, list[Picture]]
    shape: tuple[int, ...]
    remarks: list[Remark]


def _readable(
    pictures: dict[str, list[Picture]], image_size: int | None, on_corrupt: Literal["refuse", "skip"]
) -> _Readable:
    """Reads all pictures once. One with colours makes all of them so."""
    size: tuple[int, ...] | None = None
    kinds = Kinds([], [], [])
    kept: dict[str, list[Picture]] = {split: [] for split in pictures}
    skipped = []
    for split, its_pictures in pictures.items():
        for picture in its_pictures:
            try:
                pixels = read_picture(picture.file, image_size)
            except DataError:
                if on_corrupt == "refuse":
                    raise
                skipped.append(picture.file)
                continue
            size = size or pixels.shape[:2]
            kinds.add(picture.file, pixels)
            require_size(picture.file, pixels.shape[:2], size)
            kept[split].append(picture)
    if size is None:
        raise DataError("no picture of the source reads")
    remarks = [Remark("skipped as unreadable", tuple(skipped))] if skipped else []
    kept = {split: its_pictures for split, its_pictures in kept.items() if its_pictures}
    return _Readable(kept, (*size, kinds.num_channels), remarks + kinds.remarks())


def folder_builder(
    name: str,
    source: Path,
    data_dir: Path,
    image_size: int | None = None,
    on_corrupt: Literal["refuse", "skip"] = "refuse",
) -> tuple[Any, list[Remark]]:
    """The builder of a folder of pictures, and what is to be told of its files: those left out, and the odd ones.

    Args:
        name: what to call the data set: small letters, digits, underscores.
        source: the folder.
        data_dir: where to write.
        image_size: side of the square that every picture is cut and resized to; by default all must have one size.
        on_corrupt: what to do with a file that does not read.

    Raises:
        DataError: a name or folder that is not as it should be; an unreadable picture, named, unless skipped.
    """
    import tensorflow_datasets as tfds

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"a data set's name must be of small letters, digits and underscores, got {name!r}")
    listed, names, left_out = list_pictures(Path(os.path.abspath(source)))  # noqa: PTH100
    pictures, shape, remarks = _readable(listed, image_size, on_corrupt)
    given_name = name

    with tfds.core.registered.skip_registration():

        class Folder(tfds.core.GeneratorBasedBuilder):
            """A folder of pictures."""

            name = given_name
            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=names),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f"The pictures of the folder {source.name}.",
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                return {split: self._generate_examples(its) for split, its in pictures.items()}

            def _generate_examples(self, its_pictures: list[Picture]) -> Iterator[tuple[int, dict]]:
                for index, picture in enumerate(its_pictures):
                    pixels = with_channels(read_picture(picture.file, image_size), shape[-1])
                    yield index, {"image": encode_png(pixels), "label": picture.label}

    return Folder(data_dir=str(data_dir), file_format="array_record"), left_out + remarks
