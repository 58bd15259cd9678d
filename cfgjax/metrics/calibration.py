"""Whether a classifier's probabilities are as often right as they say."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from cfgjax.checks import as_float64_rows, of_numpy, require_real
from cfgjax.contracts import Contract, PositiveInt, checked


def _log_probs(name: str, values: np.ndarray) -> np.ndarray:
    """Log-probabilities as float64; one of 0 may be -inf, and rounding may leave one a little above 0."""
    values = of_numpy(values)
    require_real(name, values)
    rows = np.asarray(values, np.float64)
    rows = as_float64_rows(name, np.where(np.isneginf(rows), np.finfo(np.float64).min, rows), ndim=2)
    if rows.max() > 1e-3:
        raise ValueError(f"{name} must be at most 0, got {rows.max():g}")
    return np.minimum(rows, 0)


@checked
def calibration_error(
    log_probs: Annotated[np.ndarray, Contract(_log_probs)], labels: np.ndarray, num_bins: PositiveInt = 15
) -> float:
    """The expected calibration error: the mean over examples of |confidence - accuracy|, both averaged over a bin.

    Confidence is the largest probability; bins divide [0, 1] equally.

    Args:
        log_probs: [n, K] log-probabilities.
        labels: [n] true labels.
        num_bins: number of bins.

    Source: Guo et al., arXiv 1706.04599, equation 3.

    Raises:
        ValueError: labels that are not [n] of integer type in 0..K-1.

    >>> round(calibration_error(np.log([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 6)
    0.3
    """
    labels = np.asarray(labels)
    num_examples, num_classes = log_probs.shape
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (num_examples,):
        raise ValueError(f"labels must be [{num_examples}] of integer type, got {labels.dtype} {labels.shape}")
    if not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {labels.min()} to {labels.max()}")
    confidence = np.exp(np.max(log_probs, axis=1))
    is_right = np.argmax(log_probs, axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))
