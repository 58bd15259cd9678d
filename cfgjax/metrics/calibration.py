"""Whether a classifier's probabilities are as often right as they say."""

import numpy as np


def calibration_error(log_probs: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """The expected calibration error: the mean over examples of |confidence - accuracy|, both averaged over a bin.

    Confidence is the largest probability; bins divide [0, 1] equally.

    Args:
        log_probs: [n, K] log-probabilities.
        labels: [n] true labels.
        num_bins: number of bins.

    Source: Guo et al., arXiv 1706.04599, equation 3.

    >>> round(calibration_error(np.log([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 6)
    0.3
    """
    confidence = np.exp(np.max(np.asarray(log_probs, np.float64), axis=1))
    is_right = np.argmax(log_probs, axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))
