"""Image files in memory; of one to be read the header is bounded before a pixel is unpacked."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from cfgjax.data.untrusted import DataError

MOST_PIXELS = 2**26
"""Pixels of the largest picture that is unpacked: 8,192 x 8,192."""
_CHANNELS = {"L": frozenset({"1", "L"}), "RGB": frozenset({"1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"})}
"""Modes of a record's picture that read as gray, and as colour, as TensorFlow reads them."""


_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def require_whole_png(content: bytes) -> None:
    """Raises ValueError where a chunk of a PNG file is cut off or differs from its check sum, or the last is missing.

    Pillow stops reading at the last pixel, and looks at no check sum of pixels.
    """
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        start, end = position + 4, position + 8 + int.from_bytes(content[position : position + 4])
        kind = content[start : start + 4]
        if end + 4 > len(content):
            raise ValueError("it is cut off")
        if zlib.crc32(content[start:end]) != int.from_bytes(content[end : end + 4]):
            raise ValueError("its check sum is wrong")
        position = end + 4


def decode(content: bytes, formats: tuple[str, ...], require: Callable[[Image.Image], None]) -> Image.Image:
    """The picture in a file, of its first frame.

    Args:
        content: of the file.
        formats: the decoders that it may choose by its first bytes.
        require: raises ValueError for a header that is not as it should be.

    Raises:
        DataError: a file that does not read, or a header that is refused; the message says why in one line.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}")
        require(image)
        if image.format == "PNG":
            require_whole_png(content)
        image.load()
    except UnidentifiedImageError:
        raise DataError(f"it is no {', '.join(formats)}") from None
    except Exception as error:  # what Pillow raises depends on where a file is broken
        raise DataError((str(error).splitlines() or [type(error).__name__])[0][:200]) from None
    return image


def unpack(content: bytes, shape: tuple[int | None, int | None, int]) -> np.ndarray:
    """The pixels [H, W, channels] uint8 of a PNG or JPEG file in memory.

    Args:
        content: the file.
        shape: height, width and channels that it must have; None where any will do.

    Raises:
        DataError: another size or kind of pixels, or bytes that do not read.
    """
    height, width, channels = shape
    mode = "L" if channels == 1 else "RGB"

    def require(image: Image.Image) -> None:
        if image.height != (height or image.height) or image.width != (width or image.width):
            raise ValueError(f"its picture is {image.height} x {image.width}, not {height} x {width}")
        if image.mode not in _CHANNELS[mode]:
            raise ValueError(f"its picture is of mode {image.mode}, not {channels} channels of 8 bits")

    image = decode(content, ("PNG", "JPEG"), require)
    pixels = np.asarray(image if image.mode == mode else image.convert(mode), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG file of an image [H, W, 1 or 3] of integers 0..255, written without TensorFlow."""
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "png")
    return stream.getvalue()
