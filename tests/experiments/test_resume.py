"""Killed and started again, or moved to other devices, a run ends where it would have ended."""

import json
import random
import time

import jax
import numpy as np
import pytest

from cfgjax import checkpoints
from experiments.run import folder as run_folder
from experiments.run.model import model_of
from experiments.run.train_setup import state_of
from experiments.tasks.registry import facts_of
from tests.support.commands import SMALL, command, finish, start

LONG = [*(word.replace("--num-steps=40", "--num-steps=200") for word in SMALL), "--steps-per-dispatch=4"]


def final_state(run_dir):
    """The numbers of a run's last checkpoint."""
    experiment = run_folder.read_config(run_dir)
    like = state_of(experiment, model_of(experiment, facts_of(experiment)))
    return jax.tree.map(_numbers, checkpoints.restore(run_folder.checkpoints_of(run_dir), like).state)


def _numbers(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _loss_lines(run_dir):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss"), row.get("held_out_loss")) for row in rows]


def _wait_for_checkpoint(run_dir, process):
    for _ in range(2400):
        if (checkpoints.latest_step(run_folder.checkpoints_of(run_dir)) or 0) > 0 or process.poll() is not None:
            return
        time.sleep(0.05)
    raise TimeoutError(run_dir)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data_dir):
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "digits"
    done = finish(start("train", "digits", "--data-dir", data_dir, "--run-dir", run_dir, *LONG))
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_ends_bit_equal(tmp_path, data_dir, uninterrupted):
    run_dir = tmp_path / "killed"
    arguments = ["train", "digits", "--data-dir", data_dir, "--run-dir", run_dir, *LONG]
    process = start(*arguments)
    _wait_for_checkpoint(run_dir, process)
    time.sleep(random.Random(time.time_ns()).uniform(0, 1.0))
    process.kill()
    finish(process)
    killed_at = checkpoints.latest_step(run_folder.checkpoints_of(run_dir))
    done = finish(start(*arguments))
    assert done.returncode == 0, done.stderr
    assert f"at step {killed_at} of 200" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(uninterrupted), final_state(run_dir))
    assert _loss_lines(uninterrupted) == _loss_lines(run_dir)


@pytest.mark.slow
def test_one_device_and_eight_train_alike(tmp_path, data_dir, uninterrupted):
    done = command("train", "digits", "--data-dir", data_dir, "--run-dir", tmp_path / "eight", *LONG)
    assert done.returncode == 0, done.stderr
    one, eight = _loss_lines(uninterrupted), _loss_lines(tmp_path / "eight")
    losses = np.array([[a[1], b[1]] for a, b in zip(one, eight, strict=True) if a[1] is not None])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-3)


@pytest.mark.slow
def test_a_run_goes_on_with_its_state_cut_over_devices(tmp_path, data_dir):
    """Whole on one device and stopped, then cut over eight: the end of a run that stayed."""
    wide = [word.replace("--network.width=16", "--network.width=160") for word in SMALL]
    arguments = ["train", "digits", "--data-dir", data_dir, *wide]
    stayed, moved = tmp_path / "stayed", tmp_path / "moved"
    assert finish(start(*arguments, "--run-dir", stayed)).returncode == 0
    process = start(*arguments, "--run-dir", moved)
    _wait_for_checkpoint(moved, process)
    process.terminate()
    finish(process)
    done = command(*arguments, "--run-dir", moved, "--placement", "sharded")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(_losses(stayed), _losses(moved), rtol=1e-4)
    sampled = command("sample", moved, "--out", tmp_path / "picture.png")
    assert sampled.returncode == 0, sampled.stderr


def _losses(run_dir):
    return [loss for _, loss, _ in _loss_lines(run_dir) if loss is not None]
