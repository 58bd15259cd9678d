"""The laws that guided samples are held against: exact draws of the plane's tilted law, and how far others are off.

(L1) Distance: the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| in the plane, X the samples and Y exact draws of
     p(x)^(1-w) p(x|y)^w, without bias; its floor is the largest of sets of exact draws of the samples' number.
(L2) Coverage: the sum over the nine components of min(found, true), each the share of points nearest to its mean.
(L3) Spread: the root of the mean square of all coordinates outside the plane, over their true standard deviation;
     1 in 2-D. Of exact draws it is within 1 / sqrt(2 n (D - 2)) of 1 in one standard error.
The plane's law is the same for every D, and so are (L1), (L2) and their floors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array
from cfgjax.verify.posterior_laws import log_joint
from experiments.ladder.problems import LABEL, OTHER_STD

REACH, SIDE = 1.8, 721
"""The grid's half width and points on a side, of cells a thirtieth of a component's standard deviation."""
NUM_DRAWS, NUM_SETS = 2048, 16
"""Exact draws of a law, and sets of others for its floor."""


class Law(NamedTuple):
    """A law in the plane: exact draws [m, 2], their mean distance to each other [], each component's true share [9]."""

    draws: np.ndarray
    within: np.ndarray
    shares: np.ndarray


class Grid(NamedTuple):
    """Points [m, 2] of a fine grid, the side of a cell, and log p(x) and log p(x|y) [m] at them."""

    points: np.ndarray
    cell: float
    null: np.ndarray
    labelled: np.ndarray


def grid_of(plane: LabelledMixture, label: int = LABEL) -> Grid:
    """The grid of a mixture in 2-D."""
    side = np.linspace(-REACH, REACH, SIDE)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    joint, own = log_joint(plane, points), np.arange(np.size(plane.weights)) // plane.weights.shape[1] == label
    share = np.sum(np.asarray(plane.weights, np.float64)[label]) / np.sum(np.asarray(plane.weights, np.float64))
    labelled = logsumexp(joint[:, own], axis=1) - np.log(share)
    return Grid(points, side[1] - side[0], logsumexp(joint, axis=1), labelled)


def probabilities(grid: Grid, scale: float) -> np.ndarray:
    """The tilted law's probability of each cell, [m]."""
    values = (1 - scale) * grid.null + scale * grid.labelled
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def draw(grid: Grid, scale: float, size: int, seed: int) -> np.ndarray:
    """Exact draws [n, 2] of the tilted law: of the grid, uniform in its cells."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(grid.points), size, p=probabilities(grid, scale))
    return grid.points[chosen] + rng.uniform(-0.5, 0.5, (size, 2)) * grid.cell


def _nearest(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """The number of the nearest mean of each point, [n]."""
    return np.argmin(np.sum((points[:, None] - means) ** 2, axis=-1), axis=1)


def law_of(plane: LabelledMixture, grid: Grid, scale: float) -> Law:
    """The tilted law of the plane at w = ``scale``; at w = 1 the labelled law."""
    draws = draw(grid, scale, NUM_DRAWS, 0)
    means = np.asarray(plane.means, np.float64).reshape(-1, 2)
    shares = np.bincount(_nearest(grid.points, means), probabilities(grid, scale), len(means))
    distances = np.linalg.norm(draws[:, None] - draws, axis=-1)
    within = distances.sum() / (NUM_DRAWS * (NUM_DRAWS - 1))
    return Law(*(np.asarray(each, np.float32) for each in (draws, within, shares)))


def _mean_distance(points: Array, others: Array) -> Array:
    change = jnp.expand_dims(points, 1) - jnp.expand_dims(others, 0)
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(change), axis=-1)))


def energy_distance(points: Array, law: Law) -> Array:
    """(L1) of points [n, 2], [], within a program."""
    within = _mean_distance(points, points) * len(points) / (len(points) - 1)
    return 2 * _mean_distance(points, jnp.asarray(law.draws)) - within - law.within


@jax.jit
def _distances(sets: Array, law: Law) -> Array:
    """(L1) of every set [n, 2] of every law, [W, sets]."""
    return jax.lax.map(lambda each: jax.lax.map(lambda points: energy_distance(points, each[1]), each[0]), (sets, law))


def floors_of(grid: Grid, all_laws: Law, scales: Sequence[float], num_samples: int) -> list[float]:
    """The floor of (L1) for the law of every w: the largest distance, in size, of sets of exact draws."""
    sets = [draw(grid, scale, NUM_SETS * num_samples, 1).reshape(NUM_SETS, num_samples, 2) for scale in scales]
    found = _distances(jnp.asarray(np.float32(np.stack(sets))), all_laws)
    return [float(value) for value in np.abs(np.asarray(found)).max(axis=1)]


def coverage(points: Array, means: Array, law: Law) -> Array:
    """(L2) of points [n, 2], []."""
    squares = jnp.sum(jnp.square(jnp.expand_dims(points, 1) - jnp.expand_dims(means, 0)), axis=-1)
    is_own = jnp.expand_dims(jnp.argmin(squares, axis=1), 1) == jnp.expand_dims(jnp.arange(len(means)), 0)
    return jnp.sum(jnp.minimum(jnp.mean(is_own.astype(points.dtype), axis=0), law.shares))


def spread(x: Array) -> Array:
    """(L3) of samples [n, D], []; 1 for D = 2."""
    others = x[:, 2:]
    return jnp.sqrt(jnp.mean(jnp.square(others))) / OTHER_STD if others.size else jnp.ones((), x.dtype)
