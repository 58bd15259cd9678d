"""Numbers about samples, features, classifiers and fields."""

from __future__ import annotations

from cfgjax.metrics.calibration import calibration_error
from cfgjax.metrics.distances import copy_fraction, energy_distance, nearest_distances
from cfgjax.metrics.features import Neighbourhood, frechet_distance, kernel_distance, neighbourhood, num_repeated

__all__ = [
    "Neighbourhood",
    "calibration_error",
    "copy_fraction",
    "energy_distance",
    "frechet_distance",
    "kernel_distance",
    "nearest_distances",
    "neighbourhood",
    "num_repeated",
]
