"""A run's folder that was written before settings were renamed still opens, is sampled, averaged and gone on with."""

import dataclasses
import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from cfgjax import mixtures
from experiments.config.renamed import ADDED, with_older_names
from experiments.config.schema import ADAPTER
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.restore import restore_run
from tests.support.commands import command

FOLDER = Path(__file__).parent.parent / "support" / "run_before_renaming.zip"
"""Four steps of the preset mixture, as ``python -m experiments.train mixture`` left them at version 0.1.0."""
SAME = [
    "--num-steps=4", "--batch-size=16", "--num-microbatches=2", "--save-every=2", "--log-every=1", "--keep.last=1",
    "--optimizer.warmup-steps=1", "--optimizer.average-widths", "0.1",
    "--network.width=8", "--network.depth=1", "--network.embedding-width=8",
    "--sampling.num-steps=4", "--sampling.num-per-class=4", "--sampling.scales", "1", "2",
]  # fmt: skip


@pytest.fixture
def run_dir(tmp_path):
    """The older run."""
    with zipfile.ZipFile(FOLDER) as file:
        file.extractall(tmp_path)
    return tmp_path / "before"


def test_it_was_written_under_the_old_names(run_dir):
    settings = json.loads((run_dir / "config.json").read_text())
    assert (settings["num_chunks"], settings["most_not_finite"]) == (2, 5)


def test_its_settings_are_read_under_the_new_names(run_dir):
    experiment = run_folder.read_config(run_dir)
    assert (experiment.num_microbatches, experiment.max_consecutive_nonfinite) == (2, 5)


def test_a_run_of_images_by_a_transformer_is_read_under_the_new_names(tmp_path):
    experiment = dataclasses.replace(PRESETS["fashion_mnist"][1], run_dir=tmp_path)
    settings = ADAPTER.dump_python(experiment, mode="json")
    settings["data"]["num_labels"] = settings["data"].pop("num_classes")
    settings["network"]["time_ends"] = settings["network"].pop("time_range")
    for name in ADDED:
        *part, setting = name.split(".")
        owner = settings[part[0]] if part else settings
        if owner is not None:
            del owner[setting]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert run_folder.read_config(tmp_path) == experiment
    counted = with_older_names(run_folder.settings_that_count(experiment))
    assert counted.keys() <= run_folder.flat(settings).keys()


def test_its_digest_counts_settings_by_the_names_that_they_had(run_dir):
    written = run_folder.flat(json.loads((run_dir / "config.json").read_text()))
    counted = with_older_names(run_folder.settings_that_count(run_folder.read_config(run_dir)))
    assert counted.keys() <= written.keys()


def test_a_name_that_is_given_twice_is_refused(run_dir):
    settings = json.loads((run_dir / "config.json").read_text())
    settings |= {"num_microbatches": 4}
    (run_dir / "config.json").write_text(json.dumps(settings))
    with pytest.raises(run_folder.UserError, match="num_chunks: Unexpected keyword argument"):
        run_folder.read_config(run_dir)


def test_its_parameters_are_read(run_dir):
    run = restore_run(run_dir)
    assert run.step == 4
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(run.ema))


def test_it_is_sampled_with_an_average_of_its_snapshots(run_dir):
    done = command("sample", run_dir, "--num-steps", 2, "--ema-width", 0.1, "--out", run_dir / "samples.npz")
    assert done.returncode == 0, done.stderr
    assert np.load(run_dir / "samples.npz")["x"].shape == (8, 2)


@pytest.mark.slow
def test_it_is_gone_on_with(run_dir):
    done = command("train", "mixture", "--run-dir", run_dir, *SAME, "--num-steps=8", "--accept", "num_steps")
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    settings = json.loads((run_dir / "config.json").read_text())
    assert (settings["num_microbatches"], settings["num_steps"]) == (2, 8)


def test_a_mixture_has_its_number_of_classes_by_the_older_name_too():
    assert mixtures.ring(4).num_labels == 4
