"""A folder of class folders as a tfds data set: what ``listing`` finds there, read, in one size and kind."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cfgjax.data.listing import Picture, Remark, list_pictures
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.depth import require_eight_bits
from cfgjax.data.untrusted.image_decoding import decode, encode_png
from cfgjax.data.untrusted.safe_files import read_bounded

_MOST_BYTES = 2**28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""The decoders that a file may choose by its content: no other, or a picture could be a program of PostScript."""
_GRAY, _ALPHA = frozenset({"1", "L", "LA"}), frozenset({"LA", "PA", "RGBA"})
_COLOUR = frozenset({"P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"})


def _upright(opened: Image.Image) -> Image.Image:
    """The picture turned as its camera says, in L or RGB, what is transparent over white."""
    image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode in _ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("L" if image.mode in _GRAY else "RGB")
    return image.convert("L" if image.mode in _GRAY else "RGB")


def _turned(opened: Image.Image) -> Image.Image:
    try:
        return _upright(opened)
    except Exception as error:  # the orientation stands in data of the camera's own, which may be broken in any way
        raise DataError((str(error).splitlines() or [type(error).__name__])[0][:200]) from None


def _require_readable(image: Image.Image, content: bytes) -> None:
    require_eight_bits(image, content)
    if image.mode not in _GRAY | _ALPHA | _COLOUR:
        raise ValueError(f"its pixels are of mode {image.mode}, not of 8 bits")


def read_picture(file: Path, image_size: int | None) -> np.ndarray:
    """The pixels [H, W, 1 or 3] of a picture, cut to its middle square and resized where a size is given.

    Raises:
        DataError: a file that does not read as a picture of 8 bits, or has too many pixels; the message names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            content = read_bounded(file, _MOST_BYTES)
            image = _turned(decode(content, FORMATS, lambda image: _require_readable(image, content)))
    except DataError as error:
        raise DataError(f"picture {file} does not read: {error}") from None
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BOX)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if image.mode == "L" else pixels


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """The pixels in as many channels as those of the set: gray ones repeated, or gray values in colour once."""
    return np.broadcast_to(pixels[..., :channels], (*pixels.shape[:2], channels))


def _require_size(file: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        sizes = " x ".join(map(str, found)), " x ".join(map(str, wanted))
        raise DataError(f"picture {file} is {sizes[0]}, the first one {sizes[1]}; give an image size")


class _Kinds(NamedTuple):
    """Files by what they hold: one channel, colours, or three equal channels, which are either."""

    gray: list[Path]
    coloured: list[Path]
    either: list[Path]

    def add(self, file: Path, pixels: np.ndarray) -> None:
        """Puts the file among its kind."""
        is_gray = bool((pixels == pixels[..., :1]).all())
        (self.gray if pixels.shape[2] == 1 else self.either if is_gray else self.coloured).append(file)

    @property
    def num_channels(self) -> int:
        """Of the set: 1 where a file is gray, and none has colours."""
        return 1 if self.gray and not self.coloured else 3

    def remarks(self) -> list[Remark]:
        """What is to be told where some are gray and some have colours."""
        what = f"in colour, for which all are kept in colour, {len(self.gray)} gray ones too"
        return [Remark(what, tuple(self.coloured))] if self.gray and self.coloured else []


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
    kinds = _Kinds([], [], [])
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
            _require_size(picture.file, pixels.shape[:2], size)
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
                    pixels = _with_channels(read_picture(picture.file, image_size), shape[-1])
                    yield index, {"image": encode_png(pixels), "label": picture.label}

    return Folder(data_dir=str(data_dir), file_format="array_record"), left_out + remarks
