"""The record of a kind of data: what is read and what the config tells give the same task, and one place chooses it."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from experiments.config.kinds import ConditionedData, LatentData
from experiments.presets.registry import PRESETS
from experiments.tasks.registry import facts_of, task_of, with_facts
from experiments.tasks.task import TaskFacts
from tests.support import told

CHOICE = re.compile(r"isinstance\([^)]*\w+Data\b|case \w+Data\(|objective [!=]= ")


KINDS = (
    "mixture",
    "images",
    "images read ahead",
    "latents",
    "noisy classifier",
    "autoencoder",
    "measured digits",
    "described digits",
    "told",
)


@pytest.fixture(params=KINDS)
def experiment(request, tmp_path, data_dir):
    """An experiment of each kind of data."""
    digits = dataclasses.replace(PRESETS["digits"][1], data_dir=data_dir, batch_size=16)
    read_ahead = dataclasses.replace(digits.data, in_memory=False)
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "latents.npy", np.random.default_rng(0).normal(size=(60, 4, 4, 2)).astype(np.float32))
    np.save(tmp_path / "mine" / "labels.npy", np.arange(60) % 3)
    latents = LatentData(Path("mine"), (4, 4, 2), num_classes=3, num_held_out=8)
    told.write_rows(tmp_path / "told", told.rows())
    pictures = ConditionedData(Path("told"), label="label", numbers=("bright", "count"), text="caption")
    return {
        "told": dataclasses.replace(digits, data=pictures, data_dir=tmp_path),
        "mixture": dataclasses.replace(PRESETS["mixture"][1], batch_size=16),
        "images": digits,
        "images read ahead": dataclasses.replace(digits, data=read_ahead),
        "latents": dataclasses.replace(digits, data=latents, data_dir=tmp_path),
        "noisy classifier": dataclasses.replace(digits, objective="classifier"),
        "autoencoder": dataclasses.replace(digits, objective="autoencoder"),
        "measured digits": dataclasses.replace(digits, data=PRESETS["measured_digits"][1].data),
        "described digits": dataclasses.replace(digits, data=PRESETS["described_digits"][1].data),
    }[request.param]


def _forms(tree):
    return jax.tree.map(lambda leaf: (leaf.shape[1:], np.dtype(leaf.dtype)), tree)


def _leaves(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def test_what_the_config_tells_is_what_is_read(experiment, tmp_path):
    read = task_of(experiment)
    told = with_facts(experiment, read)
    elsewhere = dataclasses.replace(told, data_dir=tmp_path / "nowhere")
    abstract, facts = task_of(elsewhere, "shapes"), facts_of(elsewhere)
    assert type(facts) is TaskFacts
    for name in ("shape", "num_classes", "class_names", "absent_labels", "label_texts", "objective"):
        assert getattr(facts, name) == getattr(abstract, name) == getattr(read, name), name
    assert abstract.measures_images == read.measures_images
    batch, of_shapes = next(read.batches(range(1))), next(abstract.batches(range(1)))
    assert jax.tree.map(np.shape, batch) == jax.tree.map(lambda leaf: leaf.shape, of_shapes)
    assert _forms(batch) == _forms(of_shapes)
    assert _forms(read.source) == _forms(abstract.source)


def test_one_example_is_a_data_point_and_its_condition(experiment):
    task = task_of(experiment)
    one = jax.tree.map(lambda leaf: leaf[0], next(task.batches(range(1))))
    if task.source is not None:
        one = jax.tree.map(lambda leaf: leaf[one], task.source)
    z, y = task.example(jax.random.key(0), one)
    x, *others = task.inputs
    assert (z.shape, z.dtype) == (x.shape, x.dtype)
    assert [_leaves(each) for each in others[1:]] == [_leaves(y)] * task.objective.is_field
    assert np.all(0 <= task.conditions.labels(jax.tree.map(lambda leaf: leaf[np.newaxis], y)) < task.num_classes)


def test_one_place_asks_for_the_kind_of_data():
    (root,) = map(Path, experiments.__path__)
    asking = [str(file.relative_to(root)) for file in root.rglob("*.py") if CHOICE.search(file.read_text())]
    assert asking == ["tasks/registry.py"]
