"""Whether a classifier's probabilities are as often right as they say."""

from __future__ import annotations

import numpy as np

from cfgjax.checks import as_float64_rows, of_numpy, require_count, require_real


def calibration_error(log_probs: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """The expected calibration error: the mean over examples of |confidence - accuracy|, both averaged over a bin.

    Confidence is the largest probability; bins divide [0, 1] equally.

    Args:
        log_probs: [n, K] log-probabilities.
        labels: [n] true labels.
        num_bins: number of bins.

    Source: Guo et al., arXiv 1706.04599, equation 3.

    Raises:
        TypeError, ValueError: log_probs that are not [n, K] with n at least 1, not finite or above 0, labels that are
            not [n] of integer type in 0..K-1, fewer than one bin.

    >>> round(calibration_error(np.log([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 6)
    0.3
    """
    require_count("num_bins", num_bins, 1)
    rows = _log_probs(log_probs)
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != rows.shape[:1]:
        raise ValueError(f"labels must be [{len(rows)}] of integer type, got {labels.dtype} {labels.shape}")
    if not (labels.min() >= 0 and labels.max() < rows.shape[1]):
        raise ValueError(f"labels must be in 0..{rows.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    confidence = np.exp(np.max(rows, axis=1))
    is_right = np.argmax(rows, axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _log_probs(values: np.ndarray) -> np.ndarray:
    """Log-probabilities as float64; one of 0 may be -inf, and rounding may leave one a little above 0."""
    values = of_numpy(values)
    require_real("log_probs", values)
    rows = np.asarray(values, np.float64)
    rows = as_float64_rows("log_probs", np.where(np.isneginf(rows), np.finfo(np.float64).min, rows), ndim=2)
    if rows.max() > 1e-3:
        raise ValueError(f"log_probs must be at most 0, got {rows.max():g}")
    return np.minimum(rows, 0)
