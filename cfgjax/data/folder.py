"""A folder of class folders as a tfds data set: SOURCE/train/CLASS/*.png, SOURCE/test/CLASS/*.png.

Without the split's folders, SOURCE/CLASS/*.png, every tenth picture of a class becomes the split ``test``.
"""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from cfgjax.data.errors import DataError
from cfgjax.data.files import read_bounded, require_file, require_inside
from cfgjax.data.pictures import decode
from cfgjax.data.png import png

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_MOST_BYTES = 2**28
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""The decoders that a file may choose by its content: no other, or a picture could be a program of PostScript."""
_GRAY, _ALPHA = frozenset({"1", "L", "LA"}), frozenset({"LA", "PA", "RGBA"})
_COLOUR = frozenset({"P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"})
SPLITS = frozenset({"train", "test", "validation"})
_TEST_EVERY = 10


class Picture(NamedTuple):
    """One file and its label."""

    file: Path
    label: int


def _folders(folder: Path, root: Path) -> list[Path]:
    """The folders in a folder, whose names can stand in a file of one name a line."""
    folders = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    for child in folders:
        require_inside(child, root)
        if not child.name.isprintable() or child.name != child.name.strip():
            raise DataError(
                f"the name of class folder {str(child)!r} must be of printable letters, without spaces around"
            )
    return folders


def _pictures(folder: Path, root: Path) -> list[Path]:
    files = sorted(child for child in folder.iterdir() if child.suffix.lower() in SUFFIXES)
    for file in files:
        require_file(require_inside(file, root))
    if not files:
        raise DataError(f"class folder {folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    return files


def list_pictures(source: Path) -> tuple[dict[str, list[Picture]], list[str]]:
    """All pictures by split, and the names of the classes in order.

    Raises:
        DataError: no class folders, an empty one, splits of different classes, or a link that leads out of source.
    """
    if not source.is_dir():
        raise DataError(f"source {source} is not a folder")
    children = _folders(source, source)
    splits = [child for child in children if child.name in SPLITS]
    if splits and len(splits) < len(children):
        raise DataError(f"source {source} mixes split folders and class folders")
    classes = {split.name: _folders(split, source) for split in splits} if splits else {"": children}
    names = sorted({folder.name for folders in classes.values() for folder in folders})
    if not names:
        raise DataError(f"source {source} holds no class folders")
    found: dict[str, list[Picture]] = {}
    for split, folders in classes.items():
        if [folder.name for folder in folders] != names:
            raise DataError(f"source {source}: split {split} lacks some of the classes {', '.join(names)}")
        for label, folder in enumerate(folders):
            for index, file in enumerate(_pictures(folder, source)):
                its_split = split or ("test" if index % _TEST_EVERY == _TEST_EVERY - 1 else "train")
                found.setdefault(its_split, []).append(Picture(file, label))
    return found, names


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


def _require_eight_bits(image: Image.Image) -> None:
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
            image = _turned(decode(read_bounded(file, _MOST_BYTES), FORMATS, _require_eight_bits))
    except DataError as error:
        raise DataError(f"picture {file} does not read: {error}") from None
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BOX)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if image.mode == "L" else pixels


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Gray pixels in as many channels as the other pictures have."""
    return np.broadcast_to(pixels, (*pixels.shape[:2], channels))


def _require_size(file: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        sizes = " x ".join(map(str, found)), " x ".join(map(str, wanted))
        raise DataError(f"picture {file} is {sizes[0]}, the first one {sizes[1]}; give an image size")


def _readable(
    pictures: dict[str, list[Picture]], image_size: int | None, on_corrupt: Literal["refuse", "skip"]
) -> tuple[dict[str, list[Picture]], tuple[int, ...], list[Path]]:
    """The pictures that read, the shape of all of them, and the files that do not.

    One picture in colour makes all of them so.
    """
    size: tuple[int, ...] | None = None
    channels = 1
    kept: dict[str, list[Picture]] = {split: [] for split in pictures}
    skipped = []
    for split, its_pictures in pictures.items():
        for picture in its_pictures:
            try:
                found = read_picture(picture.file, image_size).shape
            except DataError:
                if on_corrupt == "refuse":
                    raise
                skipped.append(picture.file)
                continue
            size, channels = size or found[:2], max(channels, found[2])
            _require_size(picture.file, found[:2], size)
            kept[split].append(picture)
    if size is None:
        raise DataError("no picture of the source reads")
    return kept, (*size, channels), skipped


def folder_builder(
    name: str,
    source: Path,
    data_dir: Path,
    image_size: int | None = None,
    on_corrupt: Literal["refuse", "skip"] = "refuse",
) -> tuple[tfds.core.DatasetBuilder, list[Path]]:
    """The builder of a folder of pictures, and the files that it skips.

    Args:
        name: what to call the data set: small letters, digits, underscores.
        source: the folder.
        data_dir: where to write.
        image_size: side of the square that every picture is cut and resized to; by default all must have one size.
        on_corrupt: what to do with a file that does not read.

    Raises:
        DataError: a name or folder that is not as it should be; an unreadable picture, named, unless skipped.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise DataError(f"a data set's name must be of small letters, digits and underscores, got {name!r}")
    listed, names = list_pictures(Path(os.path.abspath(source)))  # noqa: PTH100
    pictures, shape, skipped = _readable(listed, image_size, on_corrupt)
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
                    yield index, {"image": png(pixels), "label": picture.label}

    return Folder(data_dir=str(data_dir), file_format="array_record"), skipped
