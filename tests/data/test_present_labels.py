"""Labels without an example: EMNIST's letters have 37 labels, of which 26 have pictures."""

import numpy as np
import pytest
from PIL import Image

from cfgjax import data
from cfgjax.data.split import _AT_ONCE, Record
from tests.support.pictures import write_idx


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """EMNIST's letters, as tensorflow-datasets 4.9.10 declares them: labels 0..36, and its files' 1..26."""
    folder = tmp_path_factory.mktemp("letters")
    for split, number in (("train", 53), ("test", 26)):
        images = np.random.default_rng(0).integers(0, 256, (number, 28, 28))
        write_idx(folder / "source", f"emnist-letters-{split}", images, np.arange(number) % 26 + 1)
    data.prepare("emnist/letters", folder, source=folder / "source")
    return folder


def test_labels_without_a_picture_are_told_apart(data_dir):
    train = data.open_split("emnist/letters", "train", data_dir)
    assert train.num_classes == 37
    assert data.present_labels(train).tolist() == list(range(1, 27))
    assert data.label_counts(train).tolist() == [0, 3, *[2] * 25, *[0] * 10]
    np.testing.assert_array_equal(
        np.concatenate(list(train.labels())), data.load("emnist/letters", "train", data_dir).label
    )


def test_a_part_of_a_split_has_its_own_labels(data_dir):
    part = data.open_split("emnist/letters", "train[:5]", data_dir)
    label = data.load("emnist/letters", "train[:5]", data_dir).label
    assert data.present_labels(part).tolist() == sorted(set(label.tolist()))


def test_reading_ends_where_all_labels_are_found(monkeypatch):
    read = []

    class Raw:
        def __len__(self):
            return 10 * _AT_ONCE

        def __getitems__(self, indices):
            read.extend(indices)
            return indices

    source = data.Split("split", Raw(), [], (8, 8, 1), 5)
    monkeypatch.setattr("cfgjax.data.split.parse", lambda index: Record(b"", index // 300 % 5))
    assert data.present_labels(source).tolist() == [0, 1, 2, 3, 4]
    assert len(read) == 2 * _AT_ONCE


def test_a_class_whose_pictures_do_not_read_has_no_examples(tmp_path):
    for name, count in (("a", 2), ("b", 1), ("c", 1)):
        for index in range(count):
            (tmp_path / "source" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (6, 6), index).save(tmp_path / "source" / name / f"{index}.png")
    (tmp_path / "source" / "c" / "0.png").write_bytes(b"")
    data.prepare("mine", tmp_path, source=tmp_path / "source", on_corrupt="skip")
    assert data.present_labels(data.open_split("mine", "train", tmp_path)).tolist() == [0, 1]
