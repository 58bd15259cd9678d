"""Pictures of any format, size and kind as pixels: read, turned, cut to a square, and what a set of them is."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cfgjax.data.listing import Remark
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.depth import require_eight_bits
from cfgjax.data.untrusted.image_decoding import decode
from cfgjax.data.untrusted.safe_files import read_bounded

MOST_BYTES = 2**28
"""Bytes of the largest file of a picture."""
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


def decode_picture(content: bytes, image_size: int | None) -> np.ndarray:
    """The pixels [H, W, 1 or 3] of a picture in memory, cut to its middle square and resized where a size is given.

    Raises:
        DataError: bytes that do not read as a picture of 8 bits, or of too many pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = _turned(decode(content, FORMATS, lambda image: _require_readable(image, content)))
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BOX)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if image.mode == "L" else pixels


def read_picture(file: Path, image_size: int | None) -> np.ndarray:
    """The pixels of a picture's file, as ``decode_picture``.

    Raises:
        DataError: a file that does not read as a picture of 8 bits, or has too many pixels; the message names it.
    """
    try:
        return decode_picture(read_bounded(file, MOST_BYTES), image_size)
    except DataError as error:
        raise DataError(f"picture {file} does not read: {error}") from None


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """The pixels in as many channels as those of the set: gray ones repeated, or gray values in colour once."""
    return np.broadcast_to(pixels[..., :channels], (*pixels.shape[:2], channels))


def require_size(file: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raises DataError where a picture is of another size [H, W] than the first one of its set."""
    if found != wanted:
        sizes = " x ".join(map(str, found)), " x ".join(map(str, wanted))
        raise DataError(f"picture {file} is {sizes[0]}, the first one {sizes[1]}; give an image size")


class Kinds(NamedTuple):
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
