"""Labels without a training example: told, and left out of what is drawn unasked and of what is measured."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import data, paths
from experiments.config.kinds import LatentData
from experiments.config.samplers import ODE, classifier_free
from experiments.config.schema import ADAPTER, Sampling
from experiments.evaluation.guided_samples import draw_sweep
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.restore import Run
from experiments.sample.__main__ import _conditions
from experiments.sample.options import SampleOptions
from experiments.tasks.label_names import ranges
from experiments.tasks.registry import facts_of, task_of, with_facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of four classes, of which the first and the third do not read, and latents of labels 1 and 3 of 4."""
    folder = tmp_path_factory.mktemp("absent")
    for label in range(4):
        (folder / "pictures" / f"class{label}").mkdir(parents=True)
        for index in range(40):
            file = folder / "pictures" / f"class{label}" / f"{index:02}.png"
            Image.fromarray(np.full((8, 8), 60 * label + index, np.uint8)).save(file)
            if label in (0, 2):
                file.write_bytes(b"")
    data.prepare("mine", folder, source=folder / "pictures", on_corrupt="skip")
    (folder / "latents").mkdir()
    np.save(folder / "latents" / "latents.npy", np.random.default_rng(0).normal(size=(64, 8, 8, 1)) / 0.18215)
    np.save(folder / "latents" / "labels.npy", np.arange(64) % 2 * 2 + 1)
    return folder


def _experiment(folder, kind):
    preset = PRESETS["digits"][1]
    sampling = Sampling(scales=(1.0, 2.0), num_steps=2, num_per_class=3)
    its_data = {
        "pictures": dataclasses.replace(preset.data, name="mine", num_classes=4),
        "latents": LatentData(Path("latents"), shape=(8, 8, 1), num_classes=4, num_held_out=8),
    }[kind]
    return dataclasses.replace(preset, data=its_data, data_dir=folder, batch_size=16, sampling=sampling)


@pytest.fixture(params=["pictures", "latents"])
def told(request, folder):
    """The experiment as its run folder tells it."""
    experiment = _experiment(folder, request.param)
    return with_facts(experiment, task_of(experiment))


def test_they_are_told_when_training_starts_and_in_the_config(told, capsys):
    task = task_of(told)
    assert "warning: 2 of 4 labels have no training example: 0, 2; they are not learned" in capsys.readouterr().err
    assert task.labels.tolist() == [1, 3]
    assert told.data.absent_labels == (0, 2)
    assert ADAPTER.validate_json(ADAPTER.dump_json(told), strict=True) == told
    assert task_of(told, "shapes").labels.tolist() == [1, 3]


def test_a_run_of_before_they_were_told_goes_on(told):
    untold = dataclasses.replace(told, data=dataclasses.replace(told.data, absent_labels=None))
    assert run_folder._difference(untold, told) is None
    assert run_folder.settings_that_count(untold) == run_folder.settings_that_count(told)
    assert task_of(untold, "shapes").labels.tolist() == [0, 1, 2, 3]


def test_they_are_drawn_only_where_they_are_asked_for(told):
    told = facts_of(told).conditions
    assert _conditions(SampleOptions(), told).tolist() == [1, 3]
    assert _conditions(SampleOptions(num_samples=5), told).tolist() == [1, 3, 1, 3, 1]
    assert _conditions(SampleOptions(("0", "1")), told).tolist() == [0, 1]


def test_a_report_draws_the_others_in_their_place(told):
    """The field leads every label to its own number, so that the samples tell their labels."""
    task = task_of(told, "shapes")
    field = lambda x, t, y: (jnp.asarray(y, jnp.float32) - x) / (1.001 - t)  # noqa: E731
    run = Run(told, task, SimpleNamespace(path=paths.linear()), ema=None)
    samples = draw_sweep(run, classifier_free(field, 4), ODE, (1.0,))
    assert samples.shape == (1, 2, 3, 8, 8, 1)
    np.testing.assert_allclose(samples.mean(axis=(0, 2, 3, 4, 5)), [1, 3], atol=0.05)


@pytest.mark.parametrize(
    ("labels", "text"),
    [((), ""), ((4,), "4"), ((0, 1, 2), "0..2"), (range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14, ...")],
)
def test_many_labels_are_told_in_short(labels, text):
    assert ranges(labels) == text
