"""Latents computed beforehand: trained on from a folder, held out at random, drawn as arrays."""

import dataclasses

import numpy as np
import pytest

from experiments.command import UserError
from experiments.presets import PRESETS
from experiments.problems import problem_of
from experiments.settings import LatentData
from tests.experiments.running import SMALL_DIT, assert_one_line, command

NUM_LABELS, NUM_LATENTS = 4, 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with latents sorted by label, as a network that walks through class folders leaves them."""
    data_dir = tmp_path_factory.mktemp("latents")
    (data_dir / "mine").mkdir()
    labels = np.repeat(np.arange(NUM_LABELS), NUM_LATENTS // NUM_LABELS)
    noise = np.random.default_rng(0).normal(size=(NUM_LATENTS, 4, 4, 5))
    np.save(data_dir / "mine" / "latents.npy", (noise + labels.reshape(-1, 1, 1, 1)).astype(np.float16))
    np.save(data_dir / "mine" / "labels.npy", labels)
    return data_dir


def _experiment(folder, **changes):
    settings = LatentData(
        folder="mine", **({"shape": (4, 4, 5), "num_labels": NUM_LABELS, "num_held_out": 32} | changes)
    )
    return dataclasses.replace(PRESETS["imagenet256_latent"][1], data=settings, data_dir=folder, batch_size=16)


def test_each_latent_is_either_held_out_or_visited_once_in_an_epoch(folder):
    problem = problem_of(_experiment(folder))
    batches = list(problem.batches(range(8)))
    visited = np.concatenate([latents for latents, _ in batches])
    together = np.concatenate([visited, problem.held_out[0]]).reshape(NUM_LATENTS, -1)
    whole = np.load(folder / "mine" / "latents.npy").astype(np.float32).reshape(NUM_LATENTS, -1)
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(whole, axis=0))
    assert set(problem.held_out[1].tolist()) == set(range(NUM_LABELS))
    for latents, labels in batches:
        np.testing.assert_allclose(latents.mean(axis=(1, 2, 3)), labels, atol=0.6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_labels": 3}, r"data.num_labels is 3, but the labels lie in 0\.\.3"),
        ({"num_held_out": 160}, "data.num_held_out must be less than the 160 latents, got 160"),
        ({"num_held_out": 7}, "data.num_held_out has 7 examples, fewer than the 8 devices"),
        ({"shape": (4, 4, 4)}, "data.shape is"),
    ],
)
def test_latents_that_differ_from_the_settings_are_refused(changes, expected, folder):
    with pytest.raises(UserError, match=expected):
        problem_of(_experiment(folder, **changes))


@pytest.mark.slow
def test_a_run_on_latents_trains_and_draws_latents(folder, tmp_path):
    preset = [
        "imagenet256_latent", "--data-dir", folder, "--data.folder", "mine", "--data.shape", 4, 4, 5,
        "--data.num-labels", NUM_LABELS, "--data.num-held-out", 32, *SMALL_DIT,
    ]  # fmt: skip
    done = command("train", *preset, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "wrote metrics.json, samples-classifier-free-euler_maruyama.npz, samples-classifier" in done.stdout
    written = np.load(tmp_path / "run" / "samples-classifier-free-heun.npz")
    assert written["latents"].shape == (2, NUM_LABELS, 3, 4, 4, 5)
    assert np.all(np.isfinite(written["latents"]))
    done = command("sample", tmp_path / "run", "--num-steps", 2, "--out", tmp_path / "drawn.png")
    assert_one_line(done, "out must end in .npz for samples of shape (4, 4, 5)")
    done = command("sample", tmp_path / "run", "--num-steps", 2, "--out", tmp_path / "drawn.npz")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "drawn.npz")["x"].shape == (NUM_LABELS, 4, 4, 5)
    done = command("train", *preset, "--run-dir", tmp_path / "classifier", "--objective", "classifier")
    assert_one_line(done, "objective 'classifier' needs pictures")
