"""``prepare`` of latents that others wrote: a folder of ours, whole or not at all, with statistics, to train on."""

import shutil
import signal
import time
import types

import numpy as np
import pytest

from cfgjax import data
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.tasks import latent_folder, latent_scale
from tests.support.commands import assert_one_line, command, finish, start

pytest.importorskip("safetensors")

from tests.support.foreign_latents import files_of, moments, npy, write_folder, write_shard

LABELS = np.arange(300) % 10
REPA = moments("repa")


def _prepare(tmp_path, source, *options, name="mine"):
    return command("prepare", name, "--source", source, "--data-dir", tmp_path / "data", *options)


def test_means_and_deviations_become_a_folder_of_ours(tmp_path):
    source = write_folder(tmp_path / "repa", files_of(REPA, LABELS))
    done = _prepare(tmp_path, source)
    assert done.returncode == 0, done.stderr
    assert "latents of kind repa, of pictures in [-1, 1]: their means by channel" in done.stdout
    assert "300 latents of 4 x 4 x 4, float32, means with deviations, drawn anew at each step" in done.stdout
    assert "--data.factor 0.18215 " in done.stdout
    found = data.open_latents(tmp_path / "data" / "mine")
    np.testing.assert_array_equal(found.latent, REPA[:, :4].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.deviation, REPA[:, 4:].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.label, LABELS)
    told = data.read_statistics(tmp_path / "data" / "mine")
    assert told is not None
    mean, deviation = np.split(REPA.astype(np.float64), 2, axis=1)
    np.testing.assert_allclose(told.mean, mean.mean(axis=(0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(
        told.std**2, mean.var(axis=(0, 2, 3)) + np.square(deviation).mean(axis=(0, 2, 3)), rtol=1e-9
    )
    again = _prepare(tmp_path, source)
    assert "is there already; the source is not read again" in again.stdout


def test_shards_with_mirrored_pictures_become_two_arrays(tmp_path):
    latents = np.random.default_rng(0).normal(size=(300, 8, 4, 4)).astype(np.float32)
    write_shard(tmp_path / "shards" / "latents_rank00_shard000.safetensors", latents, LABELS, -latents)
    done = _prepare(tmp_path, tmp_path / "shards")
    assert done.returncode == 0, done.stderr
    assert "each with its mirrored twin's, one of the two drawn at each step" in done.stdout
    found = data.open_latents(tmp_path / "data" / "mine")
    np.testing.assert_array_equal(found.flipped, -latents.transpose(0, 2, 3, 1))
    told = data.read_statistics(tmp_path / "data" / "mine")
    assert told is not None
    assert told.count == 300
    np.testing.assert_allclose(told.mean, np.zeros(8), atol=1e-9)


def test_what_does_not_read_leaves_nothing(tmp_path):
    broken = files_of(REPA[:270], LABELS[:270]) | {
        "00000/img-mean-std-00000269.npy": npy(np.full((8, 4, 4), np.nan, np.float32))
    }
    source = write_folder(tmp_path / "repa", broken)
    assert_one_line(_prepare(tmp_path, source, "--kind", "repa"), "img-mean-std-00000269.npy is not finite")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--axes", "nchw"], "axes is for .npz and .npy alone"),
        (["--image-size", 8], "image_size is for pictures, and source "),
        (["--transpose"], "transpose is for pictures, and source "),
    ],
)
def test_options_of_another_kind_of_source_are_refused(options, complaint, tmp_path):
    source = write_folder(tmp_path / "repa", files_of(REPA[:40], LABELS[:40]))
    assert_one_line(_prepare(tmp_path, source, *options), complaint)
    assert_one_line(_prepare(tmp_path, source, "--kind", "repa", name="digits"), "kind and axes are for latents")
    assert_one_line(_prepare(tmp_path, source, name="../out"), "name must be of small letters")
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "notes").write_text("")
    assert_one_line(_prepare(tmp_path, source), "mine holds something else; remove it, or give another name")


def test_what_is_none_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_one_line(_prepare(tmp_path, tmp_path / "empty"), "empty")
    assert_one_line(_prepare(tmp_path, tmp_path / "empty", "--kind", "repa"), "kind and axes are for latents")
    (tmp_path / "latents.pt").write_bytes(b"PK\x03\x04")
    assert_one_line(_prepare(tmp_path, tmp_path / "latents.pt"), "is a pickle, which can run code and is never read")


def test_a_killed_conversion_leaves_no_set_and_is_begun_anew(tmp_path):
    """What lies in the draft of a killed one is not taken over."""
    source = write_folder(tmp_path / "repa", files_of(REPA, LABELS))
    draft = tmp_path / "data" / ".mine.converting"
    write_folder(draft, {"flipped.npy": b"of another set"})
    assert _prepare(tmp_path, source).returncode == 0
    assert not draft.exists()
    names = sorted(file.name for file in (tmp_path / "data" / "mine").iterdir())
    assert names == ["deviations.npy", "labels.npy", "latents.npy", "statistics.json"]


def test_latents_that_the_disk_has_no_room_for_are_refused_before_they_are_written(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "repa", files_of(REPA, LABELS))
    needed = 300 * 2 * 4**3 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=needed - 1))
    assert_one_line(_prepare(tmp_path, source), "data has 0.0 GB free, and the latents take 0.0 GB")
    assert list((tmp_path / "data").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=needed))
    assert _prepare(tmp_path, source).returncode == 0


@pytest.mark.slow
def test_a_conversion_killed_under_way_leaves_no_set(tmp_path):
    latents = np.random.default_rng(0).normal(size=(20_000, 16, 8, 8)).astype(np.float32)
    write_shard(tmp_path / "shards" / "one.safetensors", latents, np.zeros(20_000, np.int64), -latents)
    arguments = ["prepare", "mine", "--source", tmp_path / "shards", "--data-dir", tmp_path / "data"]
    process = start(*arguments)
    draft = tmp_path / "data" / ".mine.converting"
    for _ in range(6000):
        if (draft / "flipped.npy").exists() or process.poll() is not None:
            break
        time.sleep(0.002)
    process.kill()
    assert finish(process).returncode == -signal.SIGKILL
    assert draft.exists()
    assert not (tmp_path / "data" / "mine").exists()
    assert finish(start(*arguments)).returncode == 0
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["mine"]
    found = data.open_latents(tmp_path / "data" / "mine")
    np.testing.assert_array_equal(found.latent, latents.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (
            {"count": 299},
            "tells of 299 latents of 2 channels, and there are 300 of 2: it is of other latents; remove it",
        ),
        ({"mean": np.zeros(3), "std": np.ones(3)}, "tells of 300 latents of 3 channels"),
        ({"std": np.full(2, 9.0)}, "tells a standard deviation 3 times theirs"),
        (
            {"mean": np.array([0.0, 9.0])},
            "tells a standard deviation 1 times theirs and a mean 3 of theirs away: it is of",
        ),
        ({}, None),
    ],
)
def test_statistics_of_other_latents_are_refused(changed, complaint, tmp_path):
    latent = np.random.default_rng(0).normal(0, 3, (300, 4, 4, 2)).astype(np.float32)
    latent = (latent - latent.mean()) * (3 / latent.std())
    latent_folder.write(tmp_path / "mine", 300, [data.Views(latent)], LABELS)
    told = data.read_statistics(tmp_path / "mine")
    assert told is not None
    data.write_statistics(tmp_path / "mine", told._replace(**changed))
    latents, settings = data.open_latents(tmp_path / "mine"), LatentData("mine", factor=1 / 3)
    tell = lambda: latent_scale.tell(latents, data.read_statistics(tmp_path / "mine"), settings)  # noqa: E731
    if complaint is None:
        tell()
        return
    with pytest.raises(UserError, match=f"statistics.json in mine {complaint}"):
        tell()
