"""What models of other libraries predict on x = t z + (1 - t) e, as functions of the field u = z - e, and back."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cfgjax import paths

STRAIGHT = paths.linear()


class Space(NamedTuple):
    """``(values, x, t) -> values``: from the field's to the prediction's, and back."""

    view: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    back: Callable[[np.ndarray, np.ndarray, float], np.ndarray]


SPACES = {
    "velocity": Space(lambda u, x, t: -u, lambda value, x, t: -value),
    "field": Space(lambda u, x, t: u, lambda value, x, t: value),
    "denoised": Space(lambda u, x, t: x + (1 - t) * u, lambda value, x, t: (value - x) / (1 - t)),
    "noise": Space(lambda u, x, t: x - t * u, lambda value, x, t: (x - value) / t if t > 0 else -value),
    "score": Space(
        lambda u, x, t: -(x - t * u) / (1 - t), lambda value, x, t: (x + (1 - t) * value) / t if t > 0 else value
    ),
}
"""By the name of what is predicted; ``velocity`` is e - z, of models whose time 1 is noise."""
