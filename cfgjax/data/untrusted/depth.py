"""How many bits a picture's file has for each channel, which Pillow does not say of all that it opens.

Pillow 13.0.0 opens pictures of more than 8 bits in several channels as RGB and RGBA, and keeps the upper 8.
Source: PNG, section 11.2.1 (IHDR); TIFF 6.0, tag 258; Netpbm, ppm(5); ISO/IEC 15444-1, A.5.1 (SIZ); AV1 in ISOBMFF,
2.3 (av1C).
"""

from __future__ import annotations

from typing import Any

from PIL import Image

_SIZ, _FIRST_COMPONENT = b"\xff\x4f\xff\x51", 42
_AV1, _HIGH, _TWELVE = b"av1C", 0x40, 0x20


def _of_netpbm(image: Any) -> int:
    """By the largest value, which stands beside the decoder's mode where it is not 255."""
    args = image.tile[0].args
    is_told = isinstance(args, tuple) and isinstance(args[-1], int)
    return args[-1].bit_length() if is_told else 16 if args == "I;16B" else 8


def _of_jpeg_2000(content: bytes) -> int:
    start = content.find(_SIZ)
    count = int.from_bytes(content[start + 40 : start + 42])
    depths = content[start + _FIRST_COMPONENT : start + _FIRST_COMPONENT + 3 * count : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8)


def _of_avif(content: bytes) -> int:
    start = content.find(_AV1)
    flags = content[start + 6] if 0 <= start < len(content) - 6 else 0
    return 8 if not flags & _HIGH else 12 if flags & _TWELVE else 10


def bits_of(image: Any, content: bytes) -> int:
    """The bits of the deepest channel of a picture that Pillow has opened, not yet read; 8 where a file says nothing.

    Args:
        image: as ``Image.open`` gives it.
        content: its file.
    """
    match image.format:
        case "PNG":
            return content[24]
        case "TIFF":
            return max(image.tag_v2.get(258, (8,)))
        case "PPM":
            return _of_netpbm(image)
        case "JPEG2000":
            return _of_jpeg_2000(content)
        case "AVIF":
            return _of_avif(content)
    return 8


def require_eight_bits(image: Image.Image, content: bytes) -> None:
    """Raises ValueError where a channel of an opened picture has more than 8 bits."""
    bits = bits_of(image, content)
    if bits > 8:
        raise ValueError(f"its pixels have {bits} bits, not 8: what a set holds; convert it first")
