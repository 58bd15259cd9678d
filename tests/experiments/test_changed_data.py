"""A run knows the data that it began on: others in their place are refused, or taken on purpose."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cfgjax import checkpoints, data
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.networks import DiTNetwork
from experiments.evaluation.feature_classifier import folder_of
from experiments.presets.registry import PRESETS
from experiments.run import ema_snapshots
from experiments.run import folder as run_folder
from experiments.run.fit import fit
from experiments.run.restore import Run, restore_run, warn_of_other_data
from experiments.tasks.registry import task_of, with_facts
from tests.support.pictures import stripes, write_idx


def _prepared(folder, train, test):
    """A data folder with a set named fashion_mnist of these pictures and labels."""
    for prefix, arrays in (("train", train), ("t10k", test)):
        write_idx(folder / "idx", prefix, *arrays)
    data.prepare("fashion_mnist", folder, source=folder / "idx")
    return folder


def _with_one_other_pixel(images, labels):
    images = images.copy()
    images[-1, 5, 5] ^= 1
    return images, labels


def _with_two_labels_exchanged(images, labels):
    labels = labels.copy()
    labels[[3, 4]] = labels[[4, 3]]
    return images, labels


TRAIN, TEST = stripes(1100, 0), stripes(20, 1)
OTHERS = {
    "another pixel": (_with_one_other_pixel(*TRAIN), TEST),
    "other labels": (_with_two_labels_exchanged(*TRAIN), TEST),
    "fewer": (tuple(array[:-1] for array in TRAIN), TEST),
    "another held-out pixel": (TRAIN, _with_one_other_pixel(*TEST)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data folders that hold sets of one name: the first, the same prepared anew, and others."""
    sets = {"first": (TRAIN, TEST), "again": (TRAIN, TEST), **OTHERS}
    root = tmp_path_factory.mktemp("changed")
    return {name: _prepared(root / name.replace(" ", "_"), *splits) for name, splits in sets.items()}


def _told(data_dir, run_dir, **settings):
    preset = PRESETS["fashion_mnist"][1]
    asked = dataclasses.replace(preset, data=dataclasses.replace(preset.data, **settings), data_dir=data_dir)
    asked = dataclasses.replace(asked, run_dir=run_dir, batch_size=16)
    return with_facts(asked, task_of(asked))


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_refuses_other_data_of_the_same_name_and_takes_them_on_purpose(name, folders, tmp_path):
    run_folder.open_run(_told(folders["first"], tmp_path))
    first = run_folder.read_config(tmp_path)
    run_folder.open_run(_told(folders["again"], tmp_path))
    other = _told(folders[name], tmp_path)
    split = "held-out" if "held-out" in name else "training"
    with pytest.raises(UserError, match=rf"{split} data .* are not those that .* began on.*--accept data"):
        run_folder.open_run(other)
    assert run_folder.read_config(tmp_path).data == first.data
    run_folder.open_run(other, ("data",))
    run_folder.open_run(other)
    assert run_folder.read_config(tmp_path).data != first.data


def test_data_read_from_disk_are_known_by_a_sample_of_them(folders, tmp_path):
    """1,024 of the 1,100 examples: the last pixel is among them, and a set that lies in memory is the same set."""
    run_folder.open_run(_told(folders["first"], tmp_path))
    run_folder.open_run(_told(folders["again"], tmp_path, in_memory=False))
    whole = run_folder.read_config(tmp_path).data.train_digest
    with pytest.raises(UserError, match="--accept data"):
        run_folder.open_run(_told(folders["another pixel"], tmp_path, in_memory=False))
    with pytest.raises(UserError, match="--accept data"):
        run_folder.open_run(_told(folders["other labels"], tmp_path))
    assert whole == _told(folders["first"], tmp_path).data.train_digest


def test_a_run_of_an_early_version_opens_with_a_warning(folders, tmp_path, capsys):
    told = _told(folders["first"], tmp_path)
    run_folder.open_run(told)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["data"]["train_digest"], config["data"]["test_digest"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    run_folder.open_run(told)
    assert "does not record the data that it began on" in capsys.readouterr().err
    assert run_folder.read_config(tmp_path).data == told.data


def test_latents_are_known_by_all_labels_and_a_sample_of_rows(tmp_path):
    (tmp_path / "mine").mkdir()
    latents, labels = np.random.default_rng(0).normal(size=(3000, 2, 2, 1)).astype(np.float32), np.arange(3000) % 4

    def told():
        np.save(tmp_path / "mine" / "latents.npy", latents)
        np.save(tmp_path / "mine" / "labels.npy", labels)
        settings = LatentData(Path("mine"), (2, 2, 1), 4)
        asked = dataclasses.replace(PRESETS["imagenet256_latent"][1], data=settings, data_dir=tmp_path)
        asked = dataclasses.replace(asked, run_dir=tmp_path / "run", batch_size=16)
        return with_facts(asked, task_of(asked))

    (tmp_path / "run").mkdir()
    run_folder.open_run(told())
    run_folder.open_run(told())
    latents[0, 0, 0, 0] += 1
    with pytest.raises(UserError, match="--accept data"):
        run_folder.open_run(told())
    latents[0, 0, 0, 0] -= 1
    labels[1234] = 3 - labels[1234]
    with pytest.raises(UserError, match="--accept data"):
        run_folder.open_run(told())


def test_the_feature_classifier_of_other_pictures_is_another(tmp_path):
    """By all pictures, those behind the first thousand, too."""
    settings = PRESETS["fashion_mnist"][1].data
    train = data.Images(TRAIN[0][..., None], TRAIN[1].astype(np.int32), 10)
    other = train._replace(pixels=_with_one_other_pixel(*TRAIN)[0][..., None])
    assert folder_of(settings, tmp_path, train) == folder_of(settings, tmp_path, train._replace())
    assert folder_of(settings, tmp_path, other) != folder_of(settings, tmp_path, train)


def test_a_run_that_guides_another_of_other_data_is_a_warning(folders, tmp_path, capsys):
    guided, other = (Run(_told(folders[name], tmp_path), None, None, None) for name in ("first", "another pixel"))
    warn_of_other_data("classifier", guided, guided)
    assert not capsys.readouterr().err
    warn_of_other_data("classifier", other, guided)
    assert "warning: classifier" in capsys.readouterr().err


def test_snapshots_behind_the_step_of_a_resume_are_saved_again(tmp_path):
    """They may be of other data: what is kept are those up to the step."""
    with checkpoints.Writer(ema_snapshots.folder_of(tmp_path), checkpoints.RetentionPolicy(last=None)) as writer:
        for step in (10, 20, 30):
            writer.save(step, {"averages": (np.ones(2, np.float32),)}, {})
    ema_snapshots.rewind(tmp_path, 20)
    assert checkpoints.all_steps(ema_snapshots.folder_of(tmp_path)) == [20, 10]


@pytest.mark.slow
def test_a_finished_run_refuses_other_data_and_is_restored_with_a_warning(folders, tmp_path, capsys):
    preset = PRESETS["fashion_mnist"][1]
    small = {
        "network": DiTNetwork(16, 1, 2, 4),
        "num_steps": 4,
        "save_every": 4,
        "batch_size": 16,
        "num_microbatches": 1,
    }
    first = dataclasses.replace(preset, run_dir=tmp_path / "run", data_dir=folders["first"], **small)
    other = dataclasses.replace(first, data_dir=folders["another pixel"])
    fit(first)
    with pytest.raises(UserError, match="other contents of the 1100 examples; pass --run-dir"):
        fit(other)
    restore_run(first.run_dir)
    assert "data" not in capsys.readouterr().err
    restore_run(first.run_dir, other.data_dir)
    assert "warning: the training data in" in capsys.readouterr().err
    fit(other, ("data",))
    assert "they are accepted" in capsys.readouterr().err
    restore_run(first.run_dir, other.data_dir)
    assert "data" not in capsys.readouterr().err
