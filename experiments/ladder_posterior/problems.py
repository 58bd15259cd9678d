"""Measurements of a mixture's points, with exact draws of what they leave open."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import metrics, mixtures, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Measurement
from cfgjax.verify.posterior_laws import mode_weights

NUM_SETS = 16
"""Sets of exact draws, of which the largest error is the floor."""


class Case(NamedTuple):
    """What one call of a sampler is told: the measurement, the label and the guidance scale."""

    measurement: Measurement
    label: Array
    scale: Array


def ring() -> LabelledMixture:
    """Eight unequal components on a circle in 2-D, of two labels in turn."""
    angles = 2 * np.pi * np.arange(8).reshape(4, 2).T / 8 + 0.2
    means = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    weights = np.asarray([[0.2, 0.1, 0.1, 0.15], [0.1, 0.15, 0.1, 0.1]])
    return LabelledMixture(*map(jnp.asarray, (weights, means, np.broadcast_to(0.09 * np.eye(2), (2, 4, 2, 2)))))


def wide() -> LabelledMixture:
    """Eight components in 16-D, of two labels, with covariances of their own."""
    rng = np.random.default_rng(0)
    means = 0.8 * rng.normal(size=(2, 4, 16))
    turns = np.linalg.qr(rng.normal(size=(2, 4, 16, 16)))[0]
    covariances = np.einsum("klij,j,klmj->klim", turns, np.geomspace(0.05, 0.5, 16), turns)
    return LabelledMixture(jnp.ones((2, 4)), jnp.asarray(means), jnp.asarray(covariances))


MIXTURES = {"ring": ring, "wide": wide}
RANKS = {"ring": (1,), "wide": (1, 4, 8)}


def operator(mixture: LabelledMixture, name: str, rank: int) -> Array:
    """A of orthonormal rows, with rows of 0 up to the largest rank, so that all ranks have one shape."""
    dimension = mixture.means.shape[-1]
    rows = np.linalg.qr(np.random.default_rng(5).normal(size=(dimension, dimension)))[0]
    largest = max(RANKS[name])
    return jnp.asarray(rows[:largest] * np.expand_dims(np.arange(largest) < rank, -1), jnp.result_type(float))


def cases(mixture: LabelledMixture, matrix: Array, noise: float, scale: float, num_measurements: int) -> list[Case]:
    """Measurements of points of both labels in turn, the same for each noise and scale."""

    def one(index: int) -> Case:
        point_key, noise_key = jax.random.split(jax.random.key(100 + index))
        label = index % mixture.num_classes
        z = mixture.sample(point_key, label)
        known = steering.measure(steering.operators.matrix(matrix), noise_key, z, jnp.float32(noise))
        is_seen = jnp.any(matrix != 0, axis=1)
        return Case(known._replace(value=jnp.where(is_seen, known.value, 0)), jnp.asarray(label), jnp.float32(scale))

    return [one(index) for index in range(num_measurements)]


@jax.jit
def _proposals(mixture: LabelledMixture, case: Case, keys: Array) -> tuple[Array, Array]:
    """Draws of p(z|m, y), of p(z|m) at w = 0, with the logarithm of the share of them that is kept."""
    posterior = mixtures.posterior(mixture, case.measurement)
    label = jnp.where(case.scale == 0, mixture.num_classes, case.label)
    return jax.vmap(lambda key: mixtures.guided_sample(mixture, posterior, key, label, case.scale))(keys)


def exact_draws(mixture: LabelledMixture, case: Case, size: int) -> np.ndarray:
    """Independent draws of p(z|y)^w p(z)^(1-w) p(m|z), [size, D], for w = 0 or of at least 1, by rejection."""
    rng, kept = np.random.default_rng(0), []
    for attempt in range(200):
        keys = jax.random.split(jax.random.key(attempt), 2 * size)
        z, log_weights = (np.asarray(each, np.float64) for each in _proposals(mixture, case, keys))
        kept += list(z[np.log(rng.uniform(size=len(z))) <= log_weights])
        if len(kept) >= size:
            return np.stack(kept[:size])
    raise AssertionError("a label of the mixtures has a probability of a tenth at least where it is measured")


class Errors(NamedTuple):
    """How far draws are from the true posterior: energy distance; bias of mean, covariance and modes' weights.

    The mean's is in standard deviations, the covariance's relative, the weights' a total variation.
    """

    energy: float
    mean: float
    covariance: float
    modes: float


class Truth(NamedTuple):
    """Exact draws of a case, what they say of the law, and the errors of other exact draws."""

    draws: np.ndarray
    posterior: LabelledMixture
    floor: Errors

    def errors(self, samples: np.ndarray) -> Errors:
        """The errors of samples [n, D]; infinite where one of them is not finite or far out."""
        if not np.isfinite(samples).all() or np.abs(samples).max() > 1e6:
            return Errors(*[np.inf] * 4)
        root = np.linalg.cholesky(np.cov(self.draws.T))
        white, exact = (np.linalg.solve(root, (each - self.draws.mean(axis=0)).T).T for each in (samples, self.draws))
        change = np.cov(white.T) - np.cov(exact.T)
        modes = 0.5 * np.abs(mode_weights(self.posterior, samples) - mode_weights(self.posterior, self.draws)).sum()
        energy = metrics.energy_distance(samples, self.draws)
        return Errors(energy, float(np.linalg.norm(white.mean(axis=0))), float(np.linalg.norm(change, 2)), float(modes))


def truth_of(mixture: LabelledMixture, case: Case, num_samples: int) -> Truth:
    """Twice as many exact draws as samples, and the largest errors of sets of exact draws of the samples' size."""
    draws = exact_draws(mixture, case, (2 + NUM_SETS) * num_samples)
    posterior = mixtures.posterior(mixture, case.measurement)
    truth = Truth(draws[: 2 * num_samples], posterior, Errors(0.0, 0.0, 0.0, 0.0))
    sets = draws[2 * num_samples :].reshape(NUM_SETS, num_samples, -1)
    found = np.asarray([truth.errors(each) for each in sets])
    return truth._replace(floor=Errors(*(float(value) for value in found.max(axis=0))))
