"""The table of flow maps of docs/conventions.md, row by row: their maps by a solve of their ODE, in NumPy, are ours.

Two normal laws stand for the data, that of the label and that of the null.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, paths
from cfgjax.types import GaussianPath
from tests.repo.test_codebases import _first_column

PAGE = (Path(__file__).parent.parent.parent / "docs" / "conventions.md").read_text()
LABELLED, NULL = (np.array([1.0, -0.5]), np.array([0.3, 2.0])), (np.array([0.2, 0.4]), np.array([1.5, 0.8]))
LINEAR, COSINE = paths.linear(), paths.cosine()

pytestmark = pytest.mark.usefixtures("x64")


class Ours(NamedTuple):
    """What a row says: the path, its t, r and x, the average velocity, and the scale w."""

    path: GaussianPath
    t: float
    r: float
    x: np.ndarray
    average: np.ndarray
    scale: float


def _predictions(law, x, a, b):
    """E[z|x] and E[noise|x] for x = a z + b noise."""
    mean, variance = law
    residual = (x - a * mean) / (a**2 * variance + b**2)
    return mean + a * variance * residual, b * residual


def _solve(field, x, start, stop, num_steps=400):
    """Where dx = field(x, t) dt leads, by the classical rule of Runge and Kutta."""
    h = (stop - start) / num_steps
    for t in start + h * np.arange(num_steps):
        first = field(x, t)
        second = field(x + h / 2 * first, t + h / 2)
        third = field(x + h / 2 * second, t + h / 2)
        x = x + h / 6 * (first + 2 * second + 2 * third + field(x + h * third, t + h))
    return x


def _by_levels(x, level, other, scale):
    """Where dx / d level = noise leads for the state z + level noise, guided with the scale."""

    def slope(x, level):
        (_, labelled), (_, null) = (_predictions(law, x, 1.0, level) for law in (LABELLED, NULL))
        return null + scale * (labelled - null)

    return _solve(slope, x, level, other)


def mean_flow(x, s):
    later, earlier, kappa = 0.8, 0.3, 0.6
    omega = (1 - kappa) * s

    def slope(x, t):
        (z, noise), (z_null, noise_null) = (_predictions(law, x, 1 - t, t) for law in (LABELLED, NULL))
        labelled = guided = noise - z
        for _ in range(60):
            guided = omega * labelled + kappa * guided + (1 - omega - kappa) * (noise_null - z_null)
        return guided

    average = (x - _solve(slope, x, later, earlier)) / (later - earlier)
    return Ours(LINEAR, 1 - later, 1 - earlier, x, -average, omega / (1 - kappa))


def flow_map_matching(x, s):
    start, stop, quarter = 0.2, 0.7, np.pi / 2

    def slope(x, t):
        a, b = np.sin(quarter * t), np.cos(quarter * t)
        z, noise = _predictions(LABELLED, x, a, b)
        return quarter * (b * z - a * noise)

    return Ours(COSINE, start, stop, x, (_solve(slope, x, start, stop) - x) / (stop - start), 1.0)


def shortcut(x, s):
    t, length = 0.25, 0.5

    def slope(x, t):
        (z, noise), (z_null, noise_null) = (_predictions(law, x, t, 1 - t) for law in (LABELLED, NULL))
        return (z_null - noise_null) + s * ((z - noise) - (z_null - noise_null))

    return Ours(LINEAR, t, t + length, x, (_solve(slope, x, t, t + length) - x) / length, s)


def consistency(x, s):
    level = 1.7
    t = 1 / (1 + level)
    return Ours(LINEAR, t, 1.0, t * x, (_by_levels(x, level, 0.0, 1.0) - t * x) / (1 - t), 1.0)


def consistency_trajectory(x, s):
    level, other = 1.7, 0.4
    t, r = 1 / (1 + level), 1 / (1 + other)
    return Ours(LINEAR, t, r, t * x, (r * _by_levels(x, level, other, 1.0) - t * x) / (r - t), 1.0)


def latent_consistency(x, s):
    a, b = 0.6, 0.8
    t, ours = 1 / (1 + b / a), x / (a + b)
    np.testing.assert_allclose(ours, t * x / a)
    return Ours(LINEAR, t, 1.0, ours, (_by_levels(x / a, b / a, 0.0, 1 + s) - ours) / (1 - t), 1 + s)


ROWS = {
    "MeanFlow": mean_flow,
    "flow map matching": flow_map_matching,
    "shortcut models": shortcut,
    "consistency models": consistency,
    "consistency trajectory models": consistency_trajectory,
    "latent consistency models": latent_consistency,
}
MAPS = {
    path: jax.jit(flow_maps.gaussian(path, flow_maps.Gaussian(*NULL), flow_maps.Gaussian(*LABELLED)))
    for path in (LINEAR, COSINE)
}


def test_every_row_of_the_page_has_its_test():
    assert _first_column("Flow maps") == list(ROWS)


@pytest.mark.parametrize("row", list(ROWS))
def test_their_map_is_our_average_velocity(row):
    for x, scale in itertools.product(np.array([[0.3, -1.0], [1.5, 0.4]]), (0.4, 2.5)):
        ours = ROWS[row](x, scale)
        found = MAPS[ours.path](ours.x, ours.t, ours.r, ours.scale)
        np.testing.assert_allclose(found, ours.average, rtol=1e-7, atol=1e-8)


def test_an_interval_of_mean_flows_times_is_one_of_ours():
    scale, low, high = guidance.interval(3.0, 1 - 0.8, 1 - 0.1), 0.1, 0.8
    for theirs in (0.05, 0.11, 0.5, 0.79, 0.81):
        assert float(guidance.scale_at(scale, 1 - theirs)) == (3.0 if low <= theirs <= high else 1.0)
    assert "`guidance.interval(w, 1 - b, 1 - a)`" in PAGE
