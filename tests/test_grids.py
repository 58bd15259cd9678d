"""Time grids: their closed forms, ends, and points put upon them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from cfgjax import paths
from cfgjax.solvers import grids

GRIDS = {
    "uniform": grids.uniform,
    "karras": lambda n: grids.karras(paths.linear(), n),
    "logit_normal": grids.logit_normal,
    "cosine": grids.cosine,
    "sigmoid": grids.sigmoid,
    "shifted": lambda n: grids.shifted(grids.uniform(n), 3.0),
}


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize("num_steps", [2, 9])
def test_a_grid_of_n_steps_rises_from_0_to_1(name, num_steps):
    ts = np.asarray(GRIDS[name](num_steps))
    assert ts.shape == (num_steps + 1,)
    assert ts[0] == 0
    assert ts[-1] == 1
    assert np.all(np.diff(ts) > 0)


@pytest.mark.usefixtures("x64")
def test_closed_forms():
    steps = np.arange(9) / 8
    np.testing.assert_allclose(grids.uniform(8), steps)
    np.testing.assert_allclose(grids.cosine(8), (1 - np.cos(np.pi * steps)) / 2, atol=1e-12)
    sigmoid = 1 / (1 + np.exp(-2.5 * (2 * steps - 1)))
    expected = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    np.testing.assert_allclose(grids.sigmoid(8, 2.5), expected, atol=1e-12)
    inside = 1 / (1 + np.exp(-(0.3 + 0.8 * norm.ppf(steps[1:-1]))))
    np.testing.assert_allclose(grids.logit_normal(8, 0.3, 0.8)[1:-1], inside, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_shift_moves_the_log_signal_to_noise_ratio(path):
    """By -log s on the linear path; and by Esser et al.'s own formula in their time 1 - t."""
    ts, shift = np.linspace(0.1, 0.9, 9), 3.0
    found = np.asarray(grids.shifted(jnp.asarray(ts), shift))
    np.testing.assert_allclose(np.log(found / (1 - found)), np.log(ts / (1 - ts)) - np.log(shift), rtol=1e-10)
    theirs = shift * (1 - ts) / (1 + (shift - 1) * (1 - ts))
    np.testing.assert_allclose(1 - found, theirs, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_grid_of_edm_has_its_noise_levels_on_every_path(exact_path):
    """beta / alpha at the inner points are (a + i/(n-1) (b - a))^rho with a, b the ends' 1/rho-th powers."""
    n, rho, smallest, largest = 10, 5.0, 0.01, 40.0
    ts = np.asarray(grids.karras(exact_path, n, rho, smallest, largest))
    a, b = largest ** (1 / rho), smallest ** (1 / rho)
    expected = (a + np.arange(n) / (n - 1) * (b - a)) ** rho
    found = np.asarray(jax.vmap(lambda t: exact_path.beta(t) / exact_path.alpha(t))(ts[1:-1]))
    np.testing.assert_allclose(found, expected[1:], rtol=1e-6)


def test_points_are_put_on_the_grid():
    """The nearest inner times move; a point that is there already, or beyond, moves nothing."""
    ts = np.linspace(0, 1, 6)
    np.testing.assert_allclose(grids.with_points(ts, (0.33, 0.7)), [0, 0.2, 0.33, 0.7, 0.8, 1])
    np.testing.assert_allclose(grids.with_points(ts, (0.2, 0.0, 1.0, 1.5)), ts)
    np.testing.assert_allclose(grids.with_points(ts, (0.02,)), [0, 0.02, 0.4, 0.6, 0.8, 1])
    narrow = grids.with_points(np.linspace(0, 1, 11, dtype=np.float32), (0.3, 0.33))
    assert {np.float32(0.3), np.float32(0.33)} <= set(narrow)
    np.testing.assert_allclose(grids.with_points(ts[::-1], (0.33,)), [1, 0.8, 0.6, 0.33, 0.2, 0])
    assert {0.19, 0.41} <= set(np.round(grids.with_points(np.linspace(0, 1, 11), (0.19, 0.41)), 6))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: grids.uniform(0), "num_steps must be at least 1"),
        (lambda: grids.karras(paths.linear(), 1), "num_steps must be at least 2"),
        (lambda: grids.karras(paths.linear(), 8, smallest=2.0, largest=1.0), "smallest must be under largest"),
        (lambda: grids.karras(paths.linear(), 8, rho=0.0), "rho must be"),
        (lambda: grids.logit_normal(8, std=0.0), "std must be"),
        (lambda: grids.sigmoid(8, -1.0), "reach must be"),
        (lambda: grids.shifted(grids.uniform(4), 0.0), "shift must be"),
        (lambda: grids.with_points(np.linspace(0, 1, 3), (0.4, 0.45)), "points must be further apart"),
        (lambda: jax.jit(lambda ts: grids.with_points(ts, (0.4,)))(jnp.linspace(0, 1, 3)), "got a traced one"),
    ],
)
def test_what_is_no_grid_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
