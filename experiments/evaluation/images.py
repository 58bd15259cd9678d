"""The report on images: class accuracy, how true and how varied are the samples, are they copies?"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax import data, metrics
from experiments.config.kinds import ImageData
from experiments.evaluation.feature_classifier import feature_classifier_of
from experiments.evaluation.fidelity import Reference, measure, num_repeated, real_vs_real, reference_of
from experiments.evaluation.guided_samples import Draws, guided_draws
from experiments.evaluation.image_figures import draw_curves, write_curves, write_samples
from experiments.evaluation.likelihoods import bits_per_dimension
from experiments.evaluation.measurable import (
    ACCURACY,
    BITS,
    COPIES,
    DISTANCES,
    NEIGHBOURHOODS,
    NEIGHBOURS,
    RECOGNITION,
    RESIDUALS,
    Need,
)
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.reconstructions import reconstructions
from experiments.evaluation.residuals import draw_residuals, residuals
from experiments.run.trained_labels import knows_labels
from experiments.runtime import distributed, progress
from experiments.tasks.task import Learned

NUM_NEAREST = 1024
"""Of how many held-out images the distances to training images are taken."""


def needs(options: EvaluationOptions) -> list[Need]:
    """The numbers of the report."""
    spaces = [DISTANCES, NEIGHBOURHOODS]
    if options.features is not None:
        spaces = [need._replace(least=need.least._replace(labels=1)) for need in spaces]
    wished = [RESIDUALS] * (options.log_classifier is not None) + [BITS] * bool(options.num_likelihoods)
    return [RECOGNITION, ACCURACY, *spaces, COPIES, *wished]


def _crossing(rows: list[dict[str, Any]], rate: float) -> dict[str, float]:
    """The numbers where the class accuracy first reaches ``rate`` along w, by straight lines between the scales."""
    names = ("scale", "frechet", "kernel", "coverage")
    for low, high in itertools.pairwise(rows):
        if low["recognised"] <= rate <= high["recognised"]:
            rise = high["recognised"] - low["recognised"]
            share = (rate - low["recognised"]) / rise if rise > 0 else 0.0
            return {name: low[name] + share * (high[name] - low[name]) for name in names if name in low}
    return {}


def at_equal_recognition(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each solver, every guidance at the highest class accuracy that all of them reach: a comparison at equals.

    Empty where a guidance passes the rate between no two of its scales: then it needs more of them; and where there
    is no class accuracy.
    """
    found = []
    rows = [row for row in rows if "recognised" in row]
    for solver in dict.fromkeys(row["solver"] for row in rows):
        own = sorted((row for row in rows if row["solver"] == solver), key=lambda row: row["scale"])
        curves = {name: [row for row in own if row["guidance"] == name] for name in {row["guidance"]: 0 for row in own}}
        if len(curves) < 2:
            continue
        rate = min(max(row["recognised"] for row in curve) for curve in curves.values())
        crossings = {name: _crossing(curve, rate) for name, curve in curves.items()}
        if all(crossings.values()):
            found += [
                {"solver": solver, "recognised": rate, "guidance": name, **crossing}
                for name, crossing in crossings.items()
            ]
    return found


def _rows(
    draws: Draws,
    scales: dict[str, tuple[float, ...]],
    drawn: np.ndarray,
    reference: Reference,
    train: data.Images,
    held_out: np.ndarray | None,
) -> list[dict[str, Any]]:
    """The numbers of every rule and scale; ``held_out`` are the held-out images' distances to training ones."""
    train_image = train.image
    names = [(guidance, solver, scale) for guidance, solver in draws for scale in scales[guidance]]
    each = [its_samples for samples in draws.values() for its_samples in samples]
    rows = []
    for (guidance, solver, scale), samples in progress.each(list(zip(names, each, strict=True)), "scales", "measuring"):
        near = metrics.nearest_distances(samples.reshape(-1, *samples.shape[2:]), train_image)
        copies = {"nearest_training_distance": float(np.median(near))}
        if held_out is not None:
            copies["copies"] = metrics.memorization_rate(near, held_out)
        found = measure(samples, drawn, reference)
        rows.append({"guidance": guidance, "solver": solver, "scale": scale} | found | copies)
    return rows


def _bound_of_copies(held_out: np.ndarray) -> str:
    """Why the held-out images' distances detect no copy; empty where they do."""
    try:
        metrics.memorization_rate(held_out, held_out)
    except ValueError:
        return "the pictures held out repeat training pictures"
    return ""


def _tell_repeated(repeated: int, num_real: int, rows: list[dict[str, Any]]) -> None:
    """Says in a line each how many pictures of the reference, and how many samples, are copies of one another."""
    if 0 < repeated < num_real:
        count = f"{repeated} of {num_real} pictures of the reference"
        lost = "precision, density and coverage"
        distributed.warn(f"warning: {count} repeat more than {NEIGHBOURS} times: {lost} count them for nothing")
    most = max(rows, key=lambda row: row.get("repeated_samples", 0))
    if most.get("repeated_samples"):
        where = f"{most['guidance']}, {most['solver']} at w = {most['scale']:g}"
        count = f"{most['repeated_samples']} samples of {where}"
        distributed.warn(
            f"warning: {count} repeat more than {NEIGHBOURS} times, the most of all: recall counts them as one"
        )


def _named(rows: list[dict[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, in which each label that has a name tells it."""

    def named(one: dict[str, Any]) -> dict[str, Any]:
        name = labels[one["label"]]
        return one if name == str(one["label"]) else {"label": one["label"], "name": name} | one

    return [row | {"by_label": [named(one) for one in row["by_label"]]} for row in rows]


def _with_frechet(
    rows: list[dict[str, Any]], draws: Draws, train: data.Images, options: EvaluationOptions
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows with further Frechet distances, where they are asked for, and what these are of."""
    if options.frechet is None:
        return rows, {}
    figures, facts = options.frechet.measure(draws, train.pixels)
    return [row | its for row, its in zip(rows, figures, strict=True)], facts


def _left_out(reference: Reference, no_bound: str, repeated: int, num_real: int) -> dict[str, str]:
    """The numbers that the pictures turned out not to carry, with a reason each."""
    troubles = {
        DISTANCES.numbers: reference.trouble,
        NEIGHBOURHOODS.numbers: reference.trouble,
        COPIES.numbers: no_bound,
    }
    if 0 < repeated == num_real:
        troubles[NEIGHBOURHOODS.numbers] = f"every picture of the reference repeats more than {NEIGHBOURS} times"
    return {name: reason for name, reason in troubles.items() if reason}


class Drawn(NamedTuple):
    """Samples to be measured.

    Attributes:
        draws: of every guidance and solver.
        scales: of every guidance.
        labels: of their conditions.
        texts: what each label is called.
    """

    draws: Draws
    scales: dict[str, tuple[float, ...]]
    labels: np.ndarray
    texts: Sequence[str]


def measure_drawn(
    samples: Drawn,
    settings: ImageData,
    data_dir: Path,
    train: data.Images,
    test: data.Images,
    options: EvaluationOptions,
    out_dir: Path,
) -> dict[str, Any]:
    """The metrics of samples; writes samples.png, curves.png and curves.csv.

    "copies" is the share of samples nearer to a training image than all but 1 % of held-out images are. Numbers for
    which there are too few images or samples are not among the metrics.

    Args:
        samples: the samples.
        settings: of the data set.
        data_dir: the folder of prepared data sets.
        train: its training images.
        test: the held-out ones.
        options: what is asked.
        out_dir: the folder to write into.
    """
    draws, scales, drawn, texts = samples
    features = options.features
    classifier = feature_classifier_of(settings, data_dir, train, test, options.is_kept)
    reference = reference_of(classifier, test, features)
    held_out = metrics.nearest_distances(test.image[:NUM_NEAREST], train.image) if len(test.label) else None
    no_bound = "" if held_out is None else _bound_of_copies(held_out)
    rows = _named(_rows(draws, scales, drawn, reference, train, None if no_bound else held_out), texts)
    rows, of_frechet = _with_frechet(rows, draws, train, options)
    num_samples = int(np.prod(next(iter(draws.values())).shape[1:3]))
    repeated, num_real = num_repeated(reference.real, num_samples)
    _tell_repeated(repeated, num_real, rows)
    real = real_vs_real(reference, num_samples)
    write_samples(draws, scales, [texts[y] for y in drawn], out_dir)
    draw_curves(rows, real, settings.name, out_dir / "curves.png")
    write_curves(rows, out_dir / "curves.csv")
    measured: dict[str, Any] = {}
    if classifier is not None and classifier.test_accuracy is not None:
        measured["recogniser_test_accuracy"] = classifier.test_accuracy
    if reference.features is not None:
        measured["features"] = "recogniser" if features is None else getattr(features, "__qualname__", "given")
        measured["real_against_real"] = real
    if options.decoder is not None and len(test.label):
        measured["reconstructions"] = reconstructions(options.decoder, reference, test, num_samples)
    if held_out is not None:
        measured["held_out_nearest_training_distance"] = float(np.median(held_out))
    missing = _left_out(reference, no_bound, repeated, num_real)
    measured |= {"left_out": missing} if missing else {}
    measured |= {"frechet_distances": of_frechet} if of_frechet else {}
    return measured | {
        "num_samples": num_samples,
        "samples": rows,
        "at_equal_recognition": at_equal_recognition(rows),
    }


def _bits(run: Learned, test: data.Images, num_images: int) -> dict[str, dict[str, float]]:
    """Bits per dimension, of all held-out images where they are fewer than asked for."""
    if num_images > len(test.label):
        distributed.warn(
            f"warning: bits per dimension are of all {len(test.label)} pictures held out, not {num_images}"
        )
    sampling = run.experiment.sampling
    return bits_per_dimension(run.field, test, num_images, sampling.num_steps, sampling.seed)


def evaluate(
    run: Learned,
    settings: ImageData,
    train: data.Images,
    test: data.Images,
    options: EvaluationOptions,
    out_dir: Path,
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """The metrics of a run on images; writes pictures and curves of its samples.

    Args:
        run: what learned from them.
        settings: of the data set.
        train: its training images.
        test: the held-out ones.
        options: what is asked.
        out_dir: the folder to write into.
        missing: numbers that are left out.
    """
    samples = Drawn(*guided_draws(run, options), run.task.labels, run.task.label_texts)
    found = measure_drawn(samples, settings, run.experiment.data_dir, train, test, options, out_dir)
    has_residuals = RESIDUALS.numbers not in missing and knows_labels(run.experiment)
    if options.log_classifier is not None and has_residuals:
        rows = residuals(run.field, options.log_classifier, run.path, test, run.experiment.sampling.seed)
        draw_residuals(rows, out_dir / "residuals.png")
        found["residuals"] = rows
    if options.num_likelihoods and BITS.numbers not in missing:
        found["bits_per_dimension"] = _bits(run, test, options.num_likelihoods)
    return found
