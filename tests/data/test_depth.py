"""Pictures of more than 8 bits a channel: refused by name, whatever their file, as a set holds 8.

Pillow 13.0.0 says nothing of it: it opens PNG and TIFF of 16 bits in colour as RGB, PNG of gray with alpha as RGBA,
Netpbm of any maximum, JPEG 2000 of several channels and AVIF of 10 or 12 bits as RGB, and keeps the upper 8 bits.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cfgjax import data
from cfgjax.data.picture_files import read_picture

DEEP = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.uint16)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(values, colour_type):
    """A PNG of 16 bits, of values [H, W, C]."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _tiff(values):
    """A TIFF of 16 bits in three channels, little-endian, in one strip."""
    height, width, channels = values.shape
    content = values.astype("<u2").tobytes()
    start = 8 + 2 + 12 * 10 + 4
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, start + 6), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(content)), (284, 3, 1, 1),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + struct.pack("<HHH", 16, 16, 16) + content


def _ppm(values, maximum):
    height, width, _ = values.shape
    return b"P6\n%d %d\n%d\n" % (width, height, maximum) + (values.astype(int) % (maximum + 1)).astype(">u2").tobytes()


def _eight(kind, mode="RGB", **options):
    stream = io.BytesIO()
    Image.fromarray((DEEP >> 8).astype(np.uint8)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def _with_deep_codestream(content):
    """A JPEG 2000 whose header says 12 bits of its second channel."""
    changed = bytearray(content)
    changed[content.index(b"\xff\x4f\xff\x51") + 45] = 11
    return bytes(changed)


def _with_deep_bitstream(content):
    """An AVIF that says of its pixels that they are of 10 bits."""
    changed = bytearray(content)
    changed[content.index(b"av1C") + 6] |= 0x40
    bits = content.index(b"pixi") + 9
    changed[bits : bits + 3] = [10, 10, 10]
    return bytes(changed)


FILES = {
    "gray png": (_png(DEEP[..., :1], 0), 16),
    "gray and alpha png": (_png(DEEP[..., :2], 4), 16),
    "png": (_png(DEEP, 2), 16),
    "png with alpha": (_png(np.concatenate([DEEP, DEEP[..., :1]], -1), 6), 16),
    "tiff": (_tiff(DEEP), 16),
    "ppm of 65535": (_ppm(DEEP, 65535), 16),
    "ppm of 1023": (_ppm(DEEP, 1023), 10),
    "jpeg 2000": (_with_deep_codestream(_eight("jpeg2000", no_jp2=True)), 12),
    "jpeg 2000 in its boxes": (_with_deep_codestream(_eight("jpeg2000")), 12),
    "avif": (_with_deep_bitstream(_eight("avif")), 10),
}


@pytest.mark.parametrize("name", FILES)
def test_more_than_eight_bits_are_refused(name, tmp_path):
    content, bits = FILES[name]
    (tmp_path / "deep.png").write_bytes(content)
    with pytest.raises(data.DataError, match=rf"deep\.png does not read: its pixels have {bits} bits, not 8"):
        read_picture(tmp_path / "deep.png", None)


@pytest.mark.parametrize("name", ["png", "tiff", "ppm of 65535", "gray and alpha png"])
def test_pillow_opens_them_as_if_they_had_eight(name):
    image = Image.open(io.BytesIO(FILES[name][0]))
    image.load()
    assert image.mode in ("RGB", "RGBA")


@pytest.mark.parametrize("kind", ["png", "tiff", "ppm", "jpeg2000", "avif", "webp", "gif", "bmp", "jpeg"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_eight_bits_and_fewer_pass(kind, mode, tmp_path):
    if mode == "P" and kind in ("jpeg", "jpeg2000", "ppm", "webp", "avif"):
        return
    (tmp_path / "one.png").write_bytes(
        _eight(kind, "RGB" if mode == "1" and kind in ("jpeg2000", "avif", "webp") else mode)
    )
    assert read_picture(tmp_path / "one.png", None).shape[:2] == (6, 5)
