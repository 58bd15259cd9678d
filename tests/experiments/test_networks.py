"""The image networks in the training step: devices, compilations, resumption, and the dry run."""

import dataclasses
import shutil

import jax
import numpy as np
import optax
import pytest

from cfgjax import training
from experiments.config.networks import DiTNetwork, UNetNetwork
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.run.train_setup import train_setup_of
from experiments.tasks.registry import task_of
from tests.experiments.test_resume import final_state
from tests.support.commands import SMALLER, command

pytestmark = pytest.mark.slow

NETWORKS = {
    "fashion_mnist": DiTNetwork(width=16, depth=1, num_heads=2, patch=7),
    "fashion_mnist_gpu": UNetNetwork(8, (1, 1), blocks_per_level=1, attention=(7,), patch=2),
    "fashion_mnist_classifier": UNetNetwork(8, (1, 1), blocks_per_level=1, attention=(7,), patch=2, dropout=0.1),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def parts(request, data_dir):
    """A small experiment's task, and its step with SGD, which hides no factor of the gradient."""
    name = request.param
    experiment = dataclasses.replace(
        PRESETS[name][1], data_dir=data_dir, network=NETWORKS[name], batch_size=16, num_microbatches=1
    )
    task = task_of(experiment)
    return task, train_setup_of(experiment, task, model_of(experiment, task))


def _run(parts, num_devices, num_steps, watch=None):
    task, setup = parts
    optimizer, devices = optax.sgd(0.1), jax.devices()[:num_devices]
    step = training.parallel(training.make_step(setup.loss, optimizer, 0.9), devices)
    params = jax.tree.map(np.asarray, setup.create().params)
    state = training.init_state(jax.tree.map(jax.numpy.asarray, params), optimizer, jax.random.key(0))
    source = training.replicate(task.source, devices)
    for index, batch in enumerate(task.batches(range(num_steps))):
        state, metrics = step(state, training.shard(batch, num_devices), source)
        jax.block_until_ready(metrics)
        if watch is not None:
            watch(index)
    return state


def test_one_and_eight_devices_agree_on_every_shard(parts):
    reference = jax.tree.leaves(_run(parts, 1, 3).params)
    start = [np.asarray(leaf) for leaf in jax.tree.leaves(parts[1].create().params)]
    assert max(np.max(np.abs(np.asarray(a) - b)) for a, b in zip(reference, start, strict=True)) > 1e-3
    for leaf, expected in zip(jax.tree.leaves(_run(parts, 8, 3).params), reference, strict=True):
        assert len(leaf.addressable_shards) == 8
        for shard in leaf.addressable_shards:
            np.testing.assert_allclose(shard.data, expected, atol=1e-5)


def test_a_second_step_compiles_nothing(parts):
    counts, events = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: events.append(name) if "backend_compile" in name else None
    )
    _run(parts, 2, 4, watch=lambda index: counts.append(len(events)))
    assert counts[0] > 0
    assert counts == [counts[0]] * 4


@pytest.mark.parametrize("preset", ["fashion_mnist", "fashion_mnist_classifier"])
def test_a_resumed_run_ends_bit_equal(preset, tmp_path, data_dir, request):
    fixture = {"fashion_mnist": "trained_clothes", "fashion_mnist_classifier": "trained_classifier"}[preset]
    whole, again = request.getfixturevalue(fixture), tmp_path / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "40")
    done = command("train", preset, "--run-dir", again, "--data-dir", data_dir, *SMALLER[preset])
    assert done.returncode == 0, done.stderr
    assert "at step 30 of 40" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(whole), final_state(again))
