"""What is known exactly: the mixture that the checks run on, its views, its states, its labels' moments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.contracts import at_least, instance
from cfgjax.mixtures import JointMixture, LabelledMixture, joint
from cfgjax.paths import linear
from cfgjax.types import Array, Condition, GaussianPath, LabelledField

View = Literal["field", "score", "noise", "denoiser"]
VIEWS = ("field", "score", "noise", "denoiser")

Oracle = Annotated[LabelledMixture, instance(LabelledMixture, "a LabelledMixture, as mixtures.ring() is")]
"""A labelled mixture, of which everything is known exactly."""
JointOracle = Annotated[JointMixture, instance(JointMixture, "a JointMixture, as mixtures.joint(...) is")]
"""A joint mixture of points and vectors with labels, of which everything is known exactly."""
Seed = Annotated[int, at_least(0, 2**31 - 1)]
"""An integer of 31 bits, not negative."""

STRAIGHT = linear()
"""The path of the checks that are given none: one object, so that the oracle on it is compiled once."""


def skewed_mixture() -> LabelledMixture:
    """Three labels in 2-D without any symmetry, so that no two errors look alike."""
    means = np.array([[-0.9, 0.4], [1.1, 0.9], [0.3, -1.2]])
    covariances = np.array([[[0.5, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.6]], [[0.6, 0.1], [0.1, 0.3]]])
    return LabelledMixture(*map(jnp.asarray, (np.array([0.5, 0.2, 0.3]), means, covariances)))


def skewed_joint_mixture() -> JointMixture:
    """The same with two noisy measurements of the points, of which neither is the other's mirror."""
    return joint(skewed_mixture(), jnp.asarray([[1.1, -0.4], [0.3, 0.9]]), 0.6)


def lopsided_mixture() -> LabelledMixture:
    """Three labels of two unequal components each, in 2-D: in no view is a median of the target its mean."""
    means = np.array([[[-1.6, 0.5], [0.9, 1.8]], [[1.8, 1.4], [0.6, -1.2]], [[-0.6, -2.2], [1.5, -0.3]]])
    covariances = np.array([[[0.2, 0.08], [0.08, 0.15]], [[0.3, -0.05], [-0.05, 0.2]]])
    weights = np.array([[0.3, 0.1], [0.24, 0.06], [0.09, 0.21]])
    return LabelledMixture(*map(jnp.asarray, (weights, means, np.stack([covariances] * 3))))


def oracle_views(mixture: LabelledMixture | JointMixture, path: GaussianPath) -> dict[View, LabelledField]:
    """The oracle's views by name, each of ONE example."""
    return {
        "field": mixture.vector_field(path),
        "score": mixture.score(path),
        "noise": mixture.noise(path),
        "denoiser": mixture.denoiser(path),
    }


@partial(jax.jit, static_argnames=("view", "path"))
def _values(
    view: View, path: GaussianPath, mixture: LabelledMixture | JointMixture, x: Array, t: Array, y: Condition
) -> Array:
    return jax.vmap(oracle_views(mixture, path)[view])(x, t, y)


class Views(NamedTuple):
    """The oracle's views on a path over rows (x [n, D], t [n], y [n], or a tree of [n, ...])."""

    mixture: LabelledMixture | JointMixture
    path: GaussianPath

    def values(self, view: View, x: Array, t: Array, y: Condition) -> np.ndarray:
        """The view's values, [n, D]."""
        return np.asarray(_values(view, self.path, self.mixture, x, t, y), np.float64)


def states(mixture: LabelledMixture, path: GaussianPath, times: np.ndarray, seed: int) -> Array:
    """A state of p_t(x) for each of the times [n], as [n, D]."""
    _, z, noise = _draws(mixture, len(times), seed)
    return _moved(path, times, z, noise)


def labelled_data(mixture: LabelledMixture, size: int, seed: int) -> tuple[Array, Array]:
    """Data points of all labels, [size, D], and their labels, [size]."""
    chosen, z, _ = _draws(mixture, size, seed)
    per_label = np.size(mixture.weights) // mixture.num_classes
    return jnp.asarray(z, jnp.result_type(float)), jnp.asarray(chosen // per_label)


def joint_states(
    mixture: JointMixture, path: GaussianPath, times: np.ndarray, seed: int
) -> tuple[Array, dict[str, Array]]:
    """A state of p_t(x) for each of the times [n], as [n, D], and its data point's vectors, [n, k] each."""
    _, z, noise = _draws(mixture.mixture, len(times), seed)
    ends = np.cumsum((mixture.dimension, *mixture.sizes.values()))
    points, *vectors = np.split(z, ends[:-1], axis=1)
    own = {name: jnp.asarray(rows, jnp.result_type(float)) for name, rows in zip(mixture.sizes, vectors, strict=True)}
    return _moved(path, times, points, noise[:, : mixture.dimension]), own


def _draws(mixture: LabelledMixture, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components of some draws, [size], their data points and noise, [size, D] each."""
    rng = np.random.default_rng(seed)
    weights = np.asarray(mixture.weights, np.float64).reshape(-1)
    chosen = rng.choice(len(weights), size=size, p=weights / weights.sum())
    dimension = mixture.means.shape[-1]
    roots = np.linalg.cholesky(np.asarray(mixture.covariances, np.float64).reshape(-1, dimension, dimension))
    z, noise = rng.normal(size=(2, size, dimension))
    means = np.asarray(mixture.means, np.float64).reshape(-1, dimension)
    return chosen, means[chosen] + np.einsum("nij,nj->ni", roots[chosen], z), noise


def _moved(path: GaussianPath, times: np.ndarray, z: np.ndarray, noise: np.ndarray) -> Array:
    alpha, beta = (np.expand_dims(np.asarray(part(jnp.asarray(times))), -1) for part in (path.alpha, path.beta))
    return jnp.asarray(alpha * z + beta * noise, jnp.result_type(float))


def moments(mixture: LabelledMixture, y: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] of the data of label y, of all data for the null label."""
    rows = slice(None) if y == mixture.num_classes else slice(y, y + 1)
    dimension = mixture.means.shape[-1]
    log_weights = np.asarray(mixture.component_log_probs, np.float64)[rows].reshape(-1)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    means = np.asarray(mixture.means, np.float64)[rows].reshape(-1, dimension)
    covariances = np.asarray(mixture.covariances, np.float64)[rows].reshape(-1, dimension, dimension)
    mean = weights @ means
    apart = means - mean
    return mean, np.tensordot(weights, covariances, axes=1) + (apart.T * weights) @ apart


Moments = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""``y -> (mean [D], covariance [D, D])``."""


def whitened(samples: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """L^-1 (x - mean) with L L^T the covariance, for samples [n, D]."""
    return np.linalg.solve(np.linalg.cholesky(covariance), (samples - mean).T).T


def law_error(moments_of: Moments, samples: np.ndarray, labels: np.ndarray) -> float:
    """The largest error of the labels' moments, whitened by the exact ones: means and second moments less 0 and I."""
    errors = []
    for y in np.unique(labels):
        white = whitened(samples[labels == y], *moments_of(int(y)))
        second = white.T @ white / len(white) - np.eye(white.shape[1])
        errors.append(max(np.abs(white.mean(axis=0)).max(), np.abs(second).max()))
    return float(max(errors))


def law_allowed(labels: np.ndarray) -> float:
    """Six standard errors of (V8) for the label with the fewest samples."""
    return float(6 * np.sqrt(2 / np.unique(labels, return_counts=True)[1].min()))
