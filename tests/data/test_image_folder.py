"""A folder of class folders as a data set: what comes back, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from cfgjax import data
from cfgjax.data.picture_files import read_picture

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def _write(file, colour, size=(8, 8)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


@pytest.fixture
def source(tmp_path):
    """Twelve pictures of each of three colours, in class folders."""
    for name, colour in COLOURS.items():
        for index in range(12):
            _write(tmp_path / "source" / name / f"{index:02}.png", colour)
    return tmp_path / "source"


def test_every_picture_comes_back_under_its_class(source, tmp_path):
    assert data.prepare("colours", tmp_path, source=source) == []
    train, test = (data.load("colours", split, tmp_path) for split in ("train", "test"))
    assert train.pixels.shape == (33, 8, 8, 3)
    assert np.bincount(train.label).tolist() == [11] * 3
    assert np.bincount(test.label).tolist() == [1] * 3
    for images in (train, test):
        expected = np.array(list(COLOURS.values()))[images.label]
        np.testing.assert_array_equal(images.pixels[:, 3, 5], expected)
    assert train.num_classes == 3
    assert data.open_split("colours", "train", tmp_path).label_names == ("blue", "green", "red")


def test_split_folders_are_kept(source, tmp_path):
    source.rename(tmp_path / "train")
    for name, colour in COLOURS.items():
        _write(tmp_path / "both" / "test" / name / "a.png", colour)
    (tmp_path / "train").rename(tmp_path / "both" / "train")
    data.prepare("colours", tmp_path, source=tmp_path / "both")
    assert [len(data.load("colours", split, tmp_path).label) for split in ("train", "test")] == [36, 3]


def test_pictures_of_any_size_are_cut_and_resized_on_request(source, tmp_path):
    _write(source / "red" / "wide.png", COLOURS["red"], (20, 10))
    with pytest.raises(data.DataError, match=r"wide\.png is 10 x 20, the first one 8 x 8"):
        data.prepare("colours", tmp_path, source=source)
    data.prepare("colours", tmp_path, source=source, image_size=4)
    assert data.load("colours", "train", tmp_path).pixels.shape == (34, 4, 4, 3)


def test_gray_pictures_have_one_channel(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("L", (6, 6), 100).save(tmp_path / "source" / name / "one.png")
    data.prepare("gray", tmp_path, source=tmp_path / "source")
    assert data.load("gray", "train", tmp_path).pixels.shape == (2, 6, 6, 1)


@pytest.mark.parametrize(
    ("count", "held_out"), [(1, []), (2, [1]), (3, [2]), (9, [8]), (10, [9]), (19, [9]), (20, [9, 19]), (25, [9, 19])]
)
def test_of_a_class_one_in_ten_is_held_out_and_of_a_small_one_the_last(count, held_out, tmp_path):
    for index in range(count):
        _write(tmp_path / "source" / "a" / f"{index:02}.png", (index, 0, 0))
    data.prepare("small", tmp_path, source=tmp_path / "source")
    splits = {"test": held_out, "train": sorted({*range(count)} - {*held_out})}
    for split, expected in splits.items():
        if expected:
            assert sorted(data.load("small", split, tmp_path).pixels[:, 0, 0, 0].tolist()) == expected
    if not held_out:
        with pytest.raises(data.DataError, match=r"no split 'test', only train \(1\); parts of one are splits, too: "):
            data.load("small", "test", tmp_path)


def test_one_picture_in_colour_makes_all_of_them_so(source, tmp_path):
    Image.new("L", (8, 8), 100).save(source / "blue" / "00.png")
    (told,) = data.prepare("mixed", tmp_path, source=source)
    assert told.what == "in colour, for which all are kept in colour, 1 gray ones too"
    assert len(told.files) == 35
    images = data.load("mixed", "train", tmp_path)
    assert images.pixels.shape == (33, 8, 8, 3)
    found = {tuple(image[0, 0].tolist()) for image in images.pixels}
    assert found == {(100, 100, 100), *COLOURS.values()}


def _both(first, second):
    """A picture whose left half has one colour, and whose right half another."""
    image = Image.new("RGB", (8, 4), first)
    image.paste(second, (4, 0, 8, 4))
    return image


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    """Orientation 6: to be turned by a quarter clockwise, so that the left half comes to lie above."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "source" / "a" / "one.png"
    file.parent.mkdir(parents=True)
    _both("red", "blue").save(file, exif=exif)
    found = read_picture(file, None)
    assert found.shape == (8, 4, 3)
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[7, 3].tolist() == [0, 0, 255]


def test_what_is_transparent_lies_over_white(tmp_path):
    image = _both("red", "blue").convert("RGBA")
    image.putalpha(_both("white", "black").convert("L"))
    image.save(tmp_path / "layer.png")
    image.convert("RGB").quantize(4).save(tmp_path / "palette.png", transparency=b"\x00\xff\xff\xff")
    found = read_picture(tmp_path / "layer.png", None)
    assert [found[0, 0].tolist(), found[0, 7].tolist()] == [[255, 0, 0], [255, 255, 255]]
    assert [255, 255, 255] in read_picture(tmp_path / "palette.png", None).reshape(-1, 3).tolist()


def test_pixels_of_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(tmp_path / "deep.png")
    with pytest.raises(data.DataError, match=r"deep\.png does not read: its pixels have 16 bits, not 8"):
        read_picture(tmp_path / "deep.png", None)


def test_a_program_is_no_picture(tmp_path):
    """A PostScript file under a picture's name would otherwise be run to be drawn."""
    program = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "drawn.png").write_text(program)
    with pytest.raises(data.DataError, match=r"drawn\.png does not read: it is no PNG"):
        read_picture(tmp_path / "drawn.png", None)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    _write(tmp_path / "large.png", COLOURS["red"], (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(data.DataError, match=r"large\.png does not read: Image size"):
        read_picture(tmp_path / "large.png", None)


def test_a_corrupt_picture_is_named_and_refused_or_skipped(source, tmp_path):
    broken = source / "green" / "05.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(data.DataError, match=r"green/05\.png does not read"):
        data.prepare("colours", tmp_path, source=source)
    assert not data.is_prepared("colours", tmp_path)
    skipped = data.Remark("skipped as unreadable", (broken,))
    assert data.prepare("colours", tmp_path, source=source, on_corrupt="skip") == [skipped]
    assert np.bincount(data.load("colours", "train", tmp_path).label).tolist() == [11, 10, 11]


def test_an_empty_class_folder_is_refused(source, tmp_path):
    (source / "yellow").mkdir()
    with pytest.raises(data.DataError, match="yellow holds no picture"):
        data.prepare("colours", tmp_path, source=source)


def test_a_link_that_leads_out_is_refused(source, tmp_path):
    _write(tmp_path / "secret.png", (1, 2, 3))
    (source / "red" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(data.DataError, match=r"link\.png is a link that leads out"):
        data.prepare("colours", tmp_path, source=source)


def test_other_folders_are_refused(source, tmp_path):
    with pytest.raises(data.DataError, match="is not a folder"):
        data.prepare("colours", tmp_path, source=tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(data.DataError, match="holds no class folders"):
        data.prepare("colours", tmp_path, source=tmp_path / "bare")
    with pytest.raises(data.DataError, match="small letters"):
        data.prepare("../colours", tmp_path, source=source)
    _write(source / "train" / "red" / "a.png", COLOURS["red"])
    with pytest.raises(data.DataError, match="mixes split folders and class folders"):
        data.prepare("colours", tmp_path, source=source)


def test_splits_of_other_classes_are_refused(source, tmp_path):
    source.rename(tmp_path / "inner")
    (tmp_path / "both").mkdir()
    (tmp_path / "inner").rename(tmp_path / "both" / "train")
    _write(tmp_path / "both" / "test" / "red" / "a.png", COLOURS["red"])
    with pytest.raises(data.DataError, match="split test lacks some of the classes"):
        data.prepare("colours", tmp_path, source=tmp_path / "both")
