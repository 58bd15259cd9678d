"""Latents in NumPy's files: their numbers, in either order of axes, or one line that says what is wrong."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from cfgjax import data

pytest.importorskip("safetensors")

from tests.support.foreign_latents import all_of, npy, write_folder

LABELS = np.arange(300) % 7
RNG = np.random.default_rng(5)
SHARD = RNG.normal(size=(300, 6, 4, 4)).astype(np.float32)
LAST = np.ascontiguousarray(SHARD.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("names", [("latents", "labels"), ("x", "y"), ("arr_0", "labels")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_in_either_order_of_axes(names, save, tmp_path):
    save(tmp_path / "last.npz", **dict(zip(names, (LAST.astype(">f8"), LABELS), strict=True)))
    save(tmp_path / "first.npz", **dict(zip(names, (SHARD, LABELS), strict=True)))
    for file, axes in (("last.npz", "nhwc"), ("first.npz", "nchw")):
        source = data.read_foreign_latents(tmp_path / file, axes=axes)
        np.testing.assert_array_equal(all_of(source).latent, LAST)
        np.testing.assert_array_equal(source.label, LABELS)


def test_an_order_of_axes_that_shows_is_not_taken_for_the_other(tmp_path):
    np.savez(tmp_path / "own.npz", x=RNG.normal(size=(5, 4, 8, 8)), y=LABELS[:5])
    with pytest.raises(data.DataError, match=r"looks like \[n, C, H, W\]: give --axes nchw, or else nhwc"):
        data.read_foreign_latents(tmp_path / "own.npz")
    np.savez(tmp_path / "own.npz", x=RNG.normal(size=(5, 8, 8, 8)), y=LABELS[:5])
    assert "three equal sides do not tell" in data.read_foreign_latents(tmp_path / "own.npz").remarks[0]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": LAST}, "must hold latents as latents, x or arr_0, and labels as labels or y, one of each; it holds x"),
        ({"x": LAST, "latents": LAST, "y": LABELS}, "one of each"),
        ({"x": LAST, "y": LABELS.astype(float)}, r"must be integers, got type float64: save labels.astype\(np.int64\)"),
        ({"x": LAST, "y": LABELS[:-1]}, r"must be \(300,\) integers, got \(299,\)"),
        ({"x": LAST, "y": LABELS[:, None]}, r"save labels\[:, 0\]"),
        ({"x": LAST.astype(np.uint8), "y": LABELS}, "is of uint8, as pictures are, which are read as SOURCE/CLASS"),
        ({"x": LAST[:0], "y": LABELS[:0]}, r"must be \[n, H, W, C\] or \[n, C, H, W\], got shape \(0, 4, 4, 6\)"),
        ({"x": LAST.astype(ml_dtypes.bfloat16), "y": LABELS}, r"is of type \|V2, .* bfloat16"),
        ({"x": np.asfortranarray(LAST), "y": LABELS}, "is not stored row by row: save np.ascontiguousarray"),
        (
            {"x": np.where(np.arange(300).reshape(-1, 1, 1, 1) == 299, np.nan, LAST), "y": LABELS},
            "row 299 of array 'x'",
        ),
    ],
)
def test_archives_that_do_not_fit_are_named(arrays, complaint, tmp_path):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(data.DataError, match=complaint) as caught:
        all_of(data.read_foreign_latents(tmp_path / "own.npz"))
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_cut_off_or_damaged_is_refused(tmp_path):
    np.savez(tmp_path / "own.npz", latents=LAST, labels=LABELS)
    content = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "own.npz").write_bytes(content[:-50])
    with pytest.raises(data.DataError, match=r"own\.npz does not read"):
        data.read_foreign_latents(tmp_path / "own.npz")
    (tmp_path / "own.npz").write_bytes(content[:5000] + b"\1\2\3\4" + content[5004:])
    with pytest.raises(data.DataError, match=r"array 'latents' of .*own.npz does not read: Bad CRC"):
        all_of(data.read_foreign_latents(tmp_path / "own.npz"))
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("latents.npy", npy(LAST)[:-9])
        archive.writestr("labels.npy", npy(LABELS))
    with pytest.raises(data.DataError, match=r"array 'latents' of .* holds 115191 bytes of numbers, not the 115200"):
        data.read_foreign_latents(tmp_path / "own.npz")


def test_two_arrays_beside_each_other_and_two_for_each_picture(tmp_path):
    write_folder(tmp_path / "pair", {"x.npy": npy(SHARD), "y.npy": npy(LABELS)})
    source = data.read_foreign_latents(tmp_path / "pair", axes="nchw")
    np.testing.assert_array_equal(all_of(source).latent, LAST)
    write_folder(tmp_path / "pair", {"flipped.npy": npy(SHARD)})
    with pytest.raises(data.DataError, match=r"pair holds flipped.npy, too, .* among the prepared data sets as it is"):
        data.read_foreign_latents(tmp_path / "pair", axes="nchw")
    files = {f"imagenet256_features/{row}.npy": npy(SHARD[row : row + 1]) for row in range(12)}
    files |= {f"imagenet256_labels/{row}.npy": npy(LABELS[row : row + 1]) for row in range(12)}
    source = data.read_foreign_latents(write_folder(tmp_path / "pairs", files))
    np.testing.assert_array_equal(all_of(source).latent, LAST[:12])
    np.testing.assert_array_equal(source.label, LABELS[:12])
    assert "times 0.18215 already" in source.remarks[0]
    (tmp_path / "pairs" / "imagenet256_labels" / "11.npy").unlink()
    with pytest.raises(data.DataError, match=r"11.npy .*does not exist"):
        data.read_foreign_latents(tmp_path / "pairs")
