"""Exact posteriors, and what draws are off them by.

(V33) A region that holds the share q is {z: p(z|m) >= c}, of the posterior's highest density: an ellipsoid of
      Mahalanobis distance for one Gaussian. A mode's weight is the mean over draws of the probability of its component.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from cfgjax.mixtures import LabelledMixture
from cfgjax.verify.reference import labelled_data, moments, whitened

SHARES = (0.5, 0.9)
"""What the regions hold."""


def log_joint(mixture: LabelledMixture, z: np.ndarray) -> np.ndarray:
    """log w_k N(z; mu_k, S_k) of every component for points [n, D], [n, components], in float64."""
    dimension, rows = mixture.means.shape[-1], []
    weights = np.asarray(mixture.weights, np.float64).reshape(-1)
    means = np.asarray(mixture.means, np.float64).reshape(-1, dimension)
    covariances = np.asarray(mixture.covariances, np.float64).reshape(-1, dimension, dimension)
    for weight, mean, covariance in zip(weights / weights.sum(), means, covariances, strict=True):
        squares = np.sum(whitened(z, mean, covariance) ** 2, axis=1)
        rows.append(np.log(max(weight, 1e-300)) - 0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1]))
    return np.stack(rows, axis=1)


def mode_weights(mixture: LabelledMixture, z: np.ndarray) -> np.ndarray:
    """The mean over points [n, D] of the probability of each component, [components] (V33)."""
    joint = log_joint(mixture, z)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True)).mean(axis=0)


class Law(NamedTuple):
    """An exact posterior with its moments, and the log-densities that bound the regions."""

    posterior: LabelledMixture
    mean: np.ndarray
    covariance: np.ndarray
    levels: tuple[float, ...]

    def errors(self, z: np.ndarray) -> np.ndarray:
        """What draws [n, D] are off by: mean, covariance, each region's share, the modes' weights (V33)."""
        weights = np.asarray(self.posterior.weights, np.float64).reshape(-1)
        if not np.isfinite(z).all():
            return np.full(len(names_of(len(weights))), np.inf)
        white, density = whitened(z, self.mean, self.covariance), logsumexp(log_joint(self.posterior, z), axis=1)
        covariance = np.cov(white.T, bias=True).reshape(white.shape[1], -1) - np.eye(white.shape[1])
        found = [np.linalg.norm(white.mean(axis=0)), np.linalg.norm(covariance, 2)]
        found += [abs(np.mean(density >= level) - share) for level, share in zip(self.levels, SHARES, strict=True)]
        if len(weights) > 1:
            found.append(0.5 * np.abs(mode_weights(self.posterior, z) - weights / weights.sum()).sum())
        return np.asarray(found)


def names_of(num_components: int) -> list[str]:
    """What the errors of a law of so many components are called."""
    shares = [f"share of draws in the region of {share:.0%}" for share in SHARES]
    modes = ["modes' weights: total variation"] if num_components > 1 else []
    return ["bias of the mean, in standard deviations", "bias of the covariance, relative", *shares, *modes]


def law_of(posterior: LabelledMixture, seed: int) -> Law:
    """The exact posterior, its regions by 65,536 draws."""
    density = logsumexp(log_joint(posterior, exact_draws(posterior, 65_536, seed)), axis=1)
    levels = tuple(np.quantile(density, [1 - share for share in SHARES]))
    return Law(posterior, *moments(posterior, posterior.num_classes), levels)


def exact_draws(posterior: LabelledMixture, size: int, seed: int) -> np.ndarray:
    """Independent draws of all labels together, [size, D]."""
    return np.asarray(labelled_data(posterior, size, seed)[0], np.float64)
