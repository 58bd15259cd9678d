"""The image networks in the training step: devices, compilations, resumption, and the dry run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import optax
import pytest

from cfgjax import training
from experiments.config.schema import DiTNetwork, UNetNetwork
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.run.train_setup import train_setup_of
from experiments.runtime import progress
from experiments.tasks.registry import task_of
from tests.experiments.test_resume import final_state
from tests.support.commands import SMALLER, assert_one_line, command

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


@pytest.mark.parametrize("preset", ["mixture", "digits", "fashion_mnist", "fashion_mnist_classifier"])
def test_dryrun_compiles_the_true_step_without_data(preset):
    """Both ways: the state whole on every device, and an eighth of it with the small leaves whole."""
    done = command("dryrun", preset, "--devices", 8, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, cut = (found[way]["state_bytes_per_device"] for way in ("replicated", "sharded"))
    assert found["num_devices"] == 8
    assert 16 * found["num_params"] <= whole < 16 * found["num_params"] + 200
    assert whole / 8 <= cut < whole / 2
    assert min(found[way]["temporary_bytes_per_device"] for way in ("replicated", "sharded")) > 0
    experiment = PRESETS[preset][1]
    expected = 3 * found["forward_flops_per_example"] * experiment.batch_size
    assert found["model_flops_per_step"] == pytest.approx(expected)


@pytest.mark.slow
def test_dryrun_counts_what_lies_on_a_device():
    """Half the examples on each of two devices need less than all of them on one."""
    arguments = "fashion_mnist_classifier", "--json", "--sharding", "replicated", "--devices"
    found = [json.loads(command("dryrun", *arguments, n).stdout) for n in (1, 2)]
    state, temporary = (
        [one["replicated"][f"{name}_bytes_per_device"] for one in found] for name in ("state", "temporary")
    )
    assert state[0] == state[1]
    assert found[0]["source_bytes_per_device"] == 60_000 * (784 + 4)
    assert temporary[1] < 0.7 * temporary[0]


@pytest.mark.parametrize("way", ["replicated", "sharded", "both"])
def test_dryrun_prints_a_column_for_each_way(way, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    ways = ["replicated", "sharded"] if way == "both" else [way]
    done = command("dryrun", "mixture", "--sharding", way, "--devices", 2)
    assert f"compiling: {len(ways)} of {len(ways)} programs" in done.stderr
    lines = done.stdout.splitlines()
    columns = {line[:20].strip(): line[22:].split() for line in lines}
    assert columns["GiB on each device"] == ways
    assert all(float(value) > 0 for value in columns["state"][: len(ways)])
    assert len(columns["temporary"]) == len(ways)


def test_dryrun_on_one_device_cuts_nothing():
    found = json.loads(command("dryrun", "digits", "--devices", 1, "--json").stdout)
    assert found["sharded"]["state_bytes_per_device"] == found["replicated"]["state_bytes_per_device"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fashion"], "preset must be one of digits, mixture"),
        (["mixture", "--devices", "0"], "devices must be at least 1, got 0"),
        (["mixture", "--devices", "3"], "batch_size must be divisible by 3, got 512"),
        (["mixture", "--devices", "1000"], "devices must be at most 8"),
    ],
)
def test_dryrun_refuses_what_it_cannot_compile(arguments, expected):
    done = command("dryrun", *arguments)
    assert_one_line(done, expected)
