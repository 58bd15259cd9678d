"""Latents computed beforehand: trained on from a folder, held out at random, drawn as arrays."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from cfgjax import data
from cfgjax.checks import THREEFRY
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.networks import MLPNetwork
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.run.restore import Run
from experiments.sample.options import OutputOptions
from experiments.sample.output import write
from experiments.tasks import latent_scale
from experiments.tasks.registry import facts_of, task_of
from experiments.tasks.summary import tell_latents
from tests.experiments.test_resume import _wait_for_checkpoint, final_state
from tests.support.commands import SMALL_DIT, assert_one_line, command, finish, start

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


def _experiment(data_dir, **changes):
    known = {"folder": "mine", "shape": (4, 4, 5), "num_classes": NUM_CLASSES, "num_held_out": 32}
    settings = LatentData(**known | changes)
    return dataclasses.replace(PRESETS["imagenet256_latent"][1], data=settings, data_dir=data_dir, batch_size=16)


def test_each_latent_is_either_held_out_or_visited_once_in_an_epoch(folder):
    task = task_of(_experiment(folder))
    batches = list(task.batches(range(8)))
    visited = np.concatenate([views.latent for views, _ in batches])
    together = np.concatenate([visited, task.held_out[0].latent]).reshape(NUM_LATENTS, -1)
    whole = np.load(folder / "mine" / "latents.npy").astype(np.float32).reshape(NUM_LATENTS, -1)
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(whole, axis=0))
    assert set(task.held_out[1].tolist()) == set(range(NUM_CLASSES))
    for views, labels in batches:
        np.testing.assert_allclose(views.latent.mean(axis=(1, 2, 3)), labels, atol=0.6)


def _with_views(data_dir, name="views", deviation=0.5):
    """A folder whose latents are the number of their row, and its negative in the mirrored picture."""
    row = np.broadcast_to(np.arange(1.0, NUM_LATENTS + 1).reshape(-1, 1, 1, 1), (NUM_LATENTS, 4, 4, 5))
    (data_dir / name).mkdir()
    for file, values in (
        ("latents", row), ("flipped", -row),
        ("deviations", deviation + 0 * row), ("flipped_deviations", deviation + 0 * row),
    ):  # fmt: skip
        np.save(data_dir / name / f"{file}.npy", values.astype(np.float32))
    np.save(data_dir / name / "labels.npy", np.arange(NUM_LATENTS) % NUM_CLASSES)
    return data_dir


def test_a_picture_and_its_mirrored_twin_are_held_out_together(tmp_path):
    task = task_of(_experiment(_with_views(tmp_path), folder="views"))
    held_out = task.held_out[0]
    np.testing.assert_array_equal(held_out.flipped, -held_out.latent)
    visited = [np.abs(half) for views, _ in task.batches(range(8)) for half in (views.latent, views.flipped)]
    assert len(np.unique(np.concatenate(visited))) == 128
    assert not np.intersect1d(np.concatenate(visited), np.abs(held_out.latent)).size


def test_batches_of_views_depend_on_their_step_alone(tmp_path):
    """Those of a resumed run are those of one that stayed, and so is what is drawn of them by a step's keys."""
    task = task_of(_experiment(_with_views(tmp_path), folder="views", factor=0.25, shift=2.0))
    stayed, resumed = list(task.batches(range(8))), list(task.batches(range(5, 8)))
    jax.tree.map(np.testing.assert_array_equal, stayed[5:], resumed)
    keys = jax.random.split(jax.random.key(7, impl=THREEFRY), 16)
    drawn, _ = jax.vmap(task.example)(keys, resumed[0])
    expected = jax.vmap(data.draw_latent)(keys, stayed[5][0])
    np.testing.assert_allclose(drawn, 0.25 * (expected - 2), rtol=1e-6)
    assert len(np.unique(np.sign(drawn[:, 0, 0, 0]))) == 2


def test_the_loss_of_deviation_0_is_that_of_the_mean(tmp_path):
    (tmp_path / "plain").mkdir()
    _with_views(tmp_path, deviation=0.0)
    for name in ("latents", "labels"):
        shutil.copy(tmp_path / "views" / f"{name}.npy", tmp_path / "plain")
    for name in ("flipped", "flipped_deviations"):
        (tmp_path / "views" / f"{name}.npy").unlink()
    losses = []
    for name in ("views", "plain"):
        experiment = dataclasses.replace(_experiment(tmp_path, folder=name, factor=0.01), network=MLPNetwork(16, 8, 1))
        task = task_of(experiment)
        model = model_of(experiment, task)
        loss = task.objective.loss(experiment, task, model.network, model.path, True)
        params = model.init(jax.random.key(1))
        example = jax.tree.map(lambda leaf: leaf[0], task.held_out)
        losses.append(float(loss(params, jax.random.key(2, impl=THREEFRY), example)))
    assert losses[0] == losses[1]


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


def test_latents_of_odd_sides_are_trained_on_pixel_by_pixel(tmp_path, capsys):
    """The preset's patches of 2 x 2 do not divide them."""
    (tmp_path / "odd").mkdir()
    np.save(tmp_path / "odd" / "labels.npy", np.arange(20) % 2)
    for sides, expected in (((7, 7), True), ((4, 6), False), ((4, 5), True)):
        np.save(tmp_path / "odd" / "latents.npy", np.random.default_rng(0).normal(size=(20, *sides, 4)))
        tell_latents("odd", tmp_path)
        options = capsys.readouterr().out.splitlines()[-1]
        assert options.endswith(" --network.patch 1") == expected


def test_files_of_latents_tell_their_factor(folder, tmp_path):
    experiment = _experiment(folder, factor=0.25)
    run = Run(experiment, facts_of(experiment), None, None, 1)
    write(OutputOptions(str(tmp_path / "x.npz")), run, np.zeros((2, 4, 4, 5)), np.zeros(2, np.int32), 1)
    assert float(np.load(tmp_path / "x.npz")["factor"]) == 0.25


@pytest.mark.slow
def test_a_run_on_moments_goes_on_bit_equal(tmp_path):
    """Killed and started again, it draws what a run that stayed draws."""
    _with_views(tmp_path)
    preset = [
        "imagenet256_latent", "--data-dir", tmp_path, "--data.folder", "views", "--data.shape", 4, 4, 5,
        "--data.num-classes", NUM_CLASSES, "--data.num-held-out", 32, "--data.factor", 0.01, *SMALL_DIT,
    ]  # fmt: skip
    stayed, killed = tmp_path / "stayed", tmp_path / "killed"
    assert finish(start("train", *preset, "--run-dir", stayed)).returncode == 0
    process = start("train", *preset, "--run-dir", killed)
    _wait_for_checkpoint(killed, process)
    process.kill()
    finish(process)
    done = finish(start("train", *preset, "--run-dir", killed))
    assert done.returncode == 0, done.stderr
    assert " of 40" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(stayed), final_state(killed))


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


def test_the_factor_of_the_statistics_is_not_warned_of():
    """Channels far apart: what is chosen, and what is looked at, is the deviation of all numbers together."""
    spread = data.Spread(np.float64([3.0, -3.0, 0.0]), np.float64([0.5, 0.5, 0.5]))
    factor, shift = latent_scale.by_statistics(*spread)
    assert not [each for each in latent_scale.warnings_of(spread, factor, shift) if "standard deviation" in each]
    assert [each for each in latent_scale.warnings_of(spread, 5 * factor, shift) if "standard deviation" in each]
