"""How near samples lie to the data they were learned from, and to those of another law."""

import numpy as np
from sklearn.metrics import pairwise_distances_chunked

_ROWS, _POINTS = 256, 16_384
"""Samples and reference points compared at a time, to bound the memory."""


def nearest_distances(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each sample to its nearest reference point, [n], in float64.

    Args:
        samples: [n, *D].
        reference: [m, *D].
    """
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)
    squares = np.full(len(flat), np.inf)
    for start in range(0, len(reference), _POINTS):
        block = np.asarray(reference[start : start + _POINTS], np.float64)
        squares = np.minimum(squares, _nearest_squares(flat, block.reshape(len(block), -1)))
    return np.sqrt(np.maximum(squares, 0))


def _nearest_squares(flat: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The squared distance of each row of ``flat`` to the nearest of ``others``, but for rounding."""
    lengths = np.sum(others**2, axis=1)

    def nearest(rows: np.ndarray) -> np.ndarray:
        return (np.sum(rows**2, axis=1, keepdims=True) - 2 * rows @ others.T + lengths).min(axis=1)

    return np.concatenate([nearest(flat[start : start + _ROWS]) for start in range(0, len(flat), _ROWS)])


def _total_distance(rows: np.ndarray, others: np.ndarray) -> float:
    return sum(float(np.sum(np.asarray(block))) for block in pairwise_distances_chunked(rows, others))


def energy_distance(samples: np.ndarray, others: np.ndarray) -> float:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two laws, estimated without bias from samples.

    It is 0 for equal laws only; the estimate is then about 0, of either sign, and its spread over pairs of independent
    sets of one law is the floor under which two laws of such sets cannot be told apart.

    Args:
        samples: [n, *D], independent draws of the one law, n >= 2.
        others: [m, *D], of the other, m >= 2.

    Source: Szekely & Rizzo, Journal of Statistical Planning and Inference 143 (2013), equation 2.1.
    """
    one, other = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (samples, others))
    across = _total_distance(one, other) / (len(one) * len(other))
    within = (_total_distance(each, each) / (len(each) * (len(each) - 1)) for each in (one, other))
    return 2 * across - sum(within)


def copy_fraction(nearest: np.ndarray, held_out_nearest: np.ndarray, quantile: float = 0.01) -> float:
    """The fraction of samples nearer to a training point than ``quantile`` of the held-out points are.

    Samples of the true law would give ``quantile`` itself; what exceeds it is copied.

    Args:
        nearest: [n], the ``nearest_distances`` of samples to the training points.
        held_out_nearest: [k], those of real data that the model was not trained on.
        quantile: the share of held-out points that counts as near.
    """
    return float(np.mean(nearest < np.quantile(held_out_nearest, quantile)))
