"""Labels by name: of a folder's pictures, from the data set to the config, pictures, tables and --labels."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cfgjax import data
from experiments.cli.main import UserError
from experiments.config.schema import ADAPTER
from experiments.evaluation.images import _named
from experiments.figures.fonts import in_legend
from experiments.figures.image_grid import show_grid
from experiments.presets.registry import PRESETS
from experiments.report import html as html_tables
from experiments.run import folder as run_folder
from experiments.tasks.label_names import labels_called, names_to_tell
from experiments.tasks.registry import task_of, with_facts
from tests.support.commands import SMALL, assert_one_line, command

NAMES = ("2$ and 5$", "circle", "x" * 60)


def _write_pictures(folder, names):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(40):
            pixels = np.random.default_rng(index).integers(80 * label, 80 * label + 60, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with two prepared sets of the same pictures: ``own`` with names, ``other`` with two of them renamed."""
    folder = tmp_path_factory.mktemp("own")
    for name, names in (("own", NAMES), ("other", (*NAMES[:1], "oval", NAMES[2])), ("numbers", ("1", "10", "2"))):
        _write_pictures(folder / "pictures" / name, names)
        data.prepare(name, folder, source=folder / "pictures" / name)
    return folder


def _experiment(own, name="own", **settings):
    experiment = PRESETS["digits"][1]
    its_data = dataclasses.replace(experiment.data, name=name, num_classes=3, shape=(8, 8, 1), **settings)
    return dataclasses.replace(experiment, data=its_data, data_dir=own, batch_size=16)


def test_a_config_tells_the_names_of_its_data(own):
    experiment = _experiment(own)
    told = with_facts(experiment, task_of(experiment))
    assert told.data.label_names == NAMES == task_of(told, "shapes").label_texts
    assert task_of(experiment, "shapes").label_texts == ("0", "1", "2")
    assert ADAPTER.validate_json(ADAPTER.dump_json(told), strict=True) == told
    assert run_folder._difference(experiment, told) is None


def test_numbers_in_their_order_are_no_names(data_dir):
    experiment = dataclasses.replace(PRESETS["digits"][1], data_dir=data_dir)
    assert with_facts(experiment, task_of(experiment)).data.label_names is None


def test_a_set_whose_labels_were_renamed_is_another(own):
    told = with_facts(_experiment(own), task_of(_experiment(own)))
    renamed = dataclasses.replace(told, data=dataclasses.replace(told.data, name="other"))
    with pytest.raises(UserError, match=r"^data\.label_names\[1\] is circle, but the data set has oval$"):
        task_of(renamed)
    other = dataclasses.replace(told, data=dataclasses.replace(told.data, label_names=(*NAMES[:2], "y" * 60)))
    assert run_folder._difference(told, other) == ("data.label_names[2]", "x" * 60, "y" * 60)


def test_names_that_a_data_set_no_longer_tells_are_kept(own, tmp_path):
    told = with_facts(_experiment(own), task_of(_experiment(own)))
    told = dataclasses.replace(told, run_dir=tmp_path)
    run_folder.open_run(told)
    run_folder.open_run(dataclasses.replace(told, data=dataclasses.replace(told.data, label_names=None)))
    assert run_folder.read_config(tmp_path).data.label_names == NAMES


def test_names_change_no_digest_of_the_settings(own):
    told = with_facts(_experiment(own), task_of(_experiment(own)))
    untold = dataclasses.replace(told, data=dataclasses.replace(told.data, label_names=None))
    assert run_folder.settings_that_count(told) == run_folder.settings_that_count(untold)


@pytest.mark.parametrize("names", [("cat", "\x1b[31m"), ("x" * 101, "cat"), tuple(f"n{y}" for y in range(1001)), None])
def test_names_that_do_not_fit_a_config_are_not_told(names):
    assert names_to_tell(names) is None
    assert names_to_tell(("cat", "dog")) == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        (("cat", "dog"), (), []),
        (("cat", "dog"), ("dog", "0", "2", "null"), [1, 0, 2, 2]),
        (("1", "10", "2"), ("10", "2", "null"), [1, 2, 3]),
        (("1", "2", "3"), ("3", "null"), [2, 3]),
        (("None", "cat"), ("None",), [0]),
        (("null", "cat"), ("null", "2"), [0, 2]),
        (("0", "1"), ("1", "2", "null"), [1, 2, 2]),
    ],
)
def test_labels_are_asked_for_by_name_or_by_number(names, words, expected):
    assert labels_called("labels", words, names) == expected


@pytest.mark.parametrize(
    ("names", "word", "allowed"),
    [
        (("cat", "dog"), "Cat", "one of cat, dog, or in 0..2 (2 is null), got Cat"),
        (("cat", "dog"), "3", "one of cat, dog, or in 0..2 (2 is null), got 3"),
        (("1", "10", "2"), "0", "one of 1, 10, 2, or null, got 0"),
        (("1", "2", "3"), "0", "one of 1, 2, 3, or null, got 0"),
        (tuple("abcdefghijklm"), "z", "one of a, b, c, d, e, f, g, h, i, j, ..., or in 0..13 (13 is null), got z"),
        (("0", "1"), "cat", "in 0..2 (2 is null), got cat"),
        (("0", "1"), "-1", "in 0..2 (2 is null), got -1"),
    ],
)
def test_a_label_that_is_none_is_told_what_is_allowed(names, word, allowed):
    with pytest.raises(UserError) as told:
        labels_called("labels", (word,), names)
    assert str(told.value) == f"labels must be {allowed}"


def test_names_stand_at_the_rows_of_a_sheet_as_they_are_written(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    names = (*NAMES, "\u732b", "\x1b[31m", "_x")
    show_grid(axes, np.zeros((2, 6, 4, 4, 1)), (0.0, 2.0), names)
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == [r"2\$ and 5\$", "circle", "x" * 27 + "...", "3", "4", "_x"]
    figure.savefig(tmp_path / "sheet.png")


def test_a_legend_leaves_no_label_out():
    axes = Figure().subplots()
    for y, label in enumerate(("_background", "cat", "2")):
        axes.plot([0, 1], label=in_legend(y, label))
    assert [text.get_text() for text in axes.legend().get_texts()] == ["0 _background", "1 cat", "2"]


def test_the_class_accuracy_is_given_by_name():
    rows = [{"guidance": "free", "solver": "heun", "scale": 2.0, "by_label": [{"label": 0, "recognised": 0.5}]}]
    (named,), (numbered,) = _named(rows, ("cat",)), _named(rows, ("0",))
    assert named["by_label"] == [{"label": 0, "name": "cat", "recognised": 0.5}]
    assert numbered == rows[0]
    assert [html_tables.by_class([row])[0].rows[0] for row in (named, numbered)] == [
        ["0 cat", "50.0 %"],
        ["0", "50.0 %"],
    ]


@pytest.mark.slow
def test_a_run_on_own_pictures_knows_their_names(own, tmp_path):
    run_dir = tmp_path / "run"
    options = ["--data-dir", own, "--data.num-classes", 3, *SMALL]
    done = command("train", "digits", "--run-dir", run_dir, "--data.name", "own", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / "config.json").read_text())["data"]["label_names"] == list(NAMES)
    rows = json.loads((run_dir / "metrics.json").read_text())["samples"]
    assert [one["name"] for one in rows[0]["by_label"]] == list(NAMES)
    found = {}
    for words in (("circle", "null"), ("1", "3")):
        out = tmp_path / f"{words[0]}.npz"
        assert command("sample", run_dir, "--labels", *words, "--num-steps", 4, "--out", out).returncode == 0
        found[words] = np.load(out)
    np.testing.assert_array_equal(*(arrays["x"] for arrays in found.values()))
    assert found["circle", "null"]["y"].tolist() == [1, 3]
    assert command("diagnose", run_dir, "--num-steps", 2, "--num-per-class", 1, "--out", tmp_path / "d.png")[0] == 0
    done = command("train", "digits", "--run-dir", run_dir, "--data.name", "numbers", *options)
    assert_one_line(done, "holds a run with data.label_names[0] = ")
