"""Untrusted folders of pictures and idx files: pixels, or one error; nothing blocks, leads out, or grows."""

import gzip
import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies
from PIL import Image, PngImagePlugin

from cfgjax import data
from cfgjax.data.picture_files import read_picture
from tests.support.fuzzing import mutations, tries
from tests.support.pictures import idx_bytes, write_family


def _saved(kind, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def _with_exif():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera's words"
    return exif


GOOD = {
    "png": _saved("png"),
    "interlaced png": _saved("png", "P"),
    "jpeg": _saved("jpeg", exif=_with_exif()),
    "gif": _saved("gif", "P", save_all=True, append_images=[Image.new("P", (7, 9), index) for index in range(3)]),
    "bmp": _saved("bmp"),
    "tiff": _saved("tiff", compression="tiff_lzw", exif=_with_exif()),
    "webp": _saved("webp", lossless=True),
    "ppm": _saved("ppm"),
    "jpeg 2000": _saved("jpeg2000"),
    "avif": _saved("avif"),
}


@pytest.mark.parametrize("kind", GOOD)
@tries(100)
@given(source=strategies.data())
def test_a_damaged_picture_gives_pixels_or_one_error(kind, source, tmp_path):
    content = source.draw(mutations(GOOD[kind]))
    (tmp_path / "one.png").write_bytes(content)
    _assert_pixels_or_refused(tmp_path / "one.png", exact=read_of(GOOD[kind], tmp_path) if "png" in kind else None)


def read_of(content, folder):
    """The pixels of a picture that is whole."""
    (folder / "good.png").write_bytes(content)
    return read_picture(folder / "good.png", None)


def _assert_pixels_or_refused(file, exact=None):
    try:
        pixels = read_picture(file, None)
    except data.DataError as error:
        assert str(file) in str(error)
        assert "\n" not in str(error)
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] in (1, 3)
    if exact is not None:
        np.testing.assert_array_equal(pixels, exact)


@tries(100)
@given(content=strategies.binary(max_size=200))
def test_random_bytes_are_no_picture(content, tmp_path):
    (tmp_path / "one.png").write_bytes(content)
    with pytest.raises(data.DataError, match=r"one\.png does not read"):
        read_picture(tmp_path / "one.png", None)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_of(width, height, *chunks):
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def _frames():
    stream = io.BytesIO()
    first, *rest = [Image.new("L", (7, 9), index) for index in range(200)]
    first.save(stream, "tiff", save_all=True, append_images=rest)
    return stream.getvalue()


def _large(content, place, form):
    """The picture whose header says 60,000 x 60,000 pixels."""
    changed = bytearray(content)
    changed[place : place + struct.calcsize(form)] = struct.pack(form, 60_000, 60_000)
    return bytes(changed)


_CODESTREAM = _saved("jpeg2000", no_jp2=True)
_AVIF = _saved("avif")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is no PNG"),
        (b"P6\n60000 60000\n255\n", "pixels|Image size"),
        (b"P3\n60000 60000\n255\n1 2 3", "pixels|Image size"),
        (_large(_CODESTREAM, 8, ">II"), "pixels|Image size"),
        (_large(_AVIF, _AVIF.index(b"ispe") + 8, ">II"), "pixels|Image size|is no PNG"),
        (_png_of(2**31 - 1, 2**31 - 1), "pixels|Image size"),
        (_png_of(9000, 9000, _chunk(b"IDAT", zlib.compress(bytes(9001 * 9000)))), "9000 x 9000 pixels, more than"),
        (_png_of(0, 5), "."),
        (
            _png_of(2, 2, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))), _chunk(b"IDAT", b"")),
            "Decompressed data",
        ),
        (_png_of(2, 2, *[_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 9)))] * 70), "Too much memory|text"),
        (_saved("png")[:-12], "cut off"),
    ],
)
def test_a_picture_that_would_grow_is_refused(content, complaint, tmp_path):
    (tmp_path / "one.png").write_bytes(content)
    with pytest.raises(data.DataError, match=f"one.png does not read: .*({complaint})"):
        read_picture(tmp_path / "one.png", None)


def test_of_many_frames_the_first_is_read(tmp_path):
    (tmp_path / "one.tif").write_bytes(_frames())
    assert read_picture(tmp_path / "one.tif", None).max() == 0


def test_words_beside_the_pixels_are_left_alone(tmp_path):
    words = PngImagePlugin.PngInfo()
    words.add_text("a", "b" * 1000, zip=True)
    (tmp_path / "one.png").write_bytes(_saved("png", pnginfo=words))
    assert read_picture(tmp_path / "one.png", None).shape == (9, 7, 3)


@pytest.fixture
def source(tmp_path):
    """Two class folders of one picture each."""
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "one.png").write_bytes(GOOD["png"])
    return tmp_path / "source"


def _pipe(source):
    os.mkfifo(source / "a" / "pipe.png")


def _folder(source):
    (source / "a" / "folder.png").mkdir()


def _device(source):
    (source / "a" / "zero.png").symlink_to("/dev/zero")


def _dangling(source):
    (source / "a" / "gone.png").symlink_to(source / "gone.png")


def _loop(source):
    (source / "a" / "loop.png").symlink_to(source / "a" / "loop.png")


def _class_outside(source):
    (source.parent / "other").mkdir()
    (source.parent / "other" / "one.png").write_bytes(GOOD["png"])
    (source / "c").symlink_to(source.parent / "other")


def _class_of_all(source):
    (source / "c").symlink_to(source)


def _two_lines(source):
    (source / "a\nc").mkdir()


def _spaces(source):
    (source / " a").mkdir()


def _no_text(source):
    os.mkdir(os.fsencode(source) + b"/\xff")  # noqa: PTH102


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_pipe, r"pipe\.png is not a regular file"),
        (_folder, r"folder\.png is not a regular file"),
        (_device, "is a link that leads out"),
        (_dangling, r"gone\.png does not exist"),
        (_loop, r"loop\.png"),
        (_class_outside, "c is a link that leads out"),
        (_class_of_all, "c holds no picture"),
        (_two_lines, "must be of printable letters"),
        (_spaces, "must be of printable letters"),
        (_no_text, "must be of printable letters"),
    ],
)
@pytest.mark.parametrize("on_corrupt", ["refuse", "skip"])
def test_what_is_no_folder_of_pictures_is_refused_at_once(change, complaint, on_corrupt, source, tmp_path):
    change(source)
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.prepare("mine", tmp_path / "data", source=source, on_corrupt=on_corrupt)
    assert "\n" not in str(caught.value)
    assert not data.is_prepared("mine", tmp_path / "data")


def test_nothing_is_written_through_a_link_that_leads_out(source, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "mine").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.prepare("mine", tmp_path / "data", source=source)
    assert not list((tmp_path / "elsewhere").iterdir())


IDX = idx_bytes(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize("is_packed", [False, True])
@tries(200)
@given(source=strategies.data())
def test_a_damaged_idx_file_gives_numbers_or_one_error(is_packed, source, tmp_path):
    """Gzip has a check sum, so that a corrupt archive is refused unless its numbers are untouched."""
    content = source.draw(mutations(gzip.compress(IDX, mtime=0) if is_packed else IDX))
    file = tmp_path / ("one.gz" if is_packed else "one")
    file.write_bytes(content)
    try:
        found = data.read_idx(file)
    except data.DataError as error:
        assert str(file) in str(error)
        assert "\n" not in str(error)
        return
    assert found.size == 24 or not is_packed
    if is_packed:
        np.testing.assert_array_equal(found.reshape(-1), np.arange(24))


def test_an_archive_that_would_grow_is_not_unpacked(tmp_path):
    (tmp_path / "one.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(2**24)))
    with pytest.raises(data.DataError, match="more than the 3 bytes"):
        data.read_idx(tmp_path / "one.gz")
    (tmp_path / "one.gz").write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)))
    with pytest.raises(data.DataError, match="promises"):
        data.read_idx(tmp_path / "one.gz")


def test_idx_files_that_are_none_or_lead_out_are_refused(tmp_path):
    source = write_family(tmp_path / "source", 20, 20)
    file = source / "train-labels-idx1-ubyte.gz"
    file.rename(tmp_path / "labels.gz")
    file.symlink_to(tmp_path / "labels.gz")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.prepare("mnist", tmp_path / "data", source=source)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(data.DataError, match="not a regular file"):
        data.prepare("mnist", tmp_path / "data", source=source)
