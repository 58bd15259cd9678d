"""Untrusted latents: arrays of numbers mapped from plain .npy files, or one error."""

import io
import os
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies

from cfgjax import data
from tests.support.fuzzing import mutations, tries

LATENT = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype(np.float16)
LABEL = np.arange(5)


def _npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder of five latents."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "latents.npy").write_bytes(_npy(LATENT))
    (tmp_path / "mine" / "labels.npy").write_bytes(_npy(LABEL))
    return tmp_path / "mine"


@pytest.mark.parametrize("name", ["latents.npy", "labels.npy"])
@tries(250)
@given(source=strategies.data())
def test_a_damaged_file_gives_finite_numbers_of_its_shape_or_one_error(name, source, tmp_path_factory):
    """The format has no check sums: a byte among the numbers is another number."""
    folder = tmp_path_factory.mktemp("latents")
    contents = {"latents.npy": _npy(LATENT), "labels.npy": _npy(LABEL)}
    contents[name] = source.draw(mutations(contents[name]))
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    try:
        found = data.open_latents(folder)
        latent, label = found.rows(np.arange(len(found.label)))
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    assert latent.shape == found.latent.shape
    assert latent.ndim == 4
    assert label.shape == latent.shape[:1]
    assert np.isfinite(latent).all()


def _headed(text, version=1):
    """A file whose header says what it should not."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + b"\0" * 240


def _archive():
    stream = io.BytesIO()
    np.savez(stream, latents=LATENT)
    return stream.getvalue()


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "."),
        (_archive(), "magic string"),
        (pickle.dumps(_Harmful()), "magic string"),
        (_npy(np.array([_Harmful()] * 5), allow_pickle=True), "type object"),
        (_npy(np.zeros(5, [("a", "f4"), ("b", "f4")])), "no array of numbers"),
        (_npy(LATENT)[:-1], "it holds 239 bytes of numbers, not the 240"),
        (_npy(LATENT) + b"\0", "it holds 241 bytes of numbers, not the 240"),
        (_npy(LATENT[:0]), "it is empty"),
        (_npy(LATENT.astype(complex)), "of a floating type"),
        (_npy(LATENT.reshape(5, -1)), "must be"),
        (_npy(LATENT.astype("S2")), "of a floating type"),
        (
            _headed("{'descr': '<f2', 'fortran_order': False, 'shape': (9223372036854775807, 9, 9, 9)}\n"),
            "it holds 240",
        ),
        (_headed("{'descr': '<f2', 'fortran_order': False, 'shape': (-5, 4, 3, -2)}\n"), "no array of numbers"),
        (_headed("{'descr': '<f2', 'fortran_order': False, 'shape': (True, 4, 3, 10)}\n"), "no array of numbers"),
        (_headed("{'descr': '<f2', 'fortran_order': False, 'shape': (5.0, 4, 3, 2)}\n"), "shape"),
        (_headed("{'descr': '|O', 'fortran_order': False, 'shape': (5,)}\n"), "type object"),
        (_headed("{'descr': __import__('os').mkdir('harmed')}\n"), "."),
        (_headed("(" * 9000), "."),
        (_headed("[" * 20000), "its header has 20000 bytes"),
        (_headed(" " * 100_000, version=2), "its header has 100000 bytes"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header has 4294967295 bytes"),
        (b"\x93NUMPY\x07\x00", "of version"),
    ],
)
def test_what_is_no_plain_array_is_refused_and_runs_nothing(content, complaint, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "latents.npy").write_bytes(content)
    with pytest.raises(data.DataError, match=f"latents.npy.*{complaint}") as caught:
        data.open_latents(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "harmed").exists()


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        (
            "latents.npy",
            LATENT.astype(ml_dtypes.bfloat16),
            r"is of type \|V2, which does not say its numbers, as NumPy writes bfloat16 and float8: "
            r"save array\.view\(ml_dtypes\.bfloat16\)\.astype\(np\.float32\)",
        ),
        ("latents.npy", LATENT.astype(ml_dtypes.float8_e4m3fn), r"is of type \|V1, which does not say"),
        ("latents.npy", (LATENT * 9).astype(np.int8), r"must be of a floating type, got int8: save array"),
        ("latents.npy", LATENT.reshape(5, -1), r"must be \[n, H, W, C\], got shape \(5, 24\)$"),
        (
            "labels.npy",
            LABEL.astype(np.float32),
            r"must be integers, got type float32: save .*astype\(np\.int64\)",
        ),
        ("labels.npy", LABEL > 2, r"must be integers, got type bool"),
        ("labels.npy", LABEL.reshape(5, 1), r"must be \(5,\) integers, got \(5, 1\): save labels\[:, 0\]$"),
        (
            "labels.npy",
            np.eye(5, dtype=np.int64),
            r"must be \(5,\) integers, got \(5, 5\): save labels\.argmax\(axis=1\) if",
        ),
    ],
)
def test_what_is_wrong_is_named_type_or_shape(name, array, complaint, folder):
    """A bfloat16 array of ml_dtypes 0.6.0, saved by NumPy 2.4.6, comes back as bare bytes, of type |V2."""
    (folder / name).write_bytes(_npy(array))
    with pytest.raises(data.DataError, match=f"{name} {complaint}"):
        data.open_latents(folder)


def test_the_spread_of_each_channel_is_that_of_the_numbers(folder):
    """Of rows enough all are looked at, so that the numbers are exact; of more a sample, the same at each time."""
    generator = np.random.default_rng(1)
    latent = generator.normal([1, -2], [0.5, 3], (400, 4, 3, 2)).astype(np.float32)
    (folder / "latents.npy").write_bytes(_npy(latent))
    (folder / "labels.npy").write_bytes(_npy(np.zeros(400, np.int64)))
    found = data.open_latents(folder).spread()
    np.testing.assert_allclose(found.mean, latent.mean(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, latent.std(axis=(0, 1, 2), dtype=np.float64), rtol=1e-6)
    part = data.open_latents(folder).spread(most_rows=100)
    np.testing.assert_array_equal(part.mean, data.open_latents(folder).spread(most_rows=100).mean)
    assert 0 < abs(part.mean[1] + 2) < 4 * 3 / np.sqrt(100 * 12)


def test_the_order_of_axes_and_bytes_is_the_files_own(folder):
    (folder / "latents.npy").write_bytes(_npy(np.asfortranarray(LATENT).astype(">f2")))
    latent, label = data.open_latents(folder).rows(np.array([3, 0]))
    np.testing.assert_array_equal(latent, LATENT[[3, 0]].astype(np.float32))
    assert label.tolist() == [3, 0]


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "f2"), (np.inf, "f4"), (1e300, "f8")])
def test_a_latent_that_is_not_finite_is_named_where_it_is_read(value, kind, folder):
    latent = LATENT.astype(kind)
    latent[3, 1, 1, 1] = value
    (folder / "latents.npy").write_bytes(_npy(latent))
    found = data.open_latents(folder)
    assert np.isfinite(found.rows(np.array([0, 4]))[0]).all()
    with pytest.raises(data.DataError, match=r"row 3 of latents\.npy is not finite"):
        found.rows(np.array([4, 3]))


@pytest.mark.parametrize("name", ["latents.npy", "labels.npy"])
def test_links_that_lead_out_and_pipes_are_refused(name, folder):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.open_latents(folder)
    assert len(data.open_latents(folder, folder.parent).label) == 5
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(data.DataError, match="not a regular file"):
        data.open_latents(folder)


def _beside(folder, **arrays):
    """Arrays beside the latents."""
    for name, array in arrays.items():
        (folder / f"{name}.npy").write_bytes(_npy(array))


def test_what_lies_beside_the_latents_is_read_with_them(folder):
    _beside(folder, deviations=np.abs(LATENT), flipped=-LATENT, flipped_deviations=2 * np.abs(LATENT))
    views, label = data.open_latents(folder).views(np.array([3, 0]))
    rows = LATENT[[3, 0]].astype(np.float32)
    for found, expected in zip(views, (rows, np.abs(rows), -rows, 2 * np.abs(rows)), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert label.tolist() == [3, 0]
    spread = data.open_latents(folder).spread()
    numbers = LATENT.astype(np.float64).reshape(-1, 2)
    np.testing.assert_allclose(spread.mean, 0, atol=1e-12)
    expected = np.square(numbers).mean(axis=0) * (1 + (1 + 4) / 2)
    np.testing.assert_allclose(np.square(spread.deviation), expected, rtol=1e-9)


ROOM = np.ones(LATENT.shape, np.float32)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"deviations": ROOM[:4]}, r"deviations.npy has shape \(4, 4, 3, 2\), latents.npy \(5, 4, 3, 2\)"),
        ({"flipped": ROOM[..., :1]}, r"flipped.npy has shape \(5, 4, 3, 1\), latents.npy"),
        ({"flipped": ROOM.astype(np.int32)}, "flipped.npy must be of a floating type, got int32"),
        (
            {"flipped": ROOM, "deviations": ROOM},
            "flipped_deviations.npy is missing beside deviations.npy and flipped.npy",
        ),
        ({"flipped_deviations": ROOM}, "flipped_deviations.npy needs deviations.npy and flipped.npy"),
        ({"flipped_deviations": ROOM, "flipped": ROOM}, "flipped_deviations.npy needs deviations.npy and flipped.npy"),
    ],
)
def test_what_lies_beside_the_latents_must_fit(arrays, complaint, folder):
    _beside(folder, **arrays)
    with pytest.raises(data.DataError, match=complaint):
        data.open_latents(folder)


@pytest.mark.parametrize("value", [np.nan, -0.5])
@pytest.mark.parametrize("name", ["deviations", "flipped_deviations"])
def test_deviations_that_are_none_are_named_by_their_row(name, value, folder):
    _beside(folder, flipped=ROOM, deviations=ROOM, flipped_deviations=ROOM)
    wrong = ROOM.copy()
    wrong[2, 0, 0, 1] = value
    _beside(folder, **{name: wrong})
    found = data.open_latents(folder)
    found.views(np.array([0, 1]))
    said = "has a negative deviation" if value < 0 else "is not finite"
    with pytest.raises(data.DataError, match=f"row 2 of {name}.npy {said}"):
        found.views(np.array([4, 2]))
    with pytest.raises(data.DataError, match=f"row 2 of {name}.npy {said}"):
        found.statistics()
