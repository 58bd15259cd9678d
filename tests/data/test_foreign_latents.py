"""Latents that others wrote: exactly their numbers, channels last, or one line that says what is wrong."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies

from cfgjax import data

pytest.importorskip("safetensors")

from tests.support.foreign_latents import all_of, files_of, moments, npy, write_folder, write_shard, write_zip
from tests.support.fuzzing import mutations, tries

LABELS = np.arange(300) % 7
STORED = {kind: moments(kind) for kind in ("repa", "edm2")}
RNG = np.random.default_rng(5)
SHARD = RNG.normal(size=(300, 6, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["repa", "edm2"])
@pytest.mark.parametrize("is_zip", [False, True])
def test_means_and_deviations_are_read_and_their_kind_is_told_by_their_means(kind, is_zip, tmp_path):
    files = files_of(STORED[kind], LABELS)
    place = write_zip(tmp_path / "own.zip", files) if is_zip else write_folder(tmp_path / "own", files)
    assert data.holds_foreign_latents(place)
    source = data.read_foreign_latents(place)
    found = all_of(source)
    np.testing.assert_array_equal(found.latent, STORED[kind][:, :4].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.deviation, STORED[kind][:, 4:].transpose(0, 2, 3, 1))
    assert found.flipped is None
    np.testing.assert_array_equal(source.label, LABELS)
    assert source.remarks[0].startswith(
        f"latents of kind {kind}, of pictures in {'[-1' if kind == 'repa' else '[0'}, 1]"
    )
    assert "their means by channel" in source.remarks[0]


def test_a_folder_of_repa_s_beside_its_pictures_is_found(tmp_path):
    write_folder(tmp_path / "vae-sd", files_of(STORED["repa"][:40], LABELS[:40]))
    write_folder(tmp_path / "images", {"00000/img00000000.png": b"none"})
    assert data.read_foreign_latents(tmp_path).count == 40


def test_a_kind_that_the_means_do_not_tell_must_be_said(tmp_path):
    between = (STORED["repa"] + STORED["edm2"]) / 2
    place = write_folder(tmp_path / "own", files_of(between[:50], LABELS[:50]))
    with pytest.raises(data.DataError, match=r"their means by channel .* say it by --kind repa or --kind edm2"):
        data.read_foreign_latents(place)
    assert data.read_foreign_latents(place, "edm2").remarks == ("latents of kind edm2, as told: of pictures in [0, 1]",)
    six = write_folder(tmp_path / "six", files_of(RNG.uniform(size=(9, 12, 4, 4)).astype(np.float32), LABELS[:9]))
    with pytest.raises(data.DataError, match="there are 6 channels, and known figures of 4; say it by --kind"):
        data.read_foreign_latents(six)


def test_a_set_without_labels_has_label_0_and_tells_it(tmp_path):
    files = files_of(STORED["edm2"][:40], LABELS[:40]) | {"dataset.json": b'{"labels": null}'}
    source = data.read_foreign_latents(write_zip(tmp_path / "own.zip", files))
    assert source.label.tolist() == [0] * 40
    assert source.remarks[1] == "dataset.json tells no labels: every latent has label 0"


def _told(rows):
    return {"dataset.json": json.dumps({"labels": rows}).encode()}


FIRST = "00000/img-mean-std-00000000.npy"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({FIRST: npy(STORED["repa"][0])[:-1]}, "img-mean-std-00000000.npy.* holds 511 bytes of numbers, not the 512"),
        ({FIRST: b""}, "img-mean-std-00000000.npy.* does not read as an array"),
        ({FIRST: npy(STORED["repa"][0, :7])}, r"must be \[2C, H, W\], means and deviations, got \(7, 4, 4\)"),
        ({FIRST: npy(STORED["repa"][0, :, :2])}, r"has shape \(8, 4, 4\), the first file \(8, 2, 4\)"),
        ({FIRST: npy(np.full((8, 4, 4), np.nan, np.float32))}, "img-mean-std-00000000.npy.* is not finite"),
        ({FIRST: npy(-np.ones((8, 4, 4), np.float32))}, "has a negative deviation, -1"),
        (
            {FIRST: npy(STORED["repa"][0].astype(ml_dtypes.bfloat16))},
            r"type \|V2, .* bfloat16 and float8: save array.view",
        ),
        ({"00000/other.png": b""}, "holds '00000/other.png', which is neither dataset.json nor"),
        ({"dataset.json": b""}, "dataset.json.* does not read"),
        ({"dataset.json": b"{}"}, "dataset.json.* must hold"),
        (_told([]), "has no label of '00000/img-mean-std-00000000.npy', and of 19 others"),
        (_told([[f"00000/img-mean-std-{row:08d}.npy", 1] for row in range(21)]), "which is not there, nor 0 others"),
        (_told([[FIRST, 1.0]]), r"must be an integer, got 1.0: write int\(label\)"),
        (_told([[FIRST, [0, 1]]]), r"must be an integer, got \[0, 1\]"),
        (_told([[FIRST, 1], [FIRST, 2]]), "names a file twice"),
        (_told([[f"00000/img-mean-std-{row:08d}.npy", -1] for row in range(20)]), r"in 0..2147483647, got -1..-1"),
    ],
)
@pytest.mark.parametrize("is_zip", [False, True])
def test_files_of_means_that_do_not_fit_are_named(changed, complaint, is_zip, tmp_path):
    files = files_of(STORED["repa"][:20], LABELS[:20]) | changed
    place = write_zip(tmp_path / "own.zip", files) if is_zip else write_folder(tmp_path / "own", files)
    with pytest.raises(data.DataError, match=complaint) as caught:
        all_of(data.read_foreign_latents(place, "repa"))
    assert "\n" not in str(caught.value)


def test_a_zip_that_is_cut_off_or_damaged_is_refused(tmp_path):
    whole = write_zip(tmp_path / "own.zip", files_of(STORED["repa"][:20], LABELS[:20])).read_bytes()
    (tmp_path / "own.zip").write_bytes(whole[:-100])
    with pytest.raises(data.DataError, match=r"own\.zip does not read as a zip"):
        data.holds_foreign_latents(tmp_path / "own.zip")
    (tmp_path / "own.zip").write_bytes(whole[:300] + b"\1\2\3" + whole[303:])
    with pytest.raises(data.DataError, match=r"'00000/img-mean-std-00000000.npy' in .* does not read: Bad CRC"):
        data.read_foreign_latents(tmp_path / "own.zip", "repa")


def test_shards_are_read_in_their_order_with_the_mirrored_pictures(tmp_path):
    for number, part in enumerate((slice(0, 280), slice(280, 300))):
        file = tmp_path / f"latents_rank00_shard{number:03d}.safetensors"
        write_shard(file, SHARD[part], LABELS[part], -SHARD[part])
    (tmp_path / "latents_stats.pt").write_bytes(b"never read")
    source = data.read_foreign_latents(tmp_path)
    found = all_of(source)
    np.testing.assert_array_equal(found.latent, SHARD.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.flipped, -SHARD.transpose(0, 2, 3, 1))
    assert found.deviation is None
    np.testing.assert_array_equal(source.label, LABELS)
    assert source.remarks == (
        "2 shards, with latents of the mirrored pictures",
        "latents_stats.pt is a pickle, which is never read: the statistics are computed from the latents",
    )


def test_a_shard_of_bfloat16_is_widened_exactly(tmp_path):
    rounded = SHARD.astype(ml_dtypes.bfloat16)
    source = data.read_foreign_latents(write_shard(tmp_path / "one.safetensors", rounded, LABELS))
    np.testing.assert_array_equal(all_of(source).latent, rounded.astype(np.float32).transpose(0, 2, 3, 1))


def _of(values, row=290):
    changed = SHARD.copy()
    changed[row] = values
    return changed


@pytest.mark.parametrize(
    ("latents", "labels", "flipped", "complaint"),
    [
        (SHARD[:0], LABELS[:0], None, r"other.safetensors holds no latents: its shape is \(0, 6, 4, 4\)"),
        (SHARD, LABELS[:-1], None, r"other.safetensors: labels must be \(300,\) integers, got \(299,\)$"),
        (SHARD, LABELS.reshape(-1, 1), None, r"got \(300, 1\): save labels\[:, 0\]"),
        (SHARD, np.eye(7, dtype=np.int64)[LABELS], None, r"got \(300, 7\): save labels.argmax\(axis=1\) if"),
        (SHARD, LABELS.astype(np.float32), None, r"labels must be of an integer type, got F32: save labels.long\(\)"),
        (SHARD.astype(np.int32), LABELS, None, "latents must be of a floating type, got I32"),
        (SHARD[..., 0], LABELS, None, r"latents must be \[n, C, H, W\], got \(300, 6, 4\)"),
        (SHARD, LABELS, SHARD[:9], r"latents_flip has shape \(9, 6, 4, 4\), latents \(300, 6, 4, 4\)"),
        (SHARD, LABELS, SHARD, "other.safetensors has latents_flip, and first.safetensors has none"),
        (SHARD[:, :5], LABELS, None, r"latents has shape \(300, 5, 4, 4\), those of first.safetensors \(10, 6, 4, 4\)"),
        (_of(np.inf), LABELS, None, "row 290 of .*other.safetensors: latents is not finite"),
    ],
)
def test_shards_that_do_not_fit_are_named(latents, labels, flipped, complaint, tmp_path):
    write_shard(tmp_path / "first.safetensors", SHARD[:10], LABELS[:10])
    write_shard(tmp_path / "other.safetensors", latents, labels, flipped)
    with pytest.raises(data.DataError, match=complaint) as caught:
        all_of(data.read_foreign_latents(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_shard_that_is_cut_off_or_lacks_a_tensor_is_named(tmp_path):
    content = write_shard(tmp_path / "one.safetensors", SHARD, LABELS).read_bytes()
    for damaged in (content[:-1], content[:40], b""):
        (tmp_path / "one.safetensors").write_bytes(damaged)
        with pytest.raises(data.DataError, match=r"one.safetensors does not read: \w"):
            data.read_foreign_latents(tmp_path)
    from safetensors.numpy import save_file

    save_file({"latents": SHARD}, tmp_path / "one.safetensors")
    with pytest.raises(data.DataError, match=r"one\.safetensors has no tensor 'labels', only latents"):
        data.read_foreign_latents(tmp_path)


def test_pickles_are_neverall_of(tmp_path):
    (tmp_path / "latents.pt").write_bytes(b"PK\x03\x04")
    for place in (tmp_path, tmp_path / "latents.pt"):
        with pytest.raises(data.DataError, match=r"latents.pt is a pickle, .* never read. .*torch.load.*np.savez"):
            data.holds_foreign_latents(place)


def test_other_folders_hold_none(tmp_path):
    assert not data.holds_foreign_latents(tmp_path)
    write_folder(tmp_path, {"cat/0.png": b""})
    assert not data.holds_foreign_latents(tmp_path)
    assert not data.holds_foreign_latents(tmp_path / "absent")
    with pytest.raises(data.DataError, match="holds no latents of a form that is read"):
        data.read_foreign_latents(tmp_path)
    np.savez(tmp_path / "pictures.npz", train_images=SHARD, train_labels=LABELS)
    assert not data.holds_foreign_latents(tmp_path / "pictures.npz")


def test_links_that_lead_out_are_refused(tmp_path):
    place = write_folder(tmp_path / "own", files_of(STORED["repa"][:5], LABELS[:5]))
    (place / FIRST).rename(tmp_path / "outside.npy")
    (place / FIRST).symlink_to(tmp_path / "outside.npy")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        data.read_foreign_latents(place, "repa")


FEW = SHARD[:5]


def _content(form, folder):
    """A file of five latents, and its name."""
    if form == "zip":
        return "own.zip", write_zip(folder / "whole.zip", files_of(STORED["repa"][:5], LABELS[:5])).read_bytes()
    if form == "npz":
        np.savez_compressed(folder / "whole.npz", x=FEW, y=LABELS[:5])
        return "own.npz", (folder / "whole.npz").read_bytes()
    return "own.safetensors", write_shard(folder / "whole.safetensors", FEW, LABELS[:5], FEW).read_bytes()


@pytest.mark.parametrize("form", ["zip", "npz", "safetensors"])
@tries(120)
@given(source=strategies.data())
def test_a_damaged_file_gives_finite_numbers_or_one_error(form, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    name, content = _content(form, folder)
    (folder / name).write_bytes(source.draw(mutations(content)))
    try:
        latents = data.read_foreign_latents(
            folder / name, "repa" if form == "zip" else None, "nchw" if form == "npz" else None
        )
        found = all_of(latents)
    except data.DataError as error:
        assert "\n" not in str(error)
        return
    assert all(np.isfinite(values).all() for values in found if values is not None)
    assert len(found.latent) == len(latents.label) == latents.count
