"""Stored embeddings beside pictures: each picture has its row, or there is one error."""

import io
import json
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies

from cfgjax import data
from tests.support.fuzzing import mutations, tries

safetensors_numpy = pytest.importorskip("safetensors.numpy")

VALUES = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
MASK = np.arange(4) < np.array([1, 4, 2, 3, 4])[:, np.newaxis]
NAMES = tuple(f"{index}.png" for index in (3, 0, 4, 1, 2))
WRITTEN = np.where(MASK[..., None], VALUES, 0)


def _write(file, arrays, save=np.savez):
    if file.suffix == ".npz":
        save(file, **arrays)
    else:
        names = arrays.get("file_name")
        metadata = None if names is None else {"file_name": json.dumps(list(names))}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name != "file_name"}
        safetensors_numpy.save_file(arrays, file, metadata)
    return file


def _images(count=5):
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    names = tuple(f"{index}.png" for index in range(count))
    return data.ConditionedImages(pixels, {"number": np.arange(count)}, {}, names, np.arange(count))


ALL = {"embeddings": VALUES, "mask": MASK, "file_name": np.array(NAMES)}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_embeddings_of_any_floating_type_come_back_in_float32(dtype, suffix, tmp_path):
    stored = VALUES.astype(dtype)
    file = _write(tmp_path / f"a{suffix}", ALL | {"embeddings": stored})
    if suffix == ".npz" and dtype is ml_dtypes.bfloat16:
        with pytest.raises(data.DataError, match=r"is of type \|V2, which does not say .*as NumPy writes bfloat16"):
            data.read_embeddings(file)
        return
    found = data.read_embeddings(file)
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, np.where(MASK[..., None], stored.astype(np.float32), 0))
    np.testing.assert_array_equal(found.mask, MASK)
    assert found.mask.dtype == bool
    assert found.file_name == NAMES


@pytest.mark.parametrize("change", [np.asfortranarray, lambda array: array.astype(array.dtype.newbyteorder(">"))])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_order_of_axes_and_bytes_is_the_files_own(save, change, tmp_path):
    file = _write(tmp_path / "a.npz", {name: change(array) for name, array in ALL.items()}, save)
    found = data.read_embeddings(file)
    np.testing.assert_array_equal(found.values, WRITTEN)
    assert found.file_name == NAMES


def test_a_mask_of_integers_and_what_it_leaves_out(tmp_path):
    """Padding may be NaN; it comes back as 0."""
    values = np.where(MASK[..., None], VALUES, np.nan)
    found = data.read_embeddings(_write(tmp_path / "a.npz", {"embeddings": values, "mask": MASK.astype(np.int64)}))
    np.testing.assert_array_equal(found.values, WRITTEN)
    np.testing.assert_array_equal(found.mask, MASK)
    assert found.file_name is None
    found = data.read_embeddings(_write(tmp_path / "a.npz", {"embeddings": VALUES[:, 0]}))
    assert found.values.shape == (5, 3)
    assert found.mask is None


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_each_picture_has_its_own_row_by_name_in_every_split(suffix, tmp_path):
    embeddings = data.read_embeddings(_write(tmp_path / f"a{suffix}", ALL))
    images = {"train": _images().take([4, 0, 2]), "test": _images()._replace(row=None).take([1, 3])}
    joined = data.join_embeddings(images, embeddings)
    for split, its in joined.items():
        rows = [NAMES.index(name) for name in its.file_name]
        np.testing.assert_array_equal(its.columns["embeddings"], WRITTEN[rows])
        np.testing.assert_array_equal(its.columns["mask"], MASK[rows])
        np.testing.assert_array_equal(its.columns["number"], images[split].columns["number"])
        assert list(images[split].columns) == ["number"]


def test_rows_without_names_are_those_of_the_source_in_order(tmp_path):
    embeddings = data.read_embeddings(_write(tmp_path / "a.npz", {"embeddings": VALUES, "mask": MASK}))
    images = {"train": _images().take([2, 0, 4]), "test": _images().take([1, 3])}
    joined = data.join_embeddings(images, embeddings)
    for its in joined.values():
        np.testing.assert_array_equal(its.columns["embeddings"], WRITTEN[its.columns["number"]])
        np.testing.assert_array_equal(its.columns["mask"], MASK[its.columns["number"]])
    taken = joined["test"].take([1])
    np.testing.assert_array_equal(taken.columns["embeddings"], WRITTEN[3:4])
    np.testing.assert_array_equal(taken.columns["mask"], MASK[3:4])
    later = {"train": _images(9).take([7, 3, 4, 5, 6])}
    joined = data.join_embeddings(later, embeddings)["train"]
    np.testing.assert_array_equal(joined.columns["embeddings"], WRITTEN[[4, 0, 1, 2, 3]])


@pytest.mark.parametrize(
    ("arrays", "images", "complaint"),
    [
        ({}, _images(6), "picture '5.png' has no row in the embeddings"),
        ({}, _images(4), "the embeddings have a row for '4.png', which is none of the pictures"),
        (
            {},
            _images()._replace(file_name=("0.png", "1.png", "2.png", "3.png", "0.png")),
            "picture '0.png' is there",
        ),
        ({"file_name": None}, _images(6), "the embeddings have 5 rows, and there are 6 pictures"),
        (
            {"file_name": None},
            _images()._replace(row=None),
            "another order than the pictures: embeddings need",
        ),
        ({}, _images()._replace(columns={"mask": np.zeros(5)}), "the images have a column 'mask' of their own"),
    ],
)
def test_rows_that_do_not_fit_the_pictures_are_named(arrays, images, complaint, tmp_path):
    arrays = {name: array for name, array in (ALL | arrays).items() if array is not None}
    embeddings = data.read_embeddings(_write(tmp_path / "a.npz", arrays))
    with pytest.raises(data.DataError, match=complaint):
        data.join_embeddings({"all": images}, embeddings)


NONE = np.zeros((5, 4), bool)
INFINITE = np.where(np.arange(5)[:, None, None] == 3, np.inf, VALUES)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"embeddings": None}, "has no array 'embeddings'"),
        ({"embeddings": VALUES.astype(np.int32)}, r"must be \[N, d\] or .* of a floating type.* got int32"),
        ({"embeddings": VALUES[0, 0]}, r"must be \[N, d\] or .*got float32 of shape \(3,\)"),
        ({"embeddings": VALUES[:, :0]}, r"none of them 0, got float32 of shape \(5, 0, 3\)"),
        ({"embeddings": INFINITE.astype(np.float32)}, "row 3 of embeddings is not finite in float32"),
        ({"embeddings": VALUES.astype(np.float64) * 1e300}, "row 0 of embeddings is not finite in float32"),
        ({"mask": MASK[:4]}, r"mask must be \[N, length\] beside embeddings \(5, 4, 3\), got shape \(4, 4\)"),
        ({"mask": VALUES[..., 0]}, r"mask must be of booleans, or integers 0 and 1, got float32"),
        ({"mask": MASK * 2}, r"mask must be of booleans, or integers 0 and 1, got int64"),
        ({"mask": MASK & (np.arange(5) != 2)[:, None]}, "mask leaves no token in row 2"),
        ({"embeddings": VALUES[:, 0]}, r"mask must be \[N, length\] beside embeddings \(5, 3\)"),
        ({"file_name": np.array(NAMES[:4])}, "file_name must be 5 paths as text, got 4"),
        ({"file_name": np.array((*NAMES[:4], "0.png"))}, "file_name '0.png' stands in rows 1 and 4"),
    ],
)
def test_arrays_that_are_wrong_are_named_in_one_line(changes, complaint, suffix, tmp_path):
    arrays = {name: array for name, array in (ALL | changes).items() if array is not None}
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.read_embeddings(_write(tmp_path / f"a{suffix}", arrays))
    assert "\n" not in str(caught.value)


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def _zip(**contents):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _promising(shape):
    """A file whose header says what it should not."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 240


def _bomb():
    """A thousandth of what it says it holds, which is no more than it holds."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings.npy", _promising((5, 4, 3)) + b"\0" * 2**24)
    return stream.getvalue()


def _lying():
    """A zip that says that the array is as long as its header promises, and unpacks to more."""
    content = _bomb()
    full, said = struct.pack("<I", 2**24 + len(_promising((5, 4, 3)))), struct.pack("<I", len(_promising((5, 4, 3))))
    assert content.count(full) == 2
    return content.replace(full, said)


def _twice():
    content = _zip(embeddings=_npy(VALUES), embedding_=_npy(VALUES))
    return content.replace(b"embedding_.npy", b"embeddings.npy")


def _objects():
    stream = io.BytesIO()
    np.savez(stream, embeddings=np.array([VALUES[0], VALUES[0, :2], _Harmful()], object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "does not read"),
        (pickle.dumps(_Harmful()), "does not read: File is not a zip file"),
        (_npy(VALUES), "does not read: File is not a zip file"),
        (_objects(), "array 'embeddings' of .* does not read: it is of type object"),
        (_zip(embeddings=_npy(VALUES)[:-1]), "it holds 239 bytes of numbers, not the 240"),
        (_zip(embeddings=_npy(VALUES) + b"\0"), "it holds 241 bytes of numbers, not the 240"),
        (_zip(embeddings=_promising((9223372036854775807, 9, 9))), "it holds 240 bytes of numbers, not the"),
        (_zip(embeddings=_promising((-5, 4, 3))), "no array of numbers"),
        (_zip(embeddings=b"\x80\x04."), "does not read"),
        (
            _zip(embeddings=_npy(VALUES), file_name=_npy(np.array([1, 2, 3, 4, 5]))),
            "must be 5 paths as text",
        ),
        (_zip(embeddings=_npy(VALUES), file_name=_npy(np.full(5, 0x110000, "<u4")).replace(b"<u4", b"<U1")), "Unicode"),
        (_zip(embeddings=_npy(VALUES), file_name=_npy(np.array("0.png"))), "must be 5 paths as text"),
        (_zip(embeddings=_npy(VALUES), file_name=_npy(np.zeros(0, "U3"))), "must be 5 paths as text"),
        (_twice(), "array 'embeddings' stands there twice"),
        (_bomb(), "it holds 16777456 bytes of numbers, not the 240"),
        (_lying(), "does not read: "),
        (_zip(**{f"a{index}": b"" for index in range(1001)}), "it holds 1001 arrays, more than 1000"),
    ],
)
def test_what_is_no_archive_of_arrays_is_refused_and_runs_nothing(content, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(data.DataError, match=complaint) as caught:
        data.read_embeddings(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


def test_other_tensors_are_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    header = b'{"embeddings":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]}}'
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(data.DataError, match=r"a\.safetensors does not read: tensor 'embeddings' is of type F8_E4M3"):
        data.read_embeddings(file)
    file.write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(data.DataError, match=r"a\.safetensors does not read: "):
        data.read_embeddings(file)
    for names in ('["a", 1, "b", "c", "d"]', '{"a": 1}', '"a"', "[", '[["a"]]'):
        safetensors_numpy.save_file({"embeddings": VALUES}, file, {"file_name": names})
        with pytest.raises(data.DataError, match=r"a\.safetensors"):
            data.read_embeddings(file)
    with pytest.raises(data.DataError, match=r"a\.pt must end in \.npz or \.safetensors"):
        data.read_embeddings(tmp_path / "a.pt")


def test_files_that_lie_elsewhere_or_beyond_memory_are_refused(tmp_path, monkeypatch):
    for suffix in (".npz", ".safetensors"):
        file = _write(tmp_path / f"a{suffix}", ALL)
        (tmp_path / "inside").mkdir(exist_ok=True)
        (tmp_path / "inside" / file.name).symlink_to(file)
        with pytest.raises(data.DataError, match="is a link that leads out"):
            data.read_embeddings(tmp_path / "inside" / file.name)
        assert data.read_embeddings(tmp_path / "inside" / file.name, root=tmp_path).file_name == NAMES
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(data.DataError, match=r"a\.npz: array 'embeddings\.npy' would take 240 bytes, more than"):
        data.read_embeddings(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@tries(150)
@given(draws=strategies.data())
def test_a_damaged_file_gives_finite_numbers_of_its_shape_or_one_error(suffix, draws, tmp_path_factory):
    file = _write(tmp_path_factory.mktemp("damaged") / f"a{suffix}", ALL)
    file.write_bytes(draws.draw(mutations(file.read_bytes())))
    try:
        found = data.read_embeddings(file)
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    assert np.isfinite(found.values).all()
    assert found.mask is None or found.mask.shape == found.values.shape[:2]
    assert found.file_name is None or len(found.file_name) == len(found.values)
