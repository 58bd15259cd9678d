"""How good samples of the posterior are: near to the truth, true to the measurement, of the right class, and varied."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.feature_classifier import FeatureClassifier, class_accuracy
from experiments.solve_inverse.problems import Problems

_RANGE = 2.0
"""Of the pictures, [-1, 1]."""


def psnr(truth: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, the mean over pictures [n, H, W, C], clipped to [-1, 1]."""
    squares = np.mean(np.square(np.clip(found, -1, 1) - truth, dtype=np.float64), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return float(np.mean(10 * np.log10(_RANGE**2 / squares)))


def residual(problems: Problems, samples: np.ndarray) -> float:
    """Root mean square of A x - m over what is measured, of samples [n, S, H, W, C]."""
    values = jax.jit(jax.vmap(jax.vmap(problems.operator)))(jnp.asarray(samples))
    errors = np.asarray(values, np.float64) - problems.value[:, None]
    return float(np.sqrt(np.mean(np.square(errors[..., problems.is_measured]))))


def agreement(problems: Problems, samples: np.ndarray, classifier: FeatureClassifier | None) -> dict[str, Any]:
    """What samples [n, S, H, W, C] make of what is known of them.

    ``consistency`` is the residual over the noise, of the truth 1 on the average, and left out without noise;
    ``recognised`` the share taken for the truth's label, left out without a classifier.
    """
    found = {"residual": residual(problems, samples)}
    if problems.noise_std > 0:
        found["consistency"] = found["residual"] / problems.noise_std
    if classifier is not None:
        found["recognised"] = class_accuracy(classifier, problems.label, samples)
    return found


def measures(problems: Problems, samples: np.ndarray, classifier: FeatureClassifier | None) -> dict[str, Any]:
    """The numbers of samples [n, S, H, W, C], S > 1 of each picture: ``agreement``, and how near they are and varied.

    ``deviation`` is the root mean square deviation of the samples of a picture from their mean.
    """
    of_each = np.repeat(problems.truth, samples.shape[1], axis=0)
    return {
        "psnr": psnr(of_each, samples.reshape(of_each.shape)),
        "psnr_of_mean": psnr(problems.truth, np.mean(samples, axis=1)),
        "deviation": float(np.sqrt(np.mean(np.var(samples, axis=1, ddof=1, dtype=np.float64)))),
        **agreement(problems, samples, classifier),
    }
