"""Divergences of what a solver samples, by the determinant of the map from noise to samples."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import metrics, solvers
from cfgjax.analysis import likelihood
from cfgjax.types import Array, Solver, Tree
from experiments.evaluation.tilted_law import draw_tilted, sampling_floor, tilted_log_normaliser
from experiments.learn_schedule.scales import MIXTURE, NULL, PATH

MakeSolver = Callable[[Tree, Array], Solver]
"""``(params, y) -> solver``."""


@cache
def _log_normaliser(y: int, target: float) -> float:
    return tilted_log_normaliser(MIXTURE, y, target)


class Measured(NamedTuple):
    """Of each label, [K]: KL from the tilted and from the labelled law, how often the map turns over; and samples."""

    tilted: np.ndarray
    labelled: np.ndarray
    turned: np.ndarray
    samples: np.ndarray
    """[K, n, 2]."""


def log_density_of_map(solver: Solver, noise: Array, ts: Array) -> tuple[Array, Array, Array]:
    """log N(noise; 0, I) - log |det J| of the solver's own steps, the sample [2], and whether det J < 0.

    It is the density of the sample where no other noise leads there, and else less.
    """

    def end(noise: Array) -> Array:
        return solvers.integrate(solver, jax.random.key(0), noise, ts)

    (a, b), (c, d) = jax.jacfwd(end)(noise)
    determinant = a * d - b * c
    return likelihood.log_normal(noise) - jnp.log(jnp.abs(determinant)), end(noise), determinant < 0


def divergences(make_solver: MakeSolver, target: float, num_steps: int, num_samples: int) -> Callable[..., Measured]:
    """(params, key) -> Measured, compiled once: of a law tilted at ``target``."""
    ts, density, end = jnp.linspace(0, 1, num_steps + 1), MIXTURE.log_density(PATH), jnp.ones(())

    @jax.jit
    def of_label(params: Tree, key: Array, y: Array) -> tuple[Array, Array, Array, Array]:
        def one(noise: Array) -> tuple[Array, Array, Array, Array]:
            log_p, x, turned = log_density_of_map(make_solver(params, y), noise, ts)
            null, labelled = density(x, end, jnp.asarray(NULL)), density(x, end, y)
            return log_p - (1 - target) * null - target * labelled, log_p - labelled, turned, x

        noise = jax.random.normal(key, (num_samples, 2))
        *numbers, samples = jax.vmap(one)(noise)
        tilted, labelled, turned = (jnp.mean(each) for each in numbers)
        return tilted, labelled, turned, samples

    def run(params: Tree, key: Array) -> Measured:
        found = [of_label(params, key, jnp.asarray(y)) for y in range(NULL)]
        normalisers = [_log_normaliser(y, target) for y in range(NULL)]
        tilted, labelled, turned, samples = (np.asarray(each, np.float64) for each in zip(*found, strict=True))
        return Measured(tilted + normalisers, labelled, turned, samples)

    return run


@cache
def _exact_sets(y: int, target: float, num_samples: int) -> tuple[np.ndarray, float]:
    *sets, exact = draw_tilted(MIXTURE, y, target, num_samples, 4)
    return exact, sampling_floor(np.stack(sets))


def energy_in_floors(samples: np.ndarray, target: float) -> float:
    """The energy distance of samples [K, n, 2] to exact draws of the tilted law, over that of exact sets, averaged."""
    found = []
    for y, own in enumerate(samples):
        exact, floor = _exact_sets(y, target, len(own))
        found.append(metrics.energy_distance(own, exact) / floor)
    return float(np.mean(found))
