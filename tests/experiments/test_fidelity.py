"""The evaluation of images: curves, classifier guidance beside classifier-free, likelihoods, features of one's own."""

import contextlib
import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import data, guidance, mixtures, paths
from experiments.cli.main import UserError
from experiments.evaluation.classifier import by_time
from experiments.evaluation.feature_classifier import FeatureClassifier, feature_classifier_of, folder_of
from experiments.evaluation.fidelity import measure, reference_of
from experiments.evaluation.images import at_equal_recognition
from experiments.evaluation.likelihoods import bits_per_dimension
from experiments.evaluation.residuals import residuals
from experiments.presets.registry import PRESETS
from experiments.run.restore import classifier_for, restore_run, restore_without_data
from tests.support.commands import assert_one_line, command

pytestmark = pytest.mark.slow

NUM_CLASSES = 3


def _two_pixels(num_images):
    """Images [n, 1, 2, 1] with values of a mixture, and the mixture itself."""
    mixture = mixtures.ring(NUM_CLASSES, radius=0.6, std=0.1)
    labels = np.arange(num_images) % NUM_CLASSES
    keys = jax.random.split(jax.random.key(0), num_images)
    points = jax.vmap(mixture.sample)(keys, jnp.asarray(labels))
    pixels = data.to_pixels(np.asarray(points).reshape(num_images, 1, 2, 1))
    return data.Images(pixels, labels.astype(np.int32), NUM_CLASSES), mixture


def _as_image(field):
    return lambda x, t, *y: field(x.reshape(-1), t, *y).reshape(x.shape)


def _honest(images):
    """A classifier that knows the label of each image by its mean's angle, and raw pixels as features."""
    centres = np.stack([images.image[images.label == label].mean(axis=0) for label in range(NUM_CLASSES)]).reshape(3, 2)

    def log_probs(batch):
        squares = np.sum((batch.reshape(-1, 1, 2) - centres.reshape(1, 3, 2)) ** 2, axis=-1)
        return np.asarray(jax.nn.log_softmax(-50 * squares, axis=1))

    return FeatureClassifier(lambda batch: batch.reshape(len(batch), -1), log_probs, 1.0)


@pytest.fixture(scope="module")
def measured():
    images, _ = _two_pixels(3000)
    reference = reference_of(_honest(images), images)

    def of(samples):
        return measure(samples.reshape(NUM_CLASSES, -1, 1, 2, 1), np.arange(NUM_CLASSES), reference)

    return images, of


def _by_label(images, count):
    return np.concatenate([images.image[images.label == label][:count] for label in range(NUM_CLASSES)])


def test_real_images_measure_as_perfect(measured):
    images, of = measured
    found = of(_by_label(images, 300))
    assert found["recognised"] > 0.99
    assert found["frechet"] < 0.01
    assert found["coverage"] > 0.9
    assert [row["label"] for row in found["by_label"]] == [0, 1, 2]
    assert all(row["frechet"] < 0.01 for row in found["by_label"])


def test_labels_that_were_not_drawn_are_in_no_mean(measured):
    images, _ = measured
    reference = reference_of(_honest(images), images)
    real = _by_label(images, 100).reshape(NUM_CLASSES, 100, 1, 2, 1)
    found = measure(real[[0, 2]], np.array([0, 2]), reference)
    assert found["recognised"] > 0.99
    assert [row["label"] for row in found["by_label"]] == [0, 2]
    assert all(row["recognised"] > 0.99 and row["frechet"] < 0.05 for row in found["by_label"])


def test_faults_of_samples_show_where_they_should(measured):
    """Swapped labels spoil recognition alone; collapsed ones coverage; shifted ones the distances."""
    images, of = measured
    real = _by_label(images, 300)
    perfect = of(real)
    swapped = of(real.reshape(3, 300, 1, 2, 1)[::-1])
    assert swapped["recognised"] == pytest.approx(1 / 3, abs=0.02)
    assert swapped["frechet"] == pytest.approx(perfect["frechet"], rel=1e-6)
    collapsed = of(np.repeat(real.reshape(3, 300, 1, 2, 1)[:, :1], 300, axis=1))
    assert collapsed["coverage"] < 0.1
    assert collapsed["recognised"] == 1.0
    shifted = of(real + 0.5)
    assert shifted["frechet"] == pytest.approx(0.5, abs=0.1)
    assert shifted["frechet"] > 10 * perfect["frechet"]


def test_the_oracles_residuals_vanish_on_images():
    images, mixture = _two_pixels(64)
    path = paths.linear()
    rows = residuals(_as_image(mixture.vector_field(path)), _flat(mixture.label_log_probs(path)), path, images, 0)
    assert max(row["guidance_residual"] for row in rows) < 1e-3
    assert max(row["null_residual"] for row in rows) < 1e-4
    assert min(row["guidance_cosine"] for row in rows) > 0.9999
    dull = lambda x, t: jax.nn.log_softmax(0.5 * mixture.label_log_probs(path)(x.reshape(-1), t))  # noqa: E731
    wrong = residuals(_as_image(mixture.vector_field(path)), dull, path, images, 0)
    assert wrong[5]["guidance_residual"] > 0.1


def _flat(log_probs):
    return lambda x, t: log_probs(x.reshape(-1), t)


def test_the_exact_posterior_is_calibrated_at_every_time():
    images, mixture = _two_pixels(2000)
    path = paths.linear()
    rows = by_time(_flat(mixture.label_log_probs(path)), path, images, 0)
    assert max(row["calibration_error"] for row in rows) < 0.04
    assert rows[0]["accuracy"] == pytest.approx(1 / 3, abs=0.05)
    assert rows[-1]["accuracy"] > 0.99
    overconfident = lambda x, t: jax.nn.log_softmax(4 * mixture.label_log_probs(path)(x.reshape(-1), t))  # noqa: E731
    assert by_time(overconfident, path, images, 0)[3]["calibration_error"] > 0.05


def test_bits_per_dimension_are_the_oracles():
    """The null field's bits are the mixture's own; the right label saves bits."""
    images, mixture = _two_pixels(300)
    field = _as_image(mixture.vector_field(paths.linear()))
    found = bits_per_dimension(field, images, 300, num_steps=100, seed=0)
    keys = jax.random.split(jax.random.key(0), 300)
    z = jax.vmap(lambda key, pixels: data.dequantise(jax.random.split(key)[0], pixels))(keys, images.pixels)
    density = mixture.log_density(paths.linear())
    exact = {
        "null": jax.vmap(lambda z: density(z.reshape(-1), jnp.float32(1), jnp.int32(NUM_CLASSES)))(z),
        "labelled": jax.vmap(lambda z, y: density(z.reshape(-1), jnp.float32(1), y))(z, jnp.asarray(images.label)),
    }
    for name, values in exact.items():
        expected = float(-jnp.mean(values) / (2 * np.log(2)) + 7)
        assert abs(found[name]["mean"] - expected) < 4 * found[name]["standard_error"]
    assert found["labelled"]["mean"] < found["null"]["mean"] - 0.3


def test_guidances_are_compared_at_equal_class_accuracy():
    """By hand: one curve reaches 0.9 half way between its scales 1 and 2, the other ends there, at scale 5."""
    names = ("guidance", "solver", "scale", "recognised", "frechet", "kernel", "coverage")
    rows = [
        dict(zip(names, values, strict=True))
        for values in (
            ("free", "heun", 0.0, 0.1, 50.0, 5.0, 0.5),
            ("free", "heun", 1.0, 0.8, 10.0, 1.0, 0.9),
            ("free", "heun", 2.0, 1.0, 20.0, 2.0, 0.7),
            ("classifier", "heun", 1.0, 0.5, 40.0, 4.0, 0.8),
            ("classifier", "heun", 5.0, 0.9, 30.0, 3.0, 0.6),
        )
    ]
    free, by_classifier = at_equal_recognition(rows)
    assert free["recognised"] == by_classifier["recognised"] == 0.9
    assert [free[name] for name in ("scale", "frechet", "coverage")] == pytest.approx([1.5, 15.0, 0.8])
    assert [by_classifier[name] for name in ("scale", "frechet", "coverage")] == [5.0, 30.0, 0.6]
    assert sorted(at_equal_recognition(rows[::-1]), key=str) == sorted([free, by_classifier], key=str)
    assert at_equal_recognition(rows[:3]) == []
    assert at_equal_recognition(rows[2:]) == [], "one curve starts above the rate: nothing to compare"


def test_evaluate_writes_the_curves_of_both_guidances(trained_clothes, trained_classifier, tmp_path):
    done = command(
        "evaluate", trained_clothes, "--scales", 0, 1, 3, "--num-per-class", 8, "--num-steps", 2, "--solver", "heun",
        "--classifier", trained_classifier, "--classifier-scales", 1, 2, "--likelihood", 8, "--out", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    pairs = [(row["guidance"], row["scale"]) for row in found["samples"]]
    assert pairs == [
        ("classifier-free", 0),
        ("classifier-free", 1),
        ("classifier-free", 3),
        ("classifier", 1),
        ("classifier", 2),
    ]
    with (tmp_path / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["frechet"]) for row in rows] == [row["frechet"] for row in found["samples"]]
    assert found["real_against_real"]["frechet"] < min(row["frechet"] for row in found["samples"])
    assert 0.5 < found["recogniser_test_accuracy"] <= 1
    assert {"labelled", "null"} == set(found["bits_per_dimension"])
    assert len(found["residuals"]) == 11
    assert "feature classifier's own test accuracy" in done.stdout
    for name in ("samples", "curves", "residuals"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_classifiers_report_is_by_time(trained_classifier):
    found = json.loads((trained_classifier / "metrics.json").read_text())
    assert [row["t"] for row in found["by_time"]] == pytest.approx(np.linspace(0, 1, 11).tolist())
    assert all(0 <= row["calibration_error"] <= 1 for row in found["by_time"])


def test_the_feature_classifier_is_trained_once_and_read_back(data_dir, trained_clothes):
    experiment = PRESETS["fashion_mnist"][1]
    train, test = (data.load("fashion_mnist", split, data_dir) for split in ("train", "test"))
    folder = folder_of(experiment.data, data_dir, train)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert before
    assert folder_of(experiment.data, data_dir, train._replace(label=train.label[::-1])) != folder
    found = feature_classifier_of(experiment.data, data_dir, train, test)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    accuracy = np.mean(np.argmax(found.log_probs(test.image), axis=1) == test.label)
    assert found.test_accuracy == accuracy > 0.9


def pixel_features(images):
    """The mean of each row of an image: a user's own features."""
    return images.mean(axis=(2, 3))


def scalar_features(images):
    """Features of the wrong form."""
    return images.mean(axis=(1, 2, 3))


def test_features_of_ones_own_take_the_feature_classifiers_place(trained_clothes, tmp_path):
    name = "tests.experiments.test_fidelity:pixel_features"
    arguments = ["--scales", 1, "--num-per-class", 8, "--num-steps", 2, "--solver", "euler", "--out", tmp_path]
    done = command("evaluate", trained_clothes, *arguments, "--features", name)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["features"] == "pixel_features"
    assert np.isfinite(found["samples"][0]["frechet"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--features", "tests.experiments.test_fidelity:scalar_features"], "features must give finite [80, d]"),
        (["--features", "nowhere:features"], "features must be MODULE:FUNCTION"),
        (["--features", "tests.experiments.test_fidelity:NUM_CLASSES"], "features must be a function"),
        (["--classifier", "nowhere"], "no run in nowhere"),
        (["--features", ".fidelity:measure"], "features must be MODULE:FUNCTION"),
        (["--likelihood", "-1"], "likelihood must be 0, or at least 2 images, got -1"),
        (["--likelihood", "1"], "likelihood must be 0, or at least 2 images, got 1"),
        (["--classifier-scales", "2"], "classifier_scales need a --classifier"),
        (["--scales"], "scales"),
        (["--scales", "1e39"], "sampling.scales.0"),
        (["--seed", "-1"], "sampling.seed"),
    ],
)
def test_evaluate_refuses_what_it_cannot_measure(arguments, expected, trained_clothes, tmp_path):
    small = ["--num-per-class", 4, "--num-steps", 1, "--solver", "euler", "--out", tmp_path]
    done = command("evaluate", trained_clothes, *small, *arguments)
    assert_one_line(done, expected)


@pytest.mark.parametrize("options", [["--likelihood", 2], ["--features", "numpy:mean"], ["--classifier", "runs"]])
def test_what_a_run_without_pictures_cannot_give_is_refused(options, trained_mixture, trained_classifier):
    for run_dir in (trained_mixture, trained_classifier):
        done = command("evaluate", run_dir, *options)
        assert_one_line(done, f"need a run on labelled pictures, not {run_dir}")


def test_a_run_that_is_no_classifier_is_refused_as_one(trained_clothes, trained_classifier):
    done = command("evaluate", trained_clothes, "--classifier", trained_clothes)
    assert_one_line(done, "holds a run of objective 'field', not a classifier")
    done = command("sample", trained_classifier)
    assert_one_line(done, "holds a noisy classifier")


@pytest.mark.parametrize(("path", "fits"), [("linear", True), ("ddpm", True), ("cosine", False)])
def test_a_classifier_guides_runs_that_are_sampled_on_its_path(path, fits, trained_clothes, trained_classifier):
    run = restore_run(trained_clothes)
    on_path = run._replace(experiment=dataclasses.replace(run.experiment, path=path))
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match="has path linear, the run cosine"):
        classifier_for(on_path, restore_without_data(trained_classifier))


def test_sample_draws_by_the_classifier(trained_clothes, trained_classifier, tmp_path):
    arguments = ["--classifier", trained_classifier, "--num-steps", 4, "--out"]
    for name, scale in (("none", 0), ("some", 3)):
        done = command("sample", trained_clothes, *arguments, tmp_path / f"{name}.npz", "--scale", scale)
        assert done.returncode == 0, done.stderr
    none, some = np.load(tmp_path / "none.npz")["x"], np.load(tmp_path / "some.npz")["x"]
    assert none.shape == (10, 28, 28, 1)
    assert np.max(np.abs(none - some)) > 1e-3


def test_data_that_moved_are_found_again(trained_clothes, data_dir, tmp_path):
    (tmp_path / "moved").symlink_to(data_dir)
    moved = restore_run(trained_clothes, tmp_path / "moved").task
    np.testing.assert_array_equal(moved.held_out[0], restore_run(trained_clothes).task.held_out[0])
    assert_one_line(command("evaluate", trained_clothes, "--data-dir", tmp_path / "nowhere"), "not prepared")


def test_channels_that_differ_from_the_runs_are_refused(data_dir, tmp_path, trained_clothes):
    done = command("train", "fashion_mnist", "--data-dir", data_dir, "--data.shape", 28, 28, 3, "--run-dir", tmp_path)
    assert_one_line(done, "data.shape is (28, 28, 3), but the data set has (28, 28, 1)")


def test_guidance_rules_agree_on_the_oracle_at_equal_scales():
    """What the two rules of the evaluation compare is the same thing for an exact field and classifier."""
    mixture, path = mixtures.ring(NUM_CLASSES), paths.linear()
    field, log_probs = mixture.vector_field(path), mixture.label_log_probs(path)
    free = guidance.classifier_free(field, 2.5, NUM_CLASSES)
    by_classifier = guidance.classifier(path, guidance.given(field, NUM_CLASSES), log_probs, 2.5)
    x, t, y = jnp.array([0.4, -0.3]), jnp.float32(0.3), jnp.int32(1)
    np.testing.assert_allclose(free(x, t, y), by_classifier(x, t, y), rtol=1e-4)
