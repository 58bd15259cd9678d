"""How near samples lie to the data they were learned from, and to those of another law."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from cfgjax.checks import as_float64_rows
from cfgjax.contracts import UnitInterval, checked, rows

_SAME = 1e-6
"""A distance under this share of the largest is 0, but for rounding."""
_ROWS, _POINTS = 256, 16_384
"""Samples and reference points compared at a time, to bound the memory."""


def require_alike(name: str, values: np.ndarray, samples: np.ndarray) -> None:
    """Raises ValueError for a set without examples, or whose examples have another shape than the samples."""
    if np.ndim(values) == 0 or np.ndim(samples) == 0 or min(len(values), len(samples)) == 0:
        raise ValueError(
            f"samples and {name} must hold an example each, got {np.shape(samples)} and {np.shape(values)}"
        )
    if np.shape(values)[1:] != np.shape(samples)[1:]:
        words = f"got {np.shape(samples)} and {np.shape(values)}"
        raise ValueError(f"samples and {name} must hold examples of one shape, {words}")


Distances = Annotated[np.ndarray, rows(ndim=1)]
"""[n], finite, n >= 1."""


@checked
def nearest_distances(samples: Annotated[np.ndarray, rows()], reference: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each sample to its nearest reference point, [n], in float64.

    Args:
        samples: [n, *D].
        reference: [m, *D], m >= 1.

    Raises:
        TypeError, ValueError: no reference, examples of unlike shapes, numbers that are not real or finite.
    """
    require_alike("reference", reference, samples)
    flat = samples.reshape(len(samples), -1)
    squares = np.full(len(flat), np.inf)
    for start in range(0, len(reference), _POINTS):
        block = as_float64_rows("reference", reference[start : start + _POINTS])
        squares = np.minimum(squares, _nearest_squares(flat, block.reshape(len(block), -1)))
    return np.sqrt(np.maximum(squares, 0))


def _nearest_squares(flat: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The squared distance of each row of ``flat`` to the nearest of ``others``, but for rounding."""
    lengths = np.sum(others**2, axis=1)

    def nearest(rows: np.ndarray) -> np.ndarray:
        return (np.sum(rows**2, axis=1, keepdims=True) - 2 * rows @ others.T + lengths).min(axis=1)

    return np.concatenate([nearest(flat[start : start + _ROWS]) for start in range(0, len(flat), _ROWS)])


def _total_distance(rows: np.ndarray, others: np.ndarray) -> float:
    # Here, as it takes a second to import, and most commands do without.
    from sklearn.metrics import pairwise_distances_chunked

    return sum(float(np.sum(np.asarray(block))) for block in pairwise_distances_chunked(rows, others))


@checked
def energy_distance(samples: Annotated[np.ndarray, rows(2)], others: Annotated[np.ndarray, rows(2)]) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two laws, estimated without bias from samples.

    It is 0 for equal laws only; the estimate is then about 0, of either sign, and its spread over pairs of independent
    sets of one law is the floor under which two laws of such sets cannot be told apart.

    Args:
        samples: [n, *D], independent draws of the one law, n >= 2.
        others: [m, *D], of the other, m >= 2.

    Source: Szekely & Rizzo, Journal of Statistical Planning and Inference 143 (2013), equation 2.1.

    Raises:
        ValueError: examples of unlike shapes.
    """
    require_alike("others", others, samples)
    one, other = (each.reshape(len(each), -1) for each in (samples, others))
    across = _total_distance(one, other) / (len(one) * len(other))
    within = (_total_distance(each, each) / (len(each) * (len(each) - 1)) for each in (one, other))
    return 2 * across - sum(within)


@checked
def memorization_rate(nearest: Distances, held_out_nearest: Distances, quantile: UnitInterval = 0.01) -> float:
    """The fraction of samples nearer to a training point than ``quantile`` of the held-out points are.

    Samples of the true law would give ``quantile`` itself; what exceeds it is copied.

    Args:
        nearest: [n], the ``nearest_distances`` of samples to the training points.
        held_out_nearest: [k], those of real data that the model was not trained on.
        quantile: the share of held-out points that counts as near.

    Raises:
        ValueError: a quantile at which the held-out distances are 0, as some held-out points are training points: no
            sample would count.
    """
    bound = np.quantile(held_out_nearest, quantile)
    if bound <= _SAME * held_out_nearest.max():
        raise ValueError(
            f"held_out_nearest must be above 0 at the quantile {quantile:g}: held-out points lie on training points; "
            "leave them out, or no sample counts as a copy"
        )
    return float(np.mean(nearest < bound))
