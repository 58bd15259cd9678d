"""The MNIST family from idx files: the real Fashion-MNIST where it is installed, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cfgjax import data
from tests.support.pictures import idx_bytes, stripes, write_family, write_idx

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_all_of_fashion_mnist_comes_back_as_its_files_have_it(tmp_path):
    """Count, shapes, histogram, every label's pixels in sum, and three images to the byte, all without TensorFlow."""
    data.prepare("fashion_mnist", tmp_path, source=DEBIAN)
    train, test = (data.load("fashion_mnist", split, tmp_path) for split in ("train", "test"))
    assert train.pixels.shape == (60_000, 28, 28, 1)
    assert test.pixels.shape == (10_000, 28, 28, 1)
    assert np.bincount(train.label).tolist() == [6_000] * 10
    assert np.bincount(test.label).tolist() == [1_000] * 10
    raw = gzip.decompress((DEBIAN / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((DEBIAN / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    found = {(image.tobytes(), int(label)) for image, label in zip(train.pixels, train.label, strict=True)}
    for index in (0, 12_345, 59_999):
        assert (raw[16 + 784 * index : 16 + 784 * (index + 1)], labels[index]) in found
    assert train.pixels.sum(dtype=np.int64) == np.frombuffer(raw, np.uint8)[16:].sum(dtype=np.int64)
    names = tfds.builder("fashion_mnist", data_dir=str(tmp_path)).info.features["label"].names
    assert names[9] == "Ankle boot"


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_the_family_shares_one_form(name, tmp_path):
    data.prepare(name, tmp_path, source=write_family(tmp_path / "source"))
    images = data.load(name, "test", tmp_path)
    expected, labels = stripes(160, 1)
    found = sorted((image.tobytes(), int(label)) for image, label in zip(images.pixels, images.label, strict=True))
    assert found == sorted((image.tobytes(), int(label)) for image, label in zip(expected, labels, strict=True))


def test_emnist_takes_its_configuration_from_the_name(tmp_path):
    for split, seed in (("train", 0), ("test", 1)):
        write_idx(tmp_path / "source", f"emnist-digits-{split}", *stripes(40, seed))
    data.prepare("emnist/digits", tmp_path, source=tmp_path / "source")
    assert data.load("emnist/digits", "train", tmp_path).num_classes == 10


def test_rows_and_columns_are_exchanged_on_request_and_said(tmp_path):
    """EMNIST's files hold its pictures transposed, as the description in tensorflow-datasets 4.9.10 says."""
    images, labels = stripes(40, 0)
    for split in ("train", "test"):
        write_idx(tmp_path / "source", f"emnist-digits-{split}", images.swapaxes(1, 2), labels)
    found = {}
    for transpose in (False, True):
        folder = tmp_path / str(transpose)
        data.prepare("emnist/digits", folder, source=tmp_path / "source", transpose=transpose)
        found[transpose] = data.load("emnist/digits", "train", folder)
        said = next(folder.rglob("dataset_info.json")).read_text()
        assert ("rows and columns of its pictures exchanged" in said) is transpose
    upright = {image.tobytes() for image in images}
    assert {image.tobytes() for image in found[True].pixels} == upright
    np.testing.assert_array_equal(found[False].pixels.swapaxes(1, 2), found[True].pixels)


def test_only_idx_files_are_transposed(tmp_path):
    with pytest.raises(data.DataError, match="transpose is for idx files"):
        data.prepare("digits", tmp_path, transpose=True)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_spelling_with_a_dot_is_found(suffix, tmp_path):
    """The original one, which unpacked files of Kaggle have, beside folders of the other spelling."""
    source = write_family(tmp_path / "source", 20, 20)
    for file in list(source.iterdir()):
        content = file.read_bytes()
        file.unlink()
        file.with_suffix("").mkdir()
        name = file.with_suffix("").name.replace("-idx", ".idx") + suffix
        (source / name).write_bytes(content if suffix else gzip.decompress(content))
    data.prepare("mnist", tmp_path, source=source)
    assert len(data.load("mnist", "train", tmp_path).label) == 20


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("train-images-idx3-ubyte.gz", "idx, read under the names mnist"),
        ("qmnist-train-labels-idx2-int.gz", "idx, read under the names mnist"),
        ("bloodmnist.npz", "NumPy's arrays"),
        ("train_32x32.mat", "MATLAB's arrays"),
        ("data_batch_1.bin", "bare bytes"),
        ("train.tar", "an archive"),
        ("labels.npy", "a NumPy array"),
    ],
)
def test_a_set_in_another_form_is_told_the_way(name, form, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / name).write_bytes(b"")
    expected = rf"but {name} \({form}.*\): write its pictures as SOURCE/CLASS/0\.png and so on"
    for source in (tmp_path / "source", tmp_path / "source" / name):
        with pytest.raises(data.DataError, match=expected):
            data.prepare("mine", tmp_path, source=source)


def test_latents_as_a_source_are_told_the_way(tmp_path):
    (tmp_path / "latents.npy").write_bytes(b"")
    with pytest.raises(
        data.DataError, match=r"but latents\.npy: latents are read from a folder of latents\.npy and labels\.npy"
    ):
        data.prepare("mine", tmp_path / "data", source=tmp_path)


@pytest.mark.parametrize("name", ["emnist", "emnist/nothing", "mnist/digits"])
def test_a_configuration_that_is_not_there_is_refused(name, tmp_path):
    with pytest.raises(data.DataError, match="no such configuration"):
        data.prepare(name, tmp_path, source=write_family(tmp_path / "source"))


def test_an_idx_file_reads_in_gzip_and_plain(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("plain", "packed.gz"):
        np.testing.assert_array_equal(data.read_idx(tmp_path / name), array)


GOOD = idx_bytes(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "does not read"),
        (b"\x89PNG" + GOOD, "not an idx file"),
        (b"\x00\x00\x0d" + GOOD[3:], "not an idx file"),
        (GOOD[:-1], "fewer than the 6 bytes"),
        (GOOD + b"\x00", "more than the 6 bytes"),
        (GOOD[:6], "does not read"),
    ],
)
def test_a_file_that_is_no_idx_file_is_refused(content, complaint, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(data.DataError, match=complaint):
        data.read_idx(file)


def test_a_broken_archive_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "broken.gz").write_bytes(gzip.compress(GOOD)[:-9])
    packed = bytearray(gzip.compress(GOOD))
    packed[12] ^= 0xFF
    (tmp_path / "flipped.gz").write_bytes(packed)
    for name in ("broken.gz", "flipped.gz", "missing.gz"):
        with pytest.raises(data.DataError, match=name):
            data.read_idx(tmp_path / name)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    source = write_family(tmp_path / "source")
    write_idx(source, "t10k", stripes(20, 1)[0], stripes(30, 1)[1])
    with pytest.raises(data.DataError, match="t10k do not match"):
        data.prepare("mnist", tmp_path, source=source)
    write_idx(source, "t10k", stripes(20, 1)[0], np.full(20, 10))
    with pytest.raises(data.DataError, match=r"label 10, of 0\.\.9"):
        data.prepare("mnist", tmp_path, source=source)
    write_idx(source, "t10k", np.zeros((0, 28, 28)), np.zeros(0))
    with pytest.raises(data.DataError, match="t10k holds no images"):
        data.prepare("mnist", tmp_path, source=source)
    (source / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataError, match="holds no train-labels-idx1-ubyte"):
        data.prepare("mnist", tmp_path, source=source)
    assert not data.is_prepared("mnist", tmp_path)
