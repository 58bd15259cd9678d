"""The digits as a tfds data set, and the order of examples."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cfgjax import data


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    data.prepare("digits", folder)
    return folder


def test_every_digit_comes_back_as_scikit_learn_ships_it(data_dir):
    digits = load_digits()
    back = [data.load("digits", split, data_dir) for split in ("train", "test")]
    assert [len(images.label) for images in back] == [1437, 360]
    images = np.concatenate([images.image for images in back])
    whole = np.round((images + 1) * 8).astype(int).reshape(-1, 64)
    found = sorted((*row, label) for row, label in zip(whole.tolist(), _labels(back), strict=True))
    shipped = sorted((*row, label) for row, label in zip(digits.data.astype(int).tolist(), digits.target, strict=True))
    assert found == shipped


def _labels(splits):
    return np.concatenate([images.label for images in splits]).tolist()


def test_no_image_is_in_both_splits(data_dir):
    train, test = (data.load("digits", split, data_dir) for split in ("train", "test"))
    digits = load_digits()
    last = digits.images[1437:].reshape(360, -1)
    held_out = np.round((test.image + 1) * 8).reshape(360, -1)
    assert sorted(map(tuple, held_out.tolist())) == sorted(map(tuple, last.tolist()))
    assert train.num_labels == test.num_labels == 10


def test_images_are_scaled_to_minus_one_and_one(data_dir):
    images = data.load("digits", "train", data_dir)
    assert images.image.shape == (1437, 8, 8, 1)
    assert images.image.min() == -1
    assert images.image.max() == 1


def test_preparing_twice_writes_once(data_dir):
    before = {file: file.stat().st_mtime_ns for file in data_dir.rglob("*.array_record*")}
    data.prepare("digits", data_dir)
    assert before
    assert before == {file: file.stat().st_mtime_ns for file in data_dir.rglob("*.array_record*")}


def test_an_unprepared_set_is_refused_with_the_command_that_prepares_it(tmp_path):
    with pytest.raises(data.DataError, match=rf"experiments\.prepare cifar10 --data-dir {tmp_path}"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("split", ["validation", "train[:0]"])
def test_a_split_that_is_not_there_or_empty_is_refused(split, data_dir):
    with pytest.raises(data.DataError, match="split"):
        data.load("digits", split, data_dir)


def test_a_set_that_cannot_be_made_here_is_refused(tmp_path):
    with pytest.raises(data.DataError, match="known: digits"):
        data.prepare("nothing", tmp_path)


def test_every_epoch_visits_every_example_once():
    for epoch in range(3):
        steps = range(epoch * 4, epoch * 4 + 4)
        visited = np.concatenate([data.batch_indices(7, step, 5, 20) for step in steps])
        assert sorted(visited.tolist()) == list(range(20))


def test_epochs_and_seeds_differ_and_a_step_repeats_itself():
    first = data.batch_indices(0, 0, 50, 50)
    assert not np.array_equal(first, data.batch_indices(0, 1, 50, 50))
    assert not np.array_equal(first, data.batch_indices(1, 0, 50, 50))
    np.testing.assert_array_equal(first, data.batch_indices(0, 0, 50, 50))


@pytest.mark.parametrize("batch_size", [0, -1, 21])
def test_a_batch_that_the_set_cannot_fill_is_refused(batch_size):
    with pytest.raises(ValueError, match=r"batch_size must be in 1\.\.20"):
        data.batch_indices(0, 0, batch_size, 20)
