"""The report on pictures of a folder with metadata: samples of what is said of the first held-out ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax.data import ConditionedImages, Images
from experiments.config.kinds import ConditionedData
from experiments.evaluation.feature_classifier import FeatureClassifier, class_accuracy, feature_classifier_of
from experiments.evaluation.guided_samples import FREE, draws_of
from experiments.evaluation.image_figures import write_samples
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.task import Learned


class _Name(NamedTuple):
    """By what a feature classifier knows its data."""

    name: str
    train_split: str


def _classifier_of(
    run: Learned, settings: ConditionedData, splits: tuple[ConditionedImages, ...], is_kept: bool
) -> FeatureClassifier | None:
    """The feature classifier of the classes; None where there are none, or all pictures have one."""
    if settings.label is None:
        return None
    train, test = (
        Images(each.pixels, np.asarray(each.columns[settings.label], np.int32), run.task.num_classes) for each in splits
    )
    name = _Name(f"{settings.folder}-{settings.label}", "train")
    return feature_classifier_of(name, run.experiment.data_dir, train, test, is_kept)


def evaluate(
    run: Learned,
    settings: ConditionedData,
    train: ConditionedImages,
    test: ConditionedImages,
    options: EvaluationOptions,
    out_dir: Path,
) -> dict[str, Any]:
    """The class accuracy of samples by solver and scale, where there are classes.

    Writes samples.png, the first of each condition, and samples-SOLVER.npz.
    """
    told, sampling = run.task.conditions, run.experiment.sampling
    drawn = draws_of(run, options, told.rows, sampling.num_per_class)
    shown = {(FREE, solver): its for solver, its in drawn.items()}
    write_samples(shown, {FREE: sampling.scales}, told.texts, out_dir)
    for solver, samples in drawn.items():
        scales, texts = np.asarray(sampling.scales), np.asarray(told.texts)
        np.savez(
            out_dir / f"samples-{solver}.npz", scales=scales, texts=texts, samples=samples, **told.stored(told.rows)
        )
    classifier = _classifier_of(run, settings, (train, test), options.is_kept)
    if classifier is None:
        return {"samples": []}
    labels = told.labels(told.rows)
    rows = [
        {"solver": solver, "scale": scale, "recognised": class_accuracy(classifier, labels, its)}
        for solver, samples in drawn.items()
        for scale, its in zip(sampling.scales, samples, strict=True)
    ]
    own = classifier.test_accuracy
    return {**({} if own is None else {"recogniser_test_accuracy": own}), "samples": rows}
