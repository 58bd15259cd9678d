"""Inverse problems of pictures: what is measured, what is refused, and that the numbers of samples are right."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from cfgjax import data, mixtures, paths
from cfgjax.steering import operators
from experiments.cli.main import UserError
from experiments.evaluation.feature_classifier import FeatureClassifier
from experiments.presets.registry import PRESETS
from experiments.run.provenance import read as read_provenance
from experiments.solve_inverse import __main__ as solve_inverse
from experiments.solve_inverse.figure import figure
from experiments.solve_inverse.measures import agreement, measures
from experiments.solve_inverse.methods import cost_of, steer_of
from experiments.solve_inverse.options import MethodOptions, Options, ProblemOptions
from experiments.solve_inverse.problems import Problems, operator_of, problems_of
from experiments.tasks.registry import facts_of
from tests.support.commands import assert_one_line, command

SHAPE = (4, 4, 1)
FEW = ["--num-images", 3, "--num-samples", 2, "--num-steps", 4]


@pytest.fixture(scope="module")
def pictures():
    """Forty held-out pictures of four labels, of which the first are of the last label."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), np.uint8)
    return data.Images(pixels, np.sort(np.arange(40) % 4)[::-1].astype(np.int32), 4)


def _write_mask(folder, known):
    np.save(folder / "known.npy", known)
    Image.fromarray(np.uint8(255 * known)).save(folder / "known.png")
    return str(folder / "known.npy"), str(folder / "known.png")


def test_each_task_measures_what_it_says(tmp_path):
    z = np.random.default_rng(1).normal(size=(8, 8, 1)).astype(np.float32)
    inner = np.zeros((8, 8, 1), bool)
    inner[2:6, 2:6] = True
    np.testing.assert_array_equal(operator_of("inpaint", z.shape)(z), np.where(inner, 0, z))
    means = z.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(operator_of("superresolve", z.shape)(z)[..., 0], means, atol=1e-6)
    dot = np.zeros((8, 8, 1), np.float32)
    dot[4, 3] = 1
    spread = np.asarray(operator_of("blur", z.shape)(dot), np.float64)[..., 0]
    np.testing.assert_allclose(spread.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(spread[4, 4] / spread[4, 3], np.exp(-0.5), atol=1e-6)
    np.testing.assert_allclose(spread[6, 1] / spread[4, 3], np.exp(-4), atol=1e-6)
    known = np.arange(64).reshape(8, 8) % 3 > 0
    for file in _write_mask(tmp_path, known):
        np.testing.assert_array_equal(operator_of(file, z.shape)(z), np.where(known[..., None], z, 0))


def test_what_is_no_task_or_no_mask_is_refused_by_name(tmp_path):
    refused = {
        "deblur": r"task must be inpaint, superresolve, blur, or a mask's file \(.png or .npy\), got 'deblur'",
        str(tmp_path / "none.png"): "none.png is no mask: .* does not exist",
    }
    for file in _write_mask(tmp_path, np.ones((4, 5), bool)):
        refused[file] = r"4 x 5, not 4 x 4|size, \(4, 4\), got the shape \(4, 5\)"
    for number, known in enumerate((np.zeros((4, 4)), np.full((4, 4), 0.5))):
        np.save(tmp_path / f"{number}.npy", known)
        refused[str(tmp_path / f"{number}.npy")] = "must leave a pixel known|must hold 0 .* alone"
    np.save(tmp_path / "code.npy", np.array([[print]]), allow_pickle=True)
    refused[str(tmp_path / "code.npy")] = "does not read as an array"
    for task, expected in refused.items():
        with pytest.raises((UserError, data.DataError), match=expected):
            operator_of(task, SHAPE)
    with pytest.raises(UserError, match="pictures of even sides, the run's are 5 x 4"):
        operator_of("superresolve", (5, 4, 1))


def test_measurements_take_labels_in_turn_and_have_noise_where_something_is_known(pictures):
    operator = operator_of("inpaint", SHAPE)
    problems = problems_of(operator, pictures, 40, 0.5, 7)
    assert problems.label[:8].tolist() == [0, 1, 2, 3] * 2
    for y in range(4):
        np.testing.assert_array_equal(problems.truth[problems.label == y], pictures.image[pictures.label == y])
    few = problems_of(operator, pictures, 5, 0.5, 7)
    np.testing.assert_array_equal(few.value, problems.value[:5])
    inner = np.asarray(operator(jnp.ones(SHAPE))) == 0
    assert not np.any(problems.value[:, inner])
    noise = (problems.value - problems.truth)[:, ~inner]
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * noise.size)
    assert len(np.unique(noise)) == noise.size
    assert np.any(problems_of(operator, pictures, 5, 0.5, 8).value != few.value)
    with pytest.raises(UserError, match="num_images must be at most 40"):
        problems_of(operator, pictures, 41, 0.5, 7)


def test_the_numbers_of_samples_by_hand():
    """Two pictures of two pixels in a row, the second unknown; two samples each."""
    truth = np.zeros((2, 1, 2, 1), np.float32)
    value = np.array([0.5, -0.5], np.float32).reshape(2, 1, 1, 1) * np.array([1, 0], np.float32).reshape(1, 1, 2, 1)
    operator = operators.mask(jnp.array([1.0, 0.0]).reshape(1, 2, 1))
    problems = Problems(operator, truth, np.array([0, 1]), value, 0.25)
    samples = np.array([[[0.5, 0.1], [0.5, -0.1]], [[0.5, 3.0], [-0.5, 1.0]]], np.float32).reshape(2, 2, 1, 2, 1)
    positive = lambda images: np.stack([images[:, 0, 0, 0], -images[:, 0, 0, 0]], axis=1)  # noqa: E731
    classifier = FeatureClassifier(lambda images: images, positive, None)
    found = measures(problems, samples, classifier)
    first, second = 10 * np.log10(4 / 0.13), 10 * np.log10(4 / 0.625)
    assert found.pop("psnr") == pytest.approx((first + second) / 2)
    assert found.pop("psnr_of_mean") == pytest.approx(5 * (np.log10(4 / 0.125) + np.log10(4 / 0.5)))
    assert found == pytest.approx(
        {
            "deviation": np.sqrt((0 + 0.02 + 0.5 + 2) / 4), "residual": np.sqrt(1 / 4),
            "consistency": 2.0, "recognised": 3 / 4,
        }
    )  # fmt: skip
    bare = agreement(problems._replace(noise_std=0.0), samples, None)
    assert bare == pytest.approx({"residual": 0.5})


def _gaussian_run(calls):
    """A stub of a run whose pictures are N(mean, I) for the null label, and N(mean + 1, I) for each other."""
    mean, path, facts = np.linspace(-1, 1, 16, dtype=np.float32), paths.linear(), facts_of(PRESETS["digits"][1])
    laws = [mixtures.LabelledMixture(jnp.ones(1), each[None], jnp.eye(16)[None]) for each in (mean, mean + 1)]
    null, labelled = (law.vector_field(path) for law in laws)

    def field(x, t, y):
        calls.append(None)
        flat, zero = x.reshape(-1), jnp.zeros((), int)
        sides = null(flat, t, zero), labelled(flat, t, zero)
        return jnp.where(y == facts.num_classes, *sides).reshape(SHAPE)

    return types.SimpleNamespace(path=path, field=field, task=facts), mean.reshape(SHAPE)


def _options(scales, num_samples=2, num_steps=64):
    method = MethodOptions("pi_gdm", scale=scales, num_steps=num_steps, seed=3)
    return Options("run", ProblemOptions(num_samples=num_samples), method)


@pytest.mark.parametrize(
    "task", ["superresolve", *(pytest.param(name, marks=pytest.mark.slow) for name in ("inpaint", "blur"))]
)
def test_samples_of_one_gaussian_have_its_posterior(task):
    """z ~ N(mean, I): the posterior by the normal equations, in NumPy; at a prior variance of 1 pi_gdm is exact."""
    run, mean = _gaussian_run([])
    operator, noise_std, count = operator_of(task, SHAPE), 0.5, 400
    value = np.asarray(operator(jnp.asarray(mean + 0.7)))
    problems = Problems(operator, mean[None], np.array([3]), value[None], noise_std)
    steer = steer_of("pi_gdm", run.path, "heun", None)
    samples = solve_inverse.draw(run, problems, steer, _options((0.0, 1.0), count))
    matrix = np.asarray(jax.jacobian(operator)(jnp.zeros(SHAPE))).reshape(-1, 16).astype(np.float64)
    covariance = np.linalg.inv(np.eye(16) + matrix.T @ matrix / noise_std**2)
    for prior, its in zip((mean, mean + 1), samples[:, 0], strict=True):
        flat, its_prior = its.reshape(count, 16), prior.reshape(-1)
        wanted = its_prior + covariance @ matrix.T @ (value.reshape(-1) - matrix @ its_prior) / noise_std**2
        assert np.all(np.abs(flat.mean(axis=0) - wanted) < 4 * np.sqrt(np.diag(covariance) / count) + 0.01)
        assert np.all(np.abs(flat.var(axis=0, ddof=1) / np.diag(covariance) - 1) < 5 * np.sqrt(2 / count))
        row = measures(problems, its[None], None)
        assert row["deviation"] == pytest.approx(np.sqrt(np.mean(np.diag(covariance))), rel=0.05)


def test_all_scales_are_one_trace_and_a_sample_costs_what_it_says():
    calls = []
    run, mean = _gaussian_run(calls)
    problems = Problems(operator_of("inpaint", SHAPE), mean[None], np.array([3]), mean[None], 0.5)
    steer = steer_of("pi_gdm", run.path, "heun", None)
    traced = []
    for scales in ((0.0, 1.0), (0.5, 1.0, 2.0, 3.0)):
        calls.clear()
        solve_inverse.draw(run, problems, steer, _options(scales, num_steps=4))
        traced.append(len(calls))
    assert traced[0] == traced[1]
    ts = np.linspace(0, 1, 5)
    for scale, sides in ((0.0, 1), (1.0, 1), (2.0, 2)):
        assert cost_of(run, steer, problems, ts, scale) == (8 * sides, 8 * sides)


@pytest.mark.slow
def test_a_run_is_solved_measured_and_drawn(trained_digits, data_dir, tmp_path):
    """By one program for two scales, and by one of its own for the second: the same numbers."""
    rows = {}
    for name, scales in (("both", (1, 2)), ("one", (2,))):
        arguments = ["--data-dir", data_dir, "--scale", *scales, "--out", tmp_path / name]
        done = command("solve_inverse", trained_digits, *FEW, *arguments)
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert [row["scale"] for row in results["rows"]] == list(scales)
        rows[name] = results["rows"][-1]
        assert f"{rows[name]['psnr_of_mean']:.2f}" in done.stdout.splitlines()[-2].split()
    assert rows["one"] == pytest.approx(rows["both"], rel=1e-3)
    assert results["settings"]["task"] == "inpaint"
    assert results["settings"]["noise_std"] == 0.1
    assert abs(results["truth"]["consistency"] - 1) < 4 / np.sqrt(2 * 3 * 48)
    assert read_provenance(tmp_path / "one" / "inverse.png")["command"] == results["command"]


def test_the_picture_shows_what_is_missing_and_what_was_drawn():
    """Of one picture of 2 x 2 pixels: measurement, truth, two samples, their mean and their deviation, framed."""
    known = np.array([[1, 0], [1, 1]], np.float32)[..., None]
    truth = np.array([[1, -1], [-1, 1]], np.float32)[None, ..., None]
    problems = Problems(operators.mask(known), truth, np.array([1]), truth * known, 0.0)
    samples = np.stack([truth, -truth], axis=1)[None]
    drawn = figure(problems, samples, (2.0,), ("zero", "one"), "a title")
    axes = drawn.axes[0]
    shown = np.asarray(axes.images[0].get_array()).reshape(4, 6, 4, 3)[1:3, :, 1:3]
    np.testing.assert_array_equal(np.unique(shown[:, 0][known[..., 0] == 0]), [0.35, 0.55, 0.85])
    gray = shown[..., 0]
    np.testing.assert_array_equal(gray[:, 0][known[..., 0] == 1], [1, 0, 1])
    for column, wanted in ((1, [[1, 0], [0, 1]]), (2, [[1, 0], [0, 1]]), (3, [[0, 1], [1, 0]]), (4, [[0.5] * 2] * 2)):
        np.testing.assert_array_equal(gray[:, column], wanted)
    np.testing.assert_array_equal(gray[:, 5], 1)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[:3] == ["measured", "truth", "w = 2\nsample 1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one"]
    drawn.draw_without_rendering()
    (title,) = (text for text in drawn.findobj(Text) if text.get_text() == "a title")
    assert title.get_window_extent().y1 <= drawn.bbox.y1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rule", "dps", "--noise-std", "0"], "noise_std must be positive for the rule dps, got 0"),
        (["--rule", "repaint", "--strength", "0.5"], "strength must be 0 or 1 for the rule repaint, got 0.5"),
        (["--rule", "pi_gdm", "--strength", "nan"], "strength must be finite, from 0, got nan"),
        (["--rule", "diffpir", "--strength", "-1"], "strength must be finite, from 0, got -1"),
        (["--rule", "repaint", "--solver", "unipc"], "solver must be a rule of one step, got a multistep one"),
        (["--noise-std", "-1"], "noise_std must be finite, from 0, got -1"),
        (["--label", "none", "--scale", "2"], "scale must be left out where label is none"),
        (["--scale", "nan"], "scale must be finite"),
        (["--num-samples", "1"], "num_samples must be at least 2, got 1"),
        (["--num-images", "0"], "num_images must be at least 1, got 0"),
        (["--task", "sharpen"], "task must be inpaint, superresolve, blur"),
        (["--rule", "dpss"], "dpss"),
    ],
)
def test_what_cannot_be_asked_is_one_line(arguments, expected, trained_digits, data_dir, tmp_path):
    assert_one_line(command("solve_inverse", trained_digits, "--data-dir", data_dir, *arguments), expected)


def test_a_mask_of_another_size_is_one_line(trained_digits, data_dir, tmp_path):
    for file in _write_mask(tmp_path, np.ones((8, 9))):
        assert_one_line(command("solve_inverse", trained_digits, "--data-dir", data_dir, "--task", file), file)


def test_a_run_without_labelled_pictures_is_refused(trained_mixture):
    assert_one_line(command("solve_inverse", trained_mixture), "run_dir must hold a run of labelled pictures")
