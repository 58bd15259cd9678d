"""How near samples lie to the data they were learned from."""

import numpy as np

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


def copy_fraction(nearest: np.ndarray, held_out_nearest: np.ndarray, quantile: float = 0.01) -> float:
    """The fraction of samples nearer to a training point than ``quantile`` of the held-out points are.

    Samples of the true law would give ``quantile`` itself; what exceeds it is copied.

    Args:
        nearest: [n], the ``nearest_distances`` of samples to the training points.
        held_out_nearest: [k], those of real data that the model was not trained on.
        quantile: the share of held-out points that counts as near.
    """
    return float(np.mean(nearest < np.quantile(held_out_nearest, quantile)))
