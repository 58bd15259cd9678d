"""A folder of pictures: every kind that is read, and every file that is not is told."""

import io

import numpy as np
import pytest
from PIL import Image

from cfgjax import data

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def _saved(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def source(tmp_path):
    """Two class folders of one picture each."""
    for name in ("cat", "dog"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "0.png").write_bytes(_saved("png"))
    return tmp_path / "source"


def _told(source, tmp_path, **options):
    """What is told of the files of a source, by name, and how many pictures are in the set."""
    remarks = data.prepare("mine", tmp_path, source=source, **options)
    found = {remark.what: [file.relative_to(source).as_posix() for file in remark.files] for remark in remarks}
    return found, sum(counts.sum() for counts in data.summary("mine", tmp_path).counts.values())


@pytest.mark.parametrize(
    ("suffix", "kind", "options", "most"),
    [
        (".jfif", "jpeg", {"quality": 100, "subsampling": 0}, 9),
        (".jpe", "jpeg", {"quality": 100, "subsampling": 0}, 9),
        (".ppm", "ppm", {}, 0),
        (".pnm", "ppm", {}, 0),
        (".jp2", "jpeg2000", {}, 0),
        (".j2k", "jpeg2000", {"no_jp2": True}, 0),
        (".avif", "avif", {"quality": 100, "subsampling": "4:4:4"}, 9),
        (".apng", "png", {}, 0),
        (".dib", "dib", {}, 0),
        (".JFIF", "jpeg", {"quality": 100, "subsampling": 0}, 9),
    ],
)
def test_pictures_of_every_kind_are_read(suffix, kind, options, most, source, tmp_path):
    (source / "dog" / f"1{suffix}").write_bytes(_saved(kind, **options))
    assert _told(source, tmp_path) == ({}, 3)
    for pixels in (*data.load("mine", "train", tmp_path).pixels, *data.load("mine", "test", tmp_path).pixels):
        assert np.abs(pixels.astype(int) - PIXELS).max() <= most


@pytest.mark.parametrize("number", [2, 5])
def test_pictures_as_text_and_in_gray_are_read(number, source, tmp_path):
    """Netpbm's gray maps, as text and as bytes, of 16 levels: 15 is white."""
    values = np.arange(30).reshape(6, 5) % 16
    numbers = " ".join(map(str, values.ravel())).encode() if number == 2 else values.astype(np.uint8).tobytes()
    for name in ("cat", "dog"):
        (source / name / "0.png").unlink()
        (source / name / "0.pgm").write_bytes(b"P%d\n5 6\n15\n" % number + numbers)
    assert _told(source, tmp_path) == ({}, 2)
    np.testing.assert_array_equal(data.load("mine", "train", tmp_path).pixels[0, ..., 0], 17 * values)


def test_what_is_left_out_is_told(source, tmp_path):
    for name in ("dog/more/1.png", "dog/more/deep/2.jpg", "dog/more/notes.txt", "dog/1.heic", "dog/2.svg", "dog/3"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(_saved("png"))
    for name in ("dog/.DS_Store", "dog/._0.png", "cat/Thumbs.db", "dog/desktop.ini", "__MACOSX/dog/._0.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"")
    (source / "labels.csv").write_text("")
    (source / "loose.png").write_bytes(_saved("png"))
    (source / "dog" / "empty").mkdir()
    (source / ".git").mkdir()
    found, count = _told(source, tmp_path)
    assert count == 2
    assert found == {
        "left out, in folders inside class folders": [
            "dog/empty", "dog/more/1.png", "dog/more/deep/2.jpg", "dog/more/notes.txt",
        ],
        "left out, beside the class folders": ["labels.csv", "loose.png"],
        "left out, of kinds that are not read as pictures": ["dog/1.heic", "dog/2.svg", "dog/3"],
        "left out, hidden or kept by an operating system": [
            ".git", "__MACOSX", "cat/Thumbs.db", "dog/.DS_Store", "dog/._0.png", "dog/desktop.ini",
        ],
    }  # fmt: skip


def test_what_lies_beside_split_folders_is_told(source, tmp_path):
    source.rename(tmp_path / "train")
    source.mkdir()
    (tmp_path / "train").rename(source / "train")
    for name in ("notes.txt", "train/loose.png"):
        (source / name).write_bytes(_saved("png"))
    assert _told(source, tmp_path) == ({"left out, beside the class folders": ["notes.txt", "train/loose.png"]}, 2)


def test_an_inner_folder_is_not_followed_through_links(source, tmp_path):
    (source / "dog" / "loop").symlink_to(source)
    found, count = _told(source, tmp_path)
    assert found == {"left out, in folders inside class folders": ["dog/loop"]}
    assert count == 2


def test_a_class_folder_of_folders_says_so(source, tmp_path):
    (source / "dog" / "0.png").rename(source / "moved.png")
    (source / "dog" / "train").mkdir()
    (source / "moved.png").rename(source / "dog" / "train" / "0.png")
    with pytest.raises(
        data.DataError, match=r"dog holds no picture .*; pictures in the folders inside it are not read"
    ):
        data.prepare("mine", tmp_path, source=source)


def test_pictures_without_class_folders_say_so(source, tmp_path):
    with pytest.raises(data.DataError, match=r"dog holds no class folders, but pictures: each label has a folder"):
        data.prepare("mine", tmp_path, source=source / "dog")


def test_pictures_that_do_not_read_are_told_beside_the_others(source, tmp_path):
    (source / "dog" / "1.jfif").write_bytes(b"no picture")
    with pytest.raises(data.DataError, match=r"1\.jfif does not read"):
        data.prepare("mine", tmp_path, source=source)
    assert _told(source, tmp_path, on_corrupt="skip") == ({"skipped as unreadable": ["dog/1.jfif"]}, 2)


def test_colours_among_gray_pictures_are_told(tmp_path):
    for index in range(3):
        (tmp_path / "source" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[..., 0]).save(tmp_path / "source" / "a" / f"{index}.png")
    Image.fromarray(PIXELS).save(tmp_path / "source" / "a" / "3.webp", lossless=True)
    found, _ = _told(tmp_path / "source", tmp_path)
    assert found == {"in colour, for which all are kept in colour, 3 gray ones too": ["a/3.webp"]}
    assert data.load("mine", "train", tmp_path).pixels.shape[1:] == (6, 5, 3)


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        (".png", "P", {}),
        (".gif", "P", {}),
        (".webp", "RGB", {"lossless": True}),
        (".png", "RGB", {}),
        (".png", "RGBA", {}),
        (".jpg", "RGB", {}),
        (".avif", "RGB", {}),
    ],
)
def test_gray_values_are_gray_in_every_kind_of_file(suffix, mode, options, tmp_path):
    """WebP has no gray mode, and a palette says nothing of its colours: what they hold decides."""
    (tmp_path / "source" / "a").mkdir(parents=True)
    gray = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5) * 8)
    gray.save(tmp_path / "source" / "a" / "0.png")
    gray.convert(mode).save(tmp_path / "source" / "a" / f"1{suffix}", **options)
    found, count = _told(tmp_path / "source", tmp_path)
    assert (found, count) == ({}, 2)
    sets = [data.load("mine", split, tmp_path).pixels for split in ("train", "test")]
    assert [pixels.shape for pixels in sets] == [(1, 6, 5, 1)] * 2
    if suffix not in (".jpg", ".avif"):
        np.testing.assert_array_equal(*sets)


def test_gray_values_without_a_gray_file_stay_in_colour(tmp_path):
    (tmp_path / "source" / "a").mkdir(parents=True)
    for index in range(2):
        Image.fromarray(PIXELS[..., 0]).convert("RGB").save(tmp_path / "source" / "a" / f"{index}.png")
    assert _told(tmp_path / "source", tmp_path) == ({}, 2)
    assert data.load("mine", "train", tmp_path).pixels.shape[1:] == (6, 5, 3)
