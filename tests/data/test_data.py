"""The digits as a tfds data set, and the order of examples."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
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
    assert train.num_classes == test.num_classes == 10


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


def test_folders_may_be_named_by_strings(data_dir, tmp_path):
    data.prepare("digits", str(tmp_path))
    assert data.is_prepared("digits", str(tmp_path))
    np.testing.assert_array_equal(
        data.load("digits", "test", str(tmp_path)).pixels, data.load("digits", "test", data_dir).pixels
    )


def test_preparing_in_a_notebook_is_silent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tensorflow_datasets.core.utils.py_utils.is_notebook", lambda: True)
    monkeypatch.setattr("tensorflow_datasets.core.utils.tqdm_utils._active", True)
    data.prepare("digits", tmp_path)
    assert capsys.readouterr() == ("", "")


def test_an_unprepared_set_is_refused_with_the_command_that_prepares_it(tmp_path):
    with pytest.raises(data.DataError, match=rf"experiments\.prepare cifar10 --data-dir {tmp_path}"):
        data.load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("split", ["validation", "train[:0]"])
def test_a_split_that_is_not_there_or_empty_is_refused(split, data_dir):
    with pytest.raises(data.DataError, match="split"):
        data.load("digits", split, data_dir)


def test_a_set_that_cannot_be_made_here_is_refused(tmp_path):
    with pytest.raises(data.DataError, match="knows no data set 'nothing'"):
        data.prepare("nothing", tmp_path)


def test_a_set_that_needs_tensorflow_says_so_at_once_with_its_address(tmp_path):
    with pytest.raises(data.DataError, match=r"pip install tensorflow.*cifar-10-binary\.tar\.gz"):
        data.prepare("cifar10", tmp_path)
    with pytest.raises(data.DataError, match=r"give --source, the folder of its idx files"):
        data.prepare("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "kmnist", "cifar10", "cifar100", "svhn_cropped"])
def test_an_unprepared_set_is_refused_with_its_address(name, tmp_path):
    with pytest.raises(data.DataError, match=rf"experiments\.prepare {name} .*made of http"):
        data.load(name, "train", tmp_path)


def test_other_sets_of_tfds_read_as_soon_as_they_lie_there(tmp_path):
    """A set of colour pictures written under the name of cifar10, as tfds itself would write it."""
    source = tmp_path / "source"
    for label in range(10):
        for index in range(3):
            (source / str(label)).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (20 * label, index, 7)).save(source / str(label) / f"{index}.png")
    data.prepare("cifar10", tmp_path, source=source)
    images = data.load("cifar10", "train", tmp_path)
    assert images.pixels.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(images.pixels[:, 4, 4, 0], 20 * images.label)


def test_records_of_another_format_are_refused(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    info = next((tmp_path / "copy").rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(data.DataError, match="written as tfrecord"):
        data.load("digits", "train", tmp_path / "copy")


def test_a_preparation_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path):
    folder = tmp_path / "digits" / "incomplete.ABC_1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert not data.is_prepared("digits", tmp_path)


def test_dequantised_levels_are_uniform_in_their_cells():
    keys = jax.random.split(jax.random.key(0), 4000)
    z = jax.vmap(lambda key: data.dequantise(key, jnp.array([0, 200, 255], jnp.uint8)))(keys)
    cells = (np.asarray(z) + 1) * 128 - np.array([[0, 200, 255]])
    assert cells.min() >= 0
    assert cells.max() <= 1
    np.testing.assert_allclose(cells.mean(axis=0), 0.5, atol=4 / np.sqrt(12 * 4000))
    np.testing.assert_allclose(cells.var(axis=0), 1 / 12, rtol=0.1)


def test_pixels_survive_scaling_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(data.to_pixels(data.normalize(pixels)), pixels)


def test_half_of_the_images_are_mirrored():
    image = jnp.arange(12.0).reshape(2, 3, 2)
    flipped = jax.vmap(lambda key: data.random_flip(key, image))(jax.random.split(jax.random.key(0), 1000))
    is_mirrored = np.all(np.asarray(flipped) == np.asarray(image[:, ::-1]), axis=(1, 2, 3))
    assert abs(is_mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(1000)
    np.testing.assert_array_equal(flipped[~is_mirrored], np.broadcast_to(image, flipped[~is_mirrored].shape))


def test_latents_are_mapped_and_checked(tmp_path):
    latent, label = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype(np.float16), np.arange(5)
    np.save(tmp_path / "latents.npy", latent)
    with pytest.raises(data.DataError, match=r"labels\.npy does not read"):
        data.open_latents(tmp_path)
    np.save(tmp_path / "labels.npy", label[:4])
    with pytest.raises(data.DataError, match=r"must be \(5,\) integers, got \(4,\)"):
        data.open_latents(tmp_path)
    np.save(tmp_path / "labels.npy", label)
    found = data.open_latents(tmp_path)
    assert isinstance(found.latent, np.memmap)
    np.testing.assert_array_equal(found.latent, latent)
    (tmp_path / "latents.npy").write_bytes(b"")
    with pytest.raises(data.DataError, match="does not read"):
        data.open_latents(tmp_path)
    np.save(tmp_path / "latents.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(data.DataError, match="does not read"):
        data.open_latents(tmp_path)


def test_a_stream_gives_the_batches_of_its_steps_wherever_it_starts():
    values = np.arange(50) ** 2
    read = lambda rows: values[rows]  # noqa: E731
    whole = list(data.prefetch(read, 3, range(12), 10, 50, num_threads=2))
    later = list(data.prefetch(read, 3, range(7, 12), 10, 50, num_threads=2))
    expected = [values[data.batch_indices(3, step, 10, 50)] for step in range(12)]
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(later, expected[7:])
    share = list(data.prefetch(read, 3, range(2), 10, 50, slice(5, 10), num_threads=2))
    np.testing.assert_array_equal(share, [batch[5:] for batch in expected[:2]])


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
