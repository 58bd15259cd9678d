"""Latents computed beforehand: trained on from a folder, held out at random, drawn as arrays."""

import dataclasses

import numpy as np
import pytest

from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.presets.registry import PRESETS
from experiments.run.restore import Run
from experiments.sample.options import OutputOptions
from experiments.sample.output import write
from experiments.tasks.registry import facts_of, task_of
from tests.support.commands import SMALL_DIT, assert_one_line, command

NUM_CLASSES, NUM_LATENTS = 4, 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with latents sorted by label, as a network that walks through class folders leaves them."""
    data_dir = tmp_path_factory.mktemp("latents")
    (data_dir / "mine").mkdir()
    labels = np.repeat(np.arange(NUM_CLASSES), NUM_LATENTS // NUM_CLASSES)
    noise = np.random.default_rng(0).normal(size=(NUM_LATENTS, 4, 4, 5))
    np.save(data_dir / "mine" / "latents.npy", (noise + labels.reshape(-1, 1, 1, 1)).astype(np.float16))
    np.save(data_dir / "mine" / "labels.npy", labels)
    return data_dir


def _experiment(folder, **changes):
    settings = LatentData(
        folder="mine", **({"shape": (4, 4, 5), "num_classes": NUM_CLASSES, "num_held_out": 32} | changes)
    )
    return dataclasses.replace(PRESETS["imagenet256_latent"][1], data=settings, data_dir=folder, batch_size=16)


def test_each_latent_is_either_held_out_or_visited_once_in_an_epoch(folder):
    task = task_of(_experiment(folder))
    batches = list(task.batches(range(8)))
    visited = np.concatenate([latents for latents, _ in batches])
    together = np.concatenate([visited, task.held_out[0]]).reshape(NUM_LATENTS, -1)
    whole = np.load(folder / "mine" / "latents.npy").astype(np.float32).reshape(NUM_LATENTS, -1)
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(whole, axis=0))
    assert set(task.held_out[1].tolist()) == set(range(NUM_CLASSES))
    for latents, labels in batches:
        np.testing.assert_allclose(latents.mean(axis=(1, 2, 3)), labels, atol=0.6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_classes": 3}, r"data.num_classes is 3, but the labels lie in 0\.\.3"),
        ({"num_held_out": 160}, "data.num_held_out must be less than the 160 latents, got 160"),
        ({"num_held_out": 7}, "data.num_held_out has 7 examples, fewer than the 8 devices"),
        ({"shape": (4, 4, 4)}, "data.shape is"),
    ],
)
def test_latents_that_differ_from_the_settings_are_refused(changes, expected, folder):
    with pytest.raises(UserError, match=expected):
        task_of(_experiment(folder, **changes))


def _with_latents(folder, times, shift=0.0):
    """A data folder whose latents have this deviation, and one mean."""
    latent = times * np.broadcast_to((-1.0) ** np.arange(400).reshape(-1, 1, 1, 1), (400, 4, 4, 5)) + shift
    (folder / "mine").mkdir()
    np.save(folder / "mine" / "latents.npy", latent.astype(np.float32))
    np.save(folder / "mine" / "labels.npy", np.arange(400) % NUM_CLASSES)
    return folder


@pytest.mark.parametrize(
    ("times", "factor", "hint"),
    [
        (1.0, 0.18215, "0.182, where that of noise is 1; give --data.factor 1"),
        (5.5, 1.0, "5.5, where that of noise is 1; give --data.factor 0.18215"),
        (0.1, 1.0, "0.1, where that of noise is 1; give --data.factor 10"),
        (0.0, 0.18215, "0, where that of noise is 1; they are all alike"),
        (1.0, 1.0, None),
        (5.5, 0.18215, None),
        (1.8, 1.0, None),
    ],
)
def test_the_scale_of_latents_is_looked_at_before_training(times, factor, hint, tmp_path, capsys):
    task_of(_experiment(_with_latents(tmp_path, times), factor=factor))
    said = capsys.readouterr()
    assert f"times data.factor {factor:g} is" in said.out
    if hint is None:
        assert said.err == ""
    else:
        assert f"warning: the latents' standard deviation times data.factor is {hint}" in said.err


def test_a_channel_far_from_zero_is_told(tmp_path, capsys):
    """The means of Stable Diffusion's latents as EDM2 measured them, the first of which is 5.81."""
    task_of(_experiment(_with_latents(tmp_path, 4.0, [5.81, 3.25, 0.12, -2.15, 0]), factor=0.18215))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "warning: channel 0 of the latents times data.factor has mean 1.06, far from the 0 of noise" in said


def test_what_a_folder_of_latents_holds_is_told_by_prepare(folder, tmp_path):
    done = command("prepare", "mine", "--data-dir", _with_latents(tmp_path, 5.5))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"mine in {tmp_path} holds latents, which need no preparation",
        "  400 latents of 4 x 4 x 5, float32",
        "  4 labels in 0..3, the smallest 0 with 100",
        "  standard deviation 5.5; by channel 5.5, 5.5, 5.5, 5.5, 5.5, means 0, 0, 0, 0, 0",
        "  train on them with imagenet256_latent --data.folder mine --data.shape 4 4 5 --data.num-classes 4 "
        "--data.factor 0.18215 --data.num-held-out 40",
    ]
    np.save(tmp_path / "mine" / "labels.npy", np.zeros(400))
    assert_one_line(command("prepare", "mine", "--data-dir", tmp_path), "labels.npy must be integers")


def test_files_of_latents_tell_their_factor(folder, tmp_path):
    experiment = _experiment(folder, factor=0.25)
    run = Run(experiment, facts_of(experiment), None, None, 1)
    write(OutputOptions(str(tmp_path / "x.npz")), run, np.zeros((2, 4, 4, 5)), np.zeros(2, np.int32), 1)
    assert float(np.load(tmp_path / "x.npz")["factor"]) == 0.25


@pytest.mark.slow
def test_a_run_on_latents_trains_and_draws_latents(folder, tmp_path):
    preset = [
        "imagenet256_latent", "--data-dir", folder, "--data.folder", "mine", "--data.shape", 4, 4, 5,
        "--data.num-classes", NUM_CLASSES, "--data.num-held-out", 32, *SMALL_DIT,
    ]  # fmt: skip
    done = command("train", *preset, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "wrote metrics.json, samples-classifier-free-euler_maruyama.npz, samples-classifier" in done.stdout
    written = np.load(tmp_path / "run" / "samples-classifier-free-heun.npz")
    assert written["latents"].shape == (2, NUM_CLASSES, 3, 4, 4, 5)
    assert np.all(np.isfinite(written["latents"]))
    assert written["factor"] == 0.18215
    done = command("sample", tmp_path / "run", "--num-steps", 2, "--out", tmp_path / "drawn.png")
    assert_one_line(done, "out must end in .npz for samples of shape (4, 4, 5)")
    done = command("sample", tmp_path / "run", "--num-steps", 2, "--out", tmp_path / "drawn.npz")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "drawn.npz")["x"].shape == (NUM_CLASSES, 4, 4, 5)
    done = command("train", *preset, "--run-dir", tmp_path / "classifier", "--objective", "classifier")
    assert_one_line(done, "objective 'classifier' needs pictures")
