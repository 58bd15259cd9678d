"""Numbers about samples, features, classifiers and fields."""

from __future__ import annotations

from cfgjax.metrics.calibration import calibration_error
from cfgjax.metrics.distances import energy_distance, memorization_rate, nearest_distances
from cfgjax.metrics.features import PrecisionRecall, frechet_distance, kernel_mmd, num_repeated, precision_recall

__all__ = [
    "PrecisionRecall",
    "calibration_error",
    "energy_distance",
    "frechet_distance",
    "kernel_mmd",
    "memorization_rate",
    "nearest_distances",
    "num_repeated",
    "precision_recall",
]
