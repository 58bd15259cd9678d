"""Images with what is said of them, written as a folder: what is read of it is what was written."""

import json

import numpy as np
import pytest

from cfgjax import data

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)
TEXTS = ("a", "", 'quoted "b"\nof two lines', "\u732b", " spaces ")
EMBEDDINGS = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
MASK = np.array([[1, 0], [1, 1], [1, 1], [1, 0], [1, 1]], bool)


def _images(rows=slice(None), **more):
    columns = {
        "text": TEXTS[rows], "count": np.array([3, -1, 0, 7, 2**31 - 1], np.int32)[rows],
        "share": np.array([0.1, 1.0, -2.5e-7, 1e38, 3.0], np.float32)[rows],
        "label": np.array([1, 0, 1, 1, 0], np.int32)[rows], **{name: each[rows] for name, each in more.items()},
    }  # fmt: skip
    names = tuple(f"of_{index}.jpg" for index in range(5))[rows]
    return data.ConditionedImages(PIXELS[rows], columns, {"label": ("cat", "dog")}, names, None)


def _assert_same(found, written):
    np.testing.assert_array_equal(found.pixels, written.pixels)
    assert found.columns.keys() == written.columns.keys()
    for name, column in written.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)
        if isinstance(column, np.ndarray):
            assert found.columns[name].dtype == column.dtype
    assert found.class_names == written.class_names


def test_what_is_read_is_what_was_written(tmp_path):
    written = {"train": _images(slice(3)), "test": _images(slice(3, 5))}
    data.write_metadata_folder(tmp_path, written)
    lines = (tmp_path / "train" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"file_name": "00000.png", "text": "a", "count": 3, "share": 0.1, "label": "dog"}
    found, remarks = data.read_metadata_folder(tmp_path)
    assert remarks == []
    assert found.keys() == written.keys()
    for split, its in written.items():
        _assert_same(found[split], its)
        assert found[split].file_name == tuple(f"{split}/{index:05}.png" for index in range(len(its.pixels)))


def test_stored_embeddings_are_found_again_by_the_names_of_the_pictures(tmp_path):
    written = {
        "train": _images(slice(3), embeddings=EMBEDDINGS, mask=MASK),
        "test": _images(slice(3, 5), embeddings=EMBEDDINGS, mask=MASK),
    }
    data.write_metadata_folder(tmp_path, written)
    images, _ = data.read_metadata_folder(tmp_path)
    found = data.join_embeddings(images, data.read_embeddings(tmp_path / "embeddings.npz"))
    for split, its in written.items():
        np.testing.assert_array_equal(found[split].columns["mask"], its.columns["mask"])
        there = its.columns["mask"][..., np.newaxis]
        np.testing.assert_array_equal(found[split].columns["embeddings"], np.where(there, its.columns["embeddings"], 0))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"file_name": TEXTS}, "the images have a column 'file_name' of their own"),
        ({"long": ("x",) * 4 + ("x" * 2**20,)}, "of_4.jpg: what is said of it holds more than 1048576 bytes"),
    ],
)
def test_what_no_metadata_can_hold_is_refused(column, message, tmp_path):
    with pytest.raises(data.DataError, match=message):
        data.write_metadata_folder(tmp_path, {"train": _images(**column)})


def test_a_folder_with_metadata_is_told_from_others(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "metadata.csv").write_text("file_name\n")
    assert not data.holds_metadata(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.jsonl").write_text("")
    assert data.holds_metadata(tmp_path)
    assert data.holds_metadata(tmp_path / "cat")
    assert not data.holds_parquet(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(b"")
    assert data.holds_parquet(tmp_path)
    assert data.holds_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(data.DataError, match=r"train.parquet: pictures in Parquet are read by data.read_parquet"):
        data.prepare("mine", tmp_path / "prepared", tmp_path / "data")
