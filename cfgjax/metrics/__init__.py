"""Numbers about samples and fields."""

from cfgjax.metrics.distances import copy_fraction, nearest_distances
from cfgjax.metrics.fields import relative_error

__all__ = ["copy_fraction", "nearest_distances", "relative_error"]
