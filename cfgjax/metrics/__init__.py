"""Numbers about samples, features, classifiers and fields."""

from __future__ import annotations

from cfgjax.metrics.calibration import calibration_error as calibration_error
from cfgjax.metrics.distances import energy_distance as energy_distance
from cfgjax.metrics.distances import memorization_rate as memorization_rate
from cfgjax.metrics.distances import nearest_distances as nearest_distances
from cfgjax.metrics.features import FeatureStatistics as FeatureStatistics
from cfgjax.metrics.features import PrecisionRecall as PrecisionRecall
from cfgjax.metrics.features import feature_statistics as feature_statistics
from cfgjax.metrics.features import frechet_distance as frechet_distance
from cfgjax.metrics.features import frechet_distance_to as frechet_distance_to
from cfgjax.metrics.features import kernel_mmd as kernel_mmd
from cfgjax.metrics.features import num_repeated as num_repeated
from cfgjax.metrics.features import precision_recall as precision_recall
