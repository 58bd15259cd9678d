"""Reference batches of FID: what a file tells, pictures in parts, and files that are refused by name."""

import pickle
import zipfile

import numpy as np
import pytest

from cfgjax import data

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (7, 4, 5, 3), np.uint8)
LAW = {"mu": RNG.normal(size=3), "sigma": np.eye(3)}
SPATIAL = {"mu_s": RNG.normal(size=2).astype(np.float32), "sigma_s": np.diag([1.0, 2.0]).astype(np.float32)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_statistics_and_pictures_of_a_file(save, tmp_path):
    file = tmp_path / "reference.npz"
    save(file, arr_0=PICTURES, labels=np.arange(7), **LAW, **SPATIAL)
    found = data.read_fid_reference(file)
    for pair, arrays in ((found.pool, LAW), (found.spatial, SPATIAL)):
        assert [each.dtype for each in pair] == [np.float64] * 2
        assert all(np.array_equal(*each) for each in zip(pair, arrays.values(), strict=True))
    parts = list(data.stream_pictures(file, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate(parts), PICTURES)


def test_what_a_file_does_not_tell_is_none(tmp_path):
    file = tmp_path / "reference.npz"
    np.savez(file, **LAW)
    assert data.read_fid_reference(file).spatial is None
    with pytest.raises(data.DataError, match=r"array 'arr_0' of .*reference.npz does not read: there is none"):
        data.stream_pictures(file, 3)
    np.savez(file, PICTURES)
    assert data.read_fid_reference(file) == (None, None)


REFUSED = {
    "no partner": (LAW | {"mu_s": np.ones(2)}, r"has an array 'mu_s' without the other of 'mu_s' and 'sigma_s'"),
    "another shape": (LAW | {"sigma": np.eye(2)}, r"'mu' and 'sigma' must be \[d\] and \[d, d\], got \(3,\)"),
    "not finite": (LAW | {"mu": np.full(3, np.nan)}, r"array 'mu' must hold finite floating-point numbers"),
    "integers": (LAW | {"sigma": np.eye(3, dtype=int)}, r"'sigma' must hold finite floating-point numbers, got int"),
    "objects": (LAW | {"mu": np.array([{}], object)}, r"array 'mu' of .* does not read: it is of type object"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_statistics_are_refused(name, tmp_path):
    arrays, message = REFUSED[name]
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(data.DataError, match=message):
        data.read_fid_reference(tmp_path / "reference.npz")


@pytest.mark.parametrize("pictures", [PICTURES / 255, PICTURES[..., :2], PICTURES[0], PICTURES[:0]])
def test_other_pictures_are_refused(pictures, tmp_path):
    np.savez(tmp_path / "reference.npz", pictures)
    with pytest.raises(data.DataError, match=r"array 'arr_0' must be uint8 \[n, H, W, C\] with 1 or 3 channels, got "):
        data.stream_pictures(tmp_path / "reference.npz", 3)


def test_pictures_column_by_column_are_refused(tmp_path):
    np.savez(tmp_path / "reference.npz", np.asfortranarray(PICTURES))
    with pytest.raises(data.DataError, match="it is not stored row by row"):
        data.stream_pictures(tmp_path / "reference.npz", 3)


def test_pictures_that_are_cut_off_are_refused(tmp_path):
    """The archive promises as many bytes as the header: it is the part that is too short, or its checksum wrong."""
    file = tmp_path / "reference.npz"
    np.savez(file, PICTURES)
    with zipfile.ZipFile(file) as archive:
        content, start = archive.read("arr_0.npy"), archive.infolist()[0].header_offset
    broken = bytearray(file.read_bytes())
    broken[broken.index(content[-50:], start) + 20] ^= 255
    file.write_bytes(broken)
    with pytest.raises(data.DataError, match=r"array 'arr_0' of .* does not read: Bad CRC-32"):
        list(data.stream_pictures(file, 3))


def test_a_pickle_is_refused_in_one_line(tmp_path):
    file = tmp_path / "img512.pkl"
    file.write_bytes(pickle.dumps({"fid": LAW}))
    for read in (data.read_fid_reference, lambda file: data.stream_pictures(file, 3)):
        with pytest.raises(data.DataError, match=r"img512.pkl is a pickle, as EDM2's references are, and is not read"):
            read(file)


def test_no_file_and_another_kind_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="does not exist"):
        data.read_fid_reference(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("mu")
    with pytest.raises(data.DataError, match=r"text.npz does not read: File is not a zip file"):
        data.read_fid_reference(tmp_path / "text.npz")
