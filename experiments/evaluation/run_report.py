"""What a finished run says of itself: pictures, and metrics.json."""

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cfgjax import data
from cfgjax.types import LogClassifier
from experiments.cli import main as cli
from experiments.config.samplers import ODE, SDE, Rule, by_classifier, classifier_free, make_draw, times
from experiments.config.schema import ImageData, LatentData, MixtureData
from experiments.evaluation import measurable
from experiments.evaluation.classifier import report_classifier
from experiments.evaluation.feature_classifier import Features
from experiments.evaluation.images import report_images
from experiments.evaluation.likelihoods import bits_per_dimension
from experiments.evaluation.mixture import report_mixture
from experiments.evaluation.residuals import draw_residuals, residuals
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import draw_all
from experiments.run.restore import Run
from experiments.run.trained_labels import knows_labels, with_known_scales
from experiments.runtime import distributed
from experiments.tasks.registry import load_test

FREE, BY_CLASSIFIER = "classifier-free", "classifier"


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked of a report beyond the run's own settings.

    Attributes:
        solvers: to sample with.
        log_classifier: a noisy classifier, to guide the null field with.
        classifier_scales: its guidance scales; by default those of the run.
        num_likelihoods: held-out images whose bits per dimension are wanted.
        features: the space of the distances between images.
        is_kept: whether a recogniser that is trained now is written beside the data.
    """

    solvers: tuple[str, ...] = (ODE, SDE)
    log_classifier: LogClassifier | None = None
    classifier_scales: tuple[float, ...] | None = None
    num_likelihoods: int = 0
    features: Features | None = None
    is_kept: bool = True


def draw_sweep(run: Run, rule: Rule, solver: str, scales: tuple[float, ...]) -> np.ndarray:
    """Samples [scales, labels, num_per_class, *D] of a guided field by one solver, in one compiled call.

    Within a label, sample i has the same noise at every scale; errors as ``draw_all``.
    """
    problem, settings = run.problem, run.experiment.sampling
    path = run.model.path
    draw = make_draw(rule, path, problem.shape, solver, times(path, settings.num_steps))
    labels = np.repeat(problem.labels, settings.num_per_class)
    samples = draw_all(draw, settings.seed, labels, scales, settings.chunk)
    return samples.reshape(len(scales), len(problem.labels), settings.num_per_class, *problem.shape)


def _guided_draws(
    run: Run, wishes: EvaluationOptions
) -> tuple[dict[tuple[str, str], np.ndarray], dict[str, tuple[float, ...]]]:
    """Samples of all rules and solvers, and the scales of each rule."""
    null, own = run.problem.num_classes, run.experiment.sampling.scales
    rules, scales = {FREE: classifier_free(run.field, null)}, {FREE: own}
    if wishes.log_classifier is not None:
        rules[BY_CLASSIFIER] = by_classifier(run.field, null, wishes.log_classifier, run.model.path)
        scales[BY_CLASSIFIER] = wishes.classifier_scales or own
    draws = {}
    for name, solver in itertools.product(rules, wishes.solvers):
        start = time.perf_counter()
        draws[name, solver] = draw_sweep(run, rules[name], solver, scales[name])
        num_samples = math.prod(draws[name, solver].shape[:3])
        cli.info(f"  {num_samples} samples, {name}, {solver}: {time.perf_counter() - start:.0f} s")
    return draws, scales


def _image_metrics(
    run: Run, settings: ImageData, wishes: EvaluationOptions, out_dir: Path, missing: Mapping[str, str]
) -> dict[str, Any]:
    experiment = run.experiment
    draws, scales = _guided_draws(run, wishes)
    drawn = run.problem.labels
    found = report_images(experiment, settings, draws, scales, drawn, out_dir, wishes.features, wishes.is_kept)
    test = load_test(experiment, settings)
    seed = experiment.sampling.seed
    has_residuals = measurable.RESIDUALS.numbers not in missing and knows_labels(experiment)
    if wishes.log_classifier is not None and has_residuals:
        rows = residuals(run.field, wishes.log_classifier, run.model.path, test, seed)
        draw_residuals(rows, out_dir / "residuals.png")
        found["residuals"] = rows
    if wishes.num_likelihoods and measurable.BITS.numbers not in missing:
        found["bits_per_dimension"] = _bits(run, test, wishes.num_likelihoods)
    return found


def _bits(run: Run, test: data.Images, num_images: int) -> dict[str, dict[str, float]]:
    """Bits per dimension, of all held-out images where they are fewer than asked for."""
    if num_images > len(test.label):
        distributed.warn(
            f"warning: bits per dimension are of all {len(test.label)} pictures held out, not {num_images}"
        )
    sampling = run.experiment.sampling
    return bits_per_dimension(run.field, test, num_images, sampling.num_steps, sampling.seed)


def _latent_metrics(run: Run, settings: LatentData, wishes: EvaluationOptions, out_dir: Path) -> dict[str, Any]:
    """Samples of latents, to be decoded by the network that made them."""
    draws, scales = _guided_draws(run, wishes)
    for (guidance, solver), samples in draws.items():
        labelled = {"scales": np.asarray(scales[guidance]), "labels": run.problem.labels, "latents": samples}
        np.savez(out_dir / f"samples-{guidance}-{solver}.npz", **labelled, factor=np.asarray(settings.factor))
    return {"samples": []}


def _metrics(run: Run, wishes: EvaluationOptions, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
    """What is measured, but for the numbers that are ``missing``."""
    experiment = run.experiment
    match experiment.data:
        case MixtureData() as settings:
            draws, _ = _guided_draws(run, wishes)
            return report_mixture(run, settings, {solver: drawn for (_, solver), drawn in draws.items()}, out_dir)
        case ImageData() if measurable.BY_TIME.numbers in missing:
            return {}
        case ImageData() as settings if experiment.objective == "classifier":
            test, seed = load_test(experiment, settings), experiment.sampling.seed
            return report_classifier(run.log_classifier, run.model.path, test, seed, out_dir)
        case ImageData() as settings:
            return _image_metrics(run, settings, wishes, out_dir, missing)
        case LatentData() as settings:
            return _latent_metrics(run, settings, wishes, out_dir)


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    return f"{row[name]:>10{form}}" if name in row else f"{'-':>10}"


def _headline(metrics: Mapping[str, Any]) -> str:
    lines = []
    if "recogniser_test_accuracy" in metrics:
        lines.append(f"  recogniser's own test accuracy {100 * metrics['recogniser_test_accuracy']:.1f}%")
    if metrics.get("samples"):
        lines.append(f"  {'guidance':>15} {'solver':>14} {'w':>5} {'recognised':>10} {'Frechet':>10} {'coverage':>10}")
    for row in metrics.get("samples", ()):
        start = f"  {row.get('guidance', FREE):>15} {row['solver']:>14} {row['scale']:>5g}"
        numbers = (_number(row, "recognised", ".1%"), _number(row, "frechet", ".3f"), _number(row, "coverage", ".3f"))
        lines.append(" ".join((start, *numbers)))
    if "real_against_real" in metrics:
        real = metrics["real_against_real"]
        numbers = _number(real, "frechet", ".3f"), _number(real, "coverage", ".3f")
        lines.append(f"  {'real against real':>47} {' '.join(numbers)}")
    for row in metrics.get("at_equal_recognition", ()):
        start = (
            f"  at {row['recognised']:.1%} recognised, {row['solver']}, {row['guidance']} at w = {row['scale']:.2f}:"
        )
        numbers = (
            f"{name} {row[key]:.3f}" for name, key in (("Frechet", "frechet"), ("coverage", "coverage")) if key in row
        )
        lines.append(f"{start} {', '.join(numbers)}")
    for row in metrics.get("by_time", ()):
        found = f"{row['accuracy']:.1%} right, calibration error {row['calibration_error']:.3f}"
        lines.append(f"  t = {row['t']:.1f}: {found}")
    for name, bits in metrics.get("bits_per_dimension", {}).items():
        lines.append(f"  {name}: {bits['mean']:.3f} +- {bits['standard_error']:.3f} bits per dimension")
    return "\n".join(lines)


def report(run: Run, out_dir: Path, wishes: EvaluationOptions = EvaluationOptions()) -> dict[str, Any]:
    """Samples the run's field, writes pictures and metrics.json into the folder, and returns the metrics.

    Numbers that the data or the samples cannot carry are left out of the metrics, and told in one line before they are
    measured, or after where only then it is known.
    """
    run = with_known_scales(run)
    experiment, start = run.experiment, time.perf_counter()
    before = _written(out_dir)
    asked = wishes.features is not None, wishes.log_classifier is not None, wishes.num_likelihoods
    missing = measurable.left_out_of(experiment, run.problem, *asked)
    measurable.tell(missing)
    metrics, names = measurable.finite(_metrics(run, wishes, out_dir, missing))
    also = metrics.get("left_out", {}) | dict.fromkeys(names, "not finite")
    measurable.tell(also)
    metrics |= {"left_out": missing | also} if missing or also else {}
    metrics |= {
        "preset": experiment.preset,
        "num_steps": experiment.sampling.num_steps,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "jax": jax.__version__,
        "report_seconds": round(time.perf_counter() - start, 1),
    }
    run_folder.write_metrics(out_dir, metrics)
    headline = _headline(metrics)
    if headline:
        print(headline)
    print(f"wrote {', '.join(sorted(name for name, _ in _written(out_dir) - before))} in {out_dir}")
    return metrics


def _written(out_dir: Path) -> set[tuple[str, int]]:
    """The files of a report in a folder, and when they were written."""
    files = (file for form in ("*.png", "*.csv", "*.npz", "metrics.json") for file in out_dir.glob(form))
    return {(file.name, file.stat().st_mtime_ns) for file in files}
