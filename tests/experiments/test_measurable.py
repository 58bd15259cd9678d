"""Reports of data sets of every small size: what cannot be measured is left out and named, and nothing else is."""

import dataclasses
import itertools
import json
import math
import types

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cfgjax import data, paths
from experiments.config import samplers
from experiments.config.kinds import MixtureData
from experiments.config.networks import MLPNetwork
from experiments.config.schema import Sampling
from experiments.evaluation import images as image_report
from experiments.evaluation import latents, measurable, mixture
from experiments.evaluation.feature_classifier import FeatureClassifier, feature_classifier_of
from experiments.evaluation.guided_samples import BY_CLASSIFIER, FREE
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.run_report import report
from experiments.presets.registry import PRESETS
from experiments.report import html as html_tables
from experiments.report import svg
from experiments.run.fit import prepare
from experiments.run.restore import Run
from experiments.tasks import images as image_task
from experiments.tasks.registry import task_of
from tests.support.commands import SMALL, finish, start

NUMBERS = {
    measurable.RECOGNITION.numbers: lambda found: "recognised" in found["samples"][0],
    measurable.ACCURACY.numbers: lambda found: "recogniser_test_accuracy" in found,
    measurable.DISTANCES.numbers: lambda found: "frechet" in found["samples"][0] and "kernel" in found["samples"][0],
    measurable.NEIGHBOURHOODS.numbers: lambda found: "coverage" in found["samples"][0],
    measurable.COPIES.numbers: lambda found: "copies" in found["samples"][0],
    measurable.BITS.numbers: lambda found: "bits_per_dimension" in found,
    measurable.RESIDUALS.numbers: lambda found: "residuals" in found,
}


def _growth(x, t, y):
    return (0.1 * y + 1) * x


MODEL = types.SimpleNamespace(
    path=paths.linear(),
    field=lambda params: _growth,
    rule=lambda params: samplers.classifier_free(_growth, 2),
    jumps=None,
)


def _task(experiment, num_classes, num_held_out=0):
    """The task of an experiment, of small pictures, so many of them held out."""
    small = {"shape": (2, 2, 1), "num_classes": num_classes, "num_held_out": num_held_out}
    return dataclasses.replace(task_of(experiment, "shapes"), **small)


def _images(num_images, num_classes):
    pixels = np.random.default_rng(num_images).integers(0, 256, (num_images, 2, 2, 1), np.uint8)
    return data.Images(pixels, (np.arange(num_images) % num_classes).astype(np.int32), num_classes)


def _any_classifier(settings, data_dir, train, test, is_kept=True):
    """What stands for the feature classifier: nothing, where it would be trained on two labels or more."""
    if len(np.unique(train.label)) < 2:
        return None
    log_probs = lambda images: np.asarray(jax.nn.log_softmax(images[:, 0, :, 0], axis=1))  # noqa: E731
    return FeatureClassifier(
        lambda images: images.reshape(len(images), -1), log_probs, 0.5 if len(test.label) else None
    )


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The report of a run on pictures, whose data and samples are made up: (counts, options) -> metrics."""

    def of(num_test, num_classes, num_per_class, options, is_drawn=False, test=None, samples=None):
        train, test = _images(7, num_classes), test or _images(num_test, num_classes)
        experiment = dataclasses.replace(
            PRESETS["digits"][1], sampling=Sampling((0.0, 2.0), num_steps=1, num_per_class=num_per_class)
        )
        monkeypatch.setattr(image_task, "load_test", lambda *_: test)
        monkeypatch.setattr(image_task, "load_train", lambda *_: train)
        monkeypatch.setattr(image_report, "feature_classifier_of", _any_classifier)
        if samples is None:
            samples = np.random.default_rng(0).uniform(-1, 1, (2, num_classes, num_per_class, 2, 2, 1))
        guidances = [FREE] + [BY_CLASSIFIER] * (options.log_classifier is not None)
        draws = {(guidance, "heun"): samples for guidance in guidances}
        monkeypatch.setattr(image_report, "guided_draws", lambda *_: (draws, dict.fromkeys(guidances, (0.0, 2.0))))
        if not is_drawn:
            for name in ("write_samples", "draw_curves", "draw_residuals"):
                monkeypatch.setattr(image_report, name, lambda *_: None)
        task = _task(experiment, num_classes, len(test.label))
        return report(Run(experiment, task, MODEL, None), tmp_path, options)

    return of


def _assert_honest(found, asked):
    """Each number is either there or left out with a reason; none of them is not finite."""
    missing = found.get("left_out", {})
    for name, is_there in NUMBERS.items():
        assert is_there(found) == (name in asked and name not in missing), name
    json.loads(json.dumps(found, allow_nan=False))
    if "frechet" in found["samples"][0]:
        assert math.isfinite(found["real_against_real"]["frechet"])
    single, shown = html_tables.of_metrics(found)
    assert "nan" not in json.dumps([single, [table.rows for table in shown]])


ALWAYS = set(NUMBERS) - {measurable.BITS.numbers, measurable.RESIDUALS.numbers}


@pytest.mark.parametrize("num_classes", [1, 2])
def test_reports_of_every_small_size_leave_out_what_they_name(num_classes, measured, capsys):
    for num_test, num_per_class in itertools.product((0, 1, 2, 3, 4, 11, 12), (1, 2, 6)):
        found = measured(num_test, num_classes, num_per_class, EvaluationOptions())
        _assert_honest(found, ALWAYS)
        lines = [line for line in capsys.readouterr().err.splitlines() if line]
        assert len(lines) == ("left_out" in found), lines
        is_whole = num_classes > 1 and num_test >= 12 and num_classes * num_per_class >= 6
        assert ("left_out" not in found) == is_whole


def test_three_pictures_held_out_are_named_with_what_is_needed(measured, capsys):
    found = measured(3, 2, 100, EvaluationOptions())
    assert found["left_out"] == {
        "frechet, kernel": "needs 4 pictures held out, there are 3",
        "precision, recall, density, coverage": "needs 12 pictures held out, there are 3",
    }
    said = capsys.readouterr()
    assert said.err.startswith("warning: left out of the report: frechet, kernel (needs 4 pictures held out, there are")
    assert "wrote curves.csv, metrics.json in" in said.out


def test_features_of_ones_own_need_no_labels(measured):
    mean = lambda images: images.mean(axis=(2, 3))  # noqa: E731
    found = measured(12, 1, 6, EvaluationOptions(features=mean))
    assert set(found["left_out"]) == {"recognised", "feature classifier's accuracy"}
    assert np.isfinite(found["samples"][0]["frechet"])


def test_pictures_that_repeat_are_told_and_measure_nothing(measured, capsys):
    """Two pictures twenty times each, which are training pictures too: no ball has a radius, no copy can be told."""
    twice = data.Images(np.tile(_images(7, 2).pixels[:2], (20, 1, 1, 1)), np.tile(np.int32([0, 1]), 20), 2)
    found = measured(40, 2, 10, EvaluationOptions(), test=twice)
    assert found["left_out"] == {
        "precision, recall, density, coverage": "every picture of the reference repeats more than 5 times",
        "copies": "the pictures held out repeat training pictures",
    }
    _assert_honest(found, ALWAYS)
    some = data.Images(np.concatenate([twice.pixels, _images(40, 2).pixels]), np.tile(np.int32([0, 1]), 40), 2)
    found = measured(80, 2, 20, EvaluationOptions(), test=some)
    assert 0 < found["samples"][0]["coverage"] < 1
    assert "pictures of the reference repeat more than 5 times: precision, density" in capsys.readouterr().err


def test_samples_that_repeat_are_told_in_one_line(measured, capsys):
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 2, 6, 2, 2, 1))
    samples[1] = samples[1, :1, :1]
    found = measured(12, 2, 6, EvaluationOptions(), samples=samples)
    assert [row.get("repeated_samples", 0) for row in found["samples"]] == [0, 12]
    assert found["samples"][1]["recall"] == 0
    expected = (
        "warning: 12 samples of classifier-free, heun at w = 2 repeat more than 5 times, the most of all: recall "
    )
    assert capsys.readouterr().err.startswith(expected)


def test_features_that_tell_nothing_apart_measure_nothing(measured):
    found = measured(12, 2, 6, EvaluationOptions(features=lambda images: np.ones((len(images), 3))))
    assert set(found["left_out"].values()) == {"the features of all 12 pictures held out are alike"}
    _assert_honest(found, ALWAYS)


@pytest.mark.parametrize(("num_test", "num_classes"), [(0, 2), (1, 2), (2, 1)])
def test_a_classifier_and_likelihoods_are_left_out_alike(num_test, num_classes, measured, monkeypatch, capsys):
    monkeypatch.setattr(image_report, "residuals", lambda *_: [{"t": 0.5, "guidance_cosine": math.nan}])
    constant = lambda x, t: jax.nn.log_softmax(np.zeros(num_classes) + x.sum())  # noqa: E731
    found = measured(num_test, num_classes, 1, EvaluationOptions(log_classifier=constant, num_likelihoods=8))
    if "residuals" in found:
        assert found["residuals"] == [{"t": 0.5}]
        assert found["left_out"].pop("guidance_cosine") == "not finite"
    _assert_honest(found, set(NUMBERS))
    if measurable.BITS.numbers not in found["left_out"]:
        assert found["bits_per_dimension"]["null"]["num_images"] == num_test
        assert f"bits per dimension are of all {num_test} pictures held out, not 8" in capsys.readouterr().err


@pytest.mark.parametrize(("num_test", "num_classes", "num_per_class"), [(0, 1, 1), (5, 2, 1), (12, 2, 3)])
def test_pictures_of_little_are_drawn(num_test, num_classes, num_per_class, measured, tmp_path):
    measured(num_test, num_classes, num_per_class, EvaluationOptions(), is_drawn=True)
    assert (tmp_path / "samples.png").stat().st_size > 1000
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert len((tmp_path / "curves.csv").read_text().splitlines()) == 3


def test_samples_of_a_mixture_lie_in_their_panels_under_titles_apart(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    names = ("inside, jump 1", "inside, jump 2", "teacher, heun 32")
    points = 4 * np.random.default_rng(0).normal(size=(2, 2, 50, 2))
    mixture.draw_samples(dict.fromkeys(names, points), (1.0, 2.5), tmp_path / "samples.png")
    (figure,) = figures
    figure.canvas.draw()
    titles = [axes.title.get_window_extent() for axes in figure.axes[: 2 * len(names)]]
    assert all(one.x1 < next_one.x0 for one, next_one in itertools.pairwise(titles))
    for axes in figure.axes:
        (drawn,) = axes.collections
        assert np.all(np.abs(drawn.get_offsets()) < axes.get_xlim()[1])


def test_a_mixture_of_one_label_has_no_rate_of_recognition(monkeypatch, tmp_path):
    for name in ("draw_samples", "draw_densities"):
        monkeypatch.setattr(mixture, name, lambda *_: None)
    monkeypatch.setattr(mixture, "_class_accuracy", lambda *_: 0.5)
    monkeypatch.setattr(mixture, "field_errors", lambda *_: {"labelled": [0.5], "null": [math.inf]})
    monkeypatch.setattr(mixture, "_density_draws", lambda *_: np.random.default_rng(0).normal(size=(4, 9, 2)))
    for num_classes in (1, 2):
        monkeypatch.setattr(
            mixture, "guided_draws", lambda *_, k=num_classes: ({("", "heun"): np.ones((4, k, 1, 2))}, {})
        )
        settings = MixtureData(num_classes=num_classes)
        experiment = dataclasses.replace(PRESETS["mixture"][1], data=settings)
        found = report(Run(experiment, task_of(experiment), MODEL, None), tmp_path)
        assert ("recognised" in found["samples"][0]) == (num_classes == 2) == ("recognised" not in found["left_out"])
        assert found["left_out"]["null"] == "not finite"
        assert found["relative_error"] == {"labelled": 0.5}
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("num_test", "num_classes"), [(1, 1), (0, 2)])
def test_a_classifier_that_nothing_tests_has_a_report_without_numbers(num_test, num_classes, monkeypatch, tmp_path):
    experiment = PRESETS["fashion_mnist_classifier"][1]
    monkeypatch.setattr(image_task, "load_test", lambda *_: _images(num_test, num_classes))
    found = report(Run(experiment, _task(experiment, num_classes, num_test), None, None), tmp_path)
    assert set(found["left_out"]) == {measurable.BY_TIME.numbers}
    assert "by_time" not in found


def test_what_cannot_be_measured_is_told_before_training(capsys):
    small = MLPNetwork(width=8, depth=1, embedding_width=8)
    prepare(dataclasses.replace(PRESETS["mixture"][1], data=MixtureData(num_classes=1), network=small))
    assert capsys.readouterr().err == (
        "warning: left out of the report: recognised (needs 2 labels with training examples, there is 1)\n"
    )


@pytest.mark.slow
def test_two_folders_of_twelve_pictures_train_and_are_measured(tmp_path):
    """The line comes before the first step and after the last; what is left is in the run's page."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    for index, one in enumerate(pixels):
        folder = tmp_path / "pictures" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{index}.png")
    place = ["--data-dir", tmp_path / "data"]
    done = finish(start("prepare", "pets", "--source", tmp_path / "pictures", "--image-size", 8, *place))
    assert done.returncode == 0, done.stderr
    arguments = [
        "digits",
        "--data.name",
        "pets",
        "--data.num-classes",
        2,
        "--data.shape",
        8,
        8,
        1,
        *place,
        "--run-dir",
        tmp_path / "run",
        *SMALL,
        "--batch-size",
        8,
    ]
    done = finish(start("train", *arguments))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out of the report: frechet, kernel (needs 4 pictures held out, there are ") == 2
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(found["left_out"]) == {measurable.DISTANCES.numbers, measurable.NEIGHBOURHOODS.numbers}
    assert all(0 <= row["recognised"] <= 1 for row in found["samples"])
    assert finish(start("report", tmp_path / "run")).returncode == 0
    assert "needs 12 pictures held out" in (tmp_path / "run" / "report.html").read_text()


def test_what_is_written_is_named_and_nothing_else(monkeypatch, tmp_path, capsys):
    """Of latents there is no picture; one that lies there from another report is not written now."""
    drawn = {(FREE, solver): np.zeros((1, 2, 1, 4, 4, 4)) for solver in ("heun", "euler")}
    monkeypatch.setattr(latents, "guided_draws", lambda *_: (drawn, {FREE: (1.0,)}))
    (tmp_path / "residuals.png").write_bytes(b"old")
    experiment = PRESETS["imagenet256_latent"][1]
    report(Run(experiment, task_of(experiment, "shapes"), MODEL, None), tmp_path)
    names = "metrics.json, samples-classifier-free-euler.npz, samples-classifier-free-heun.npz"
    hint, written = capsys.readouterr().out.splitlines()
    assert hint.startswith("samples are kept as latents; add --autoencoder PATH, the weights or the run that encoded")
    assert written == f"wrote {names} in {tmp_path}"


def test_no_feature_classifier_is_trained_on_one_label(tmp_path):
    for num_classes in (1, 3):
        train_set = _images(6, num_classes)._replace(label=np.zeros(6, np.int32))
        assert feature_classifier_of(PRESETS["digits"][1].data, tmp_path, train_set, _images(2, 1)) is None
    assert not list(tmp_path.iterdir())


def test_curves_of_a_run_without_numbers_are_not_drawn():
    assert svg.draw([], []) == []
    nothing = svg.draw([{"step": 1, "loss": math.nan, "grad_norm": math.nan}], [])
    assert [panel.title for panel in nothing] == ["Loss", "Gradient norm"]


def test_a_report_removes_what_an_earlier_one_alone_wrote(monkeypatch, tmp_path):
    """Pictures by an autoencoder would stand beside later samples; what no report wrote stays."""
    monkeypatch.setattr(latents, "guided_draws", lambda *_: ({("", "heun"): np.ones((1, 1, 1, 2, 2, 4))}, {"": (1.0,)}))
    experiment = PRESETS["fashion_latents"][1]
    run = Run(experiment, task_of(experiment, "shapes"), None, MODEL)
    mine = ["notes.png", "samples-mine.npz"]
    for name in ("samples.png", "samples--euler.npz", *mine):
        (tmp_path / name).touch()
    report(run, tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    report(run, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["metrics.json", "samples--heun.npz", *mine])
