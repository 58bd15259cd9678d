"""Fidelity and coverage of sampled images against real ones, in all and by label."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cfgjax import data, metrics
from experiments.cli.main import UserError
from experiments.evaluation.feature_classifier import FeatureClassifier, Features
from experiments.evaluation.measurable import DISTANCES, NEIGHBOURS


def checked(features: Features) -> Features:
    """The features, refused where they are not [n, d] and finite for n images."""

    def of(images: np.ndarray) -> np.ndarray:
        found = np.asarray(features(images))
        if found.ndim != 2 or len(found) != len(images) or not found.size or not np.all(np.isfinite(found)):
            raise UserError(f"features must give finite [{len(images)}, d] for {len(images)} images, got {found.shape}")
        return found

    return of


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: one half of the held-out images; the other half gives real against real.

    Attributes:
        classifier: gives the label of a sample; None where there is one label alone.
        features: the space of all distances; None where none can be measured.
        real: features of the reference half, [m, d], and ``label`` its labels.
        other: features of the other half.
        trouble: why the features can measure nothing, though there are enough of them; empty where they can.
    """

    classifier: FeatureClassifier | None
    features: Features | None
    real: np.ndarray
    label: np.ndarray
    other: np.ndarray
    trouble: str = ""


def _is_flat(features: np.ndarray) -> bool:
    """Whether all rows are alike, but for the rounding of float32."""
    return bool(np.all(np.ptp(features, axis=0) <= 1e-6 * np.abs(features).max()))


def halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out images of the reference, and the other ones, in a fixed random order."""
    order = np.random.default_rng(0).permutation(count)
    return order[: count // 2], order[count // 2 :]


def reference_of(
    classifier: FeatureClassifier | None, test: data.Images, features: Features | None = None
) -> Reference:
    """The held-out images in two halves, in a fixed random order."""
    features = features or (None if classifier is None else classifier.features)
    nothing = Reference(classifier, None, np.zeros((0, 0)), test.label[:0], np.zeros((0, 0)))
    if features is None or len(test.label) < DISTANCES.least.held_out:
        return nothing
    chosen = checked(features)
    half, rest = halves(len(test.label))
    image = test.image
    real, other = chosen(image[half]), chosen(image[rest])
    if _is_flat(np.concatenate([real, other])):
        return replace(nothing, trouble=f"the features of all {len(image)} pictures held out are alike")
    return Reference(classifier, chosen, real, test.label[half], other)


def num_repeated(features: np.ndarray, count: int) -> tuple[int, int]:
    """How many of the first ``count`` rows lie on their NEIGHBOURS nearest others, and how many rows these are."""
    rows = features[:count]
    return (metrics.num_repeated(rows, NEIGHBOURS) if len(rows) > NEIGHBOURS else 0), len(rows)


def _distances(samples: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Both distances to all of the reference, neighbourhoods at equal counts; of too few, none."""
    count = min(len(samples), len(real))
    if count < 2:
        return {}
    found = {
        "frechet": metrics.frechet_distance(samples, real),
        "kernel": metrics.kernel_mmd(samples, real),
    }
    if count <= NEIGHBOURS or num_repeated(real, count)[0] == count:
        return found
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(samples|reference) repeats")  # counted, and reported once for all scales
        return found | metrics.precision_recall(samples[:count], real[:count], NEIGHBOURS)._asdict()


def _in_turn(num_classes: int, num_per_class: int) -> np.ndarray:
    """An order of samples [K * n], grouped by label, in which every beginning holds all labels evenly."""
    return np.arange(num_classes * num_per_class).reshape(num_classes, num_per_class).T.reshape(-1)


def measure(samples: np.ndarray, labels: np.ndarray, reference: Reference) -> dict[str, Any]:
    """The numbers of samples [k, n, H, W, C] of k labels: class accuracy, distances, neighbourhoods; by label, too.

    What the reference or the count of samples cannot carry is not among them.
    """
    num_classes, num_per_class = samples.shape[:2]
    flat = samples.reshape(-1, *samples.shape[2:])
    found: dict[str, Any] = {}
    by_label: list[dict[str, Any]] = [{"label": int(label)} for label in labels]
    if reference.classifier is not None:
        likeliest = np.argmax(reference.classifier.log_probs(flat), axis=1).reshape(num_classes, num_per_class)
        right = np.mean(likeliest == labels.reshape(-1, 1), axis=1)
        found["recognised"] = float(right.mean())
        by_label = [row | {"recognised": float(rate)} for row, rate in zip(by_label, right, strict=True)]
    if reference.features is not None:
        features = reference.features(flat)
        found |= _distances(features[_in_turn(num_classes, num_per_class)], reference.real)
        repeated, _ = num_repeated(features, len(features))
        found |= {"repeated_samples": repeated} if repeated else {}
        each = features.reshape(num_classes, num_per_class, -1)
        real = (reference.real[reference.label == label] for label in labels)
        by_label = [row | _distances(*pair) for row, *pair in zip(by_label, each, real, strict=True)]
    return found | {"by_label": by_label}


def real_vs_real(reference: Reference, num_samples: int) -> dict[str, Any]:
    """The same numbers of real images, of as many as there are samples: what a perfect model would get."""
    count = min(num_samples, len(reference.other))
    return {"num_samples": count, **_distances(reference.other[:count], reference.real)}
