"""Fidelity and coverage of sampled images against real ones, in all and by label."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfgjax import data, metrics
from experiments.command import UserError
from experiments.recogniser import Features, Recogniser

NEIGHBOURS = 5


def checked(features: Features) -> Features:
    """The features, refused where they are not [n, d] and finite for n images."""

    def of(images: np.ndarray) -> np.ndarray:
        found = np.asarray(features(images))
        if found.ndim != 2 or len(found) != len(images) or not np.all(np.isfinite(found)):
            raise UserError(f"features must give finite [{len(images)}, d] for {len(images)} images, got {found.shape}")
        return found

    return of


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: one half of the held-out images; the other half gives the floor.

    Attributes:
        recogniser: tells the label of a sample.
        features: the space of all distances.
        real: features of the reference half, [m, d], and ``label`` its labels.
        other: features of the other half.
    """

    recogniser: Recogniser
    features: Features
    real: np.ndarray
    label: np.ndarray
    other: np.ndarray


def reference_of(recogniser: Recogniser, test: data.Images, features: Features | None = None) -> Reference:
    """The held-out images in two halves, in a fixed random order."""
    chosen = checked(features or recogniser.features)
    order = np.random.default_rng(0).permutation(len(test.label))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    image = test.image
    return Reference(recogniser, chosen, chosen(image[half]), test.label[half], chosen(image[rest]))


def _distances(samples: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Both distances to all of the reference; neighbourhoods at equal counts."""
    found = {
        "frechet": metrics.frechet_distance(samples, real),
        "kernel": metrics.kernel_distance(samples, real),
    }
    count = min(len(samples), len(real))
    if count <= NEIGHBOURS:
        return found
    return found | metrics.neighbourhood(samples[:count], real[:count], NEIGHBOURS)._asdict()


def _in_turn(num_labels: int, num_per_class: int) -> np.ndarray:
    """An order of samples [K * n], grouped by label, in which every beginning holds all labels evenly."""
    return np.arange(num_labels * num_per_class).reshape(num_labels, num_per_class).T.reshape(-1)


def measure(samples: np.ndarray, labels: np.ndarray, reference: Reference) -> dict[str, Any]:
    """The numbers of samples [k, n, H, W, C] of k labels: recognised rate, distances, neighbourhoods; by label, too."""
    num_labels, num_per_class = samples.shape[:2]
    flat = samples.reshape(-1, *samples.shape[2:])
    found = np.argmax(reference.recogniser.log_probs(flat), axis=1).reshape(num_labels, num_per_class)
    right = np.mean(found == labels.reshape(-1, 1), axis=1)
    features = reference.features(flat)
    by_label = [
        {"label": int(label), "recognised": float(rate), **_of_label(own, label, reference)}
        for label, rate, own in zip(labels, right, features.reshape(num_labels, num_per_class, -1), strict=True)
    ]
    in_turn = features[_in_turn(num_labels, num_per_class)]
    return {"recognised": float(right.mean()), **_distances(in_turn, reference.real), "by_label": by_label}


def _of_label(own: np.ndarray, label: int, reference: Reference) -> dict[str, float]:
    real = reference.real[reference.label == label]
    return _distances(own, real) if min(len(own), len(real)) > 1 else {}


def floor(reference: Reference, num_samples: int) -> dict[str, Any]:
    """The same numbers of real images, of as many as there are samples: what a perfect model would get."""
    count = min(num_samples, len(reference.other))
    return {"num_samples": count, **_distances(reference.other[:count], reference.real)}
