"""How near samples lie to the data they were learned from."""

import numpy as np


def nearest_distances(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The Euclidean distance of each sample to its nearest reference point, [n], in float64.

    Args:
        samples: [n, *D].
        reference: [m, *D].
    """
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)
    others = np.asarray(reference, np.float64).reshape(len(reference), -1)
    squares = np.sum(flat**2, axis=1, keepdims=True) - 2 * flat @ others.T + np.sum(others**2, axis=1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))


def copy_fraction(samples: np.ndarray, training: np.ndarray, held_out: np.ndarray, quantile: float = 0.01) -> float:
    """The fraction of samples nearer to a training point than ``quantile`` of the held-out points are.

    Samples of the true law would give ``quantile`` itself; what exceeds it is copied.

    Args:
        samples: [n, *D].
        training: [m, *D], what the model was trained on.
        held_out: [k, *D], real data it was not trained on.
        quantile: the share of held-out points that counts as near.
    """
    threshold = np.quantile(nearest_distances(held_out, training), quantile)
    return float(np.mean(nearest_distances(samples, training) < threshold))
