"""Time grids: their closed forms, ends, and points put upon them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from cfgjax import paths
from cfgjax.checks import require_grid
from cfgjax.solvers import time_grids

GRIDS = {
    "uniform": time_grids.uniform,
    "karras": lambda n: time_grids.karras(paths.linear(), n),
    "logit_normal": time_grids.logit_normal,
    "cosine": time_grids.cosine,
    "sigmoid": time_grids.sigmoid,
    "shifted": lambda n: time_grids.shifted(time_grids.uniform(n), 3.0),
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
    np.testing.assert_allclose(time_grids.uniform(8), steps)
    np.testing.assert_allclose(time_grids.cosine(8), (1 - np.cos(np.pi * steps)) / 2, atol=1e-12)
    sigmoid = 1 / (1 + np.exp(-2.5 * (2 * steps - 1)))
    expected = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    np.testing.assert_allclose(time_grids.sigmoid(8, 2.5), expected, atol=1e-12)
    inside = 1 / (1 + np.exp(-(0.3 + 0.8 * norm.ppf(steps[1:-1]))))
    np.testing.assert_allclose(time_grids.logit_normal(8, 0.3, 0.8)[1:-1], inside, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_shift_moves_the_log_signal_to_noise_ratio(path):
    """By -log s on the linear path; and by Esser et al.'s own formula in their time 1 - t."""
    ts, shift = np.linspace(0.1, 0.9, 9), 3.0
    found = np.asarray(time_grids.shifted(jnp.asarray(ts), shift))
    np.testing.assert_allclose(np.log(found / (1 - found)), np.log(ts / (1 - ts)) - np.log(shift), rtol=1e-10)
    theirs = shift * (1 - ts) / (1 + (shift - 1) * (1 - ts))
    np.testing.assert_allclose(1 - found, theirs, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_grid_of_edm_has_its_noise_levels_on_every_path(exact_path):
    """beta / alpha at the inner points are (a + i/(n-1) (b - a))^rho with a, b the ends' 1/rho-th powers."""
    n, rho, smallest, largest = 10, 5.0, 0.01, 40.0
    ts = np.asarray(time_grids.karras(exact_path, n, rho, smallest, largest))
    a, b = largest ** (1 / rho), smallest ** (1 / rho)
    expected = (a + np.arange(n) / (n - 1) * (b - a)) ** rho
    found = np.asarray(jax.vmap(lambda t: exact_path.beta(t) / exact_path.alpha(t))(ts[1:-1]))
    np.testing.assert_allclose(found, expected[1:], rtol=1e-6)


SETTINGS = {
    "uniform": (time_grids.uniform, {}),
    "karras": (
        lambda n, **more: time_grids.karras(paths.linear(), n, **more),
        {"rho": (0.05, 60.0), "smallest": (1e-9, 1.0)},
    ),
    "karras, cosine": (
        lambda n, **more: time_grids.karras(paths.cosine(), n, **more),
        {"rho": (0.2, 20.0), "largest": (0.01, 1e6)},
    ),
    "karras, variance preserving": (
        lambda n, **more: time_grids.karras(paths.variance_preserving(), n, **more),
        {"smallest": (1e-6, 0.1)},
    ),
    "karras, ddpm": (lambda n, **more: time_grids.karras(paths.ddpm(), n, **more), {"smallest": (0.002, 0.0101, 1.0)}),
    "karras, original": (
        lambda n, **more: time_grids.karras(paths.variance_preserving(zero_terminal=False), n, **more),
        {"largest": (80.0, 151.0, 1e4)},
    ),
    "logit_normal": (time_grids.logit_normal, {"mean": (-30.0, 3.0, 200.0), "std": (1e-9, 0.1, 4.0, 50.0)}),
    "cosine": (time_grids.cosine, {}),
    "sigmoid": (time_grids.sigmoid, {"reach": (1e-38, 0.01, 8.0, 40.0, 1e6)}),
    "shifted": (
        lambda n, **more: time_grids.shifted(time_grids.uniform(n), **more),
        {"shift": (1e-38, 1e-4, 0.3, 3.3, 7.0, 1000.0, 1e9, 3e38)},
    ),
}


def _is_grid(build, num_steps, settings, names):
    """Whether a grid came out, which ``integrate`` takes then; or an error that names the setting."""
    try:
        ts = build(num_steps, **settings)
    except ValueError as error:
        assert any(name in str(error) for name in names), error
        assert "ts" not in str(error).split()
        return False
    require_grid("ts", ts)
    assert (float(ts[0]), float(ts[-1])) == (0, 1)
    return True


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_setting_gives_a_grid_or_an_error_that_names_it(name, precision):
    """To 1,000 steps; with the settings as they are by themselves a grid comes out, but for DDPM's path."""
    build, choices = SETTINGS[name]
    every = [{}] if name != "shifted" else []
    every += [{setting: value} for setting, values in choices.items() for value in values]
    with jax.enable_x64(precision == "float64"):
        for settings in every:
            found = [_is_grid(build, n, settings, (*choices, "num_steps")) for n in (2, 30, 1000)]
            assert all(found) or settings or name == "karras, ddpm", found


@pytest.mark.parametrize(
    "build",
    [
        lambda n, value: time_grids.karras(paths.linear(), n, smallest=value),
        lambda n, value: time_grids.logit_normal(n, mean=-30 * value),
        lambda n, value: time_grids.sigmoid(n, 40 * value),
        lambda n, value: time_grids.shifted(time_grids.uniform(n), value),
        lambda n, value: time_grids.shifted(time_grids.uniform(n)[::-1], value)[::-1],
    ],
    ids=["karras", "logit_normal", "sigmoid", "shifted", "shifted, decreasing"],
)
def test_a_traced_setting_gives_increasing_times_too(build):
    """The value of a setting is not known there: equal times are moved apart; a grid that increases stays as it is."""
    for n in (4, 1000):
        for value in (1e-9, 0.05, 3.0):
            found = np.asarray(jax.jit(lambda value, n=n: build(n, value))(value), np.float64)
            assert np.all(np.diff(found) > 0)
            assert (found[0], found[-1]) == (0, 1)
    plain = time_grids.logit_normal(9, mean=-1.0)
    np.testing.assert_allclose(jax.jit(lambda mean: time_grids.logit_normal(9, mean))(-1.0), plain, rtol=1e-6)
    slope = jax.grad(lambda mean: time_grids.logit_normal(9, mean)[4])(0.5)
    assert float(slope) == pytest.approx(_logistic_slope(9, 4, 0.5), rel=1e-4)


def _logistic_slope(num_steps, index, mean):
    inside = 1 / (1 + np.exp(-(mean + norm.ppf(index / num_steps))))
    return inside * (1 - inside)


def test_points_are_put_on_the_grid():
    """The nearest inner times move; a point that is there already, or beyond, moves nothing."""
    ts = np.linspace(0, 1, 6)
    np.testing.assert_allclose(time_grids.insert_times(ts, (0.33, 0.7)), [0, 0.2, 0.33, 0.7, 0.8, 1])
    np.testing.assert_allclose(time_grids.insert_times(ts, (0.2, 0.0, 1.0, 1.5)), ts)
    np.testing.assert_allclose(time_grids.insert_times(ts, (0.02,)), [0, 0.02, 0.4, 0.6, 0.8, 1])
    narrow = time_grids.insert_times(np.linspace(0, 1, 11, dtype=np.float32), (0.3, 0.33))
    assert {np.float32(0.3), np.float32(0.33)} <= set(narrow)
    np.testing.assert_allclose(time_grids.insert_times(ts[::-1], (0.33,)), [1, 0.8, 0.6, 0.33, 0.2, 0])
    require_grid("ts", time_grids.insert_times(np.linspace(0, 1, 11), (0.1, 0.1 + 1e-12, 0.2 - 1e-12)))
    assert {0.19, 0.41} <= set(np.round(time_grids.insert_times(np.linspace(0, 1, 11), (0.19, 0.41)), 6))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: time_grids.uniform(0), "num_steps must be at least 1"),
        (lambda: time_grids.karras(paths.linear(), 1), "num_steps must be at least 2"),
        (lambda: time_grids.karras(paths.linear(), 8, smallest=2.0, largest=1.0), "smallest must be under largest"),
        (lambda: time_grids.karras(paths.linear(), 8, rho=0.0), "rho must be"),
        (lambda: time_grids.logit_normal(8, std=0.0), "std must be"),
        (lambda: time_grids.sigmoid(8, -1.0), "reach must be"),
        (lambda: time_grids.shifted(time_grids.uniform(4), 0.0), "shift must be"),
        (lambda: time_grids.karras(paths.ddpm(), 4), "smallest must be a ratio beta / alpha of the path, between 0.01"),
        (
            lambda: time_grids.karras(paths.variance_preserving(zero_terminal=False), 4, largest=1e4),
            "largest must be a ratio beta / alpha of the path, between 0",
        ),
        (
            lambda: time_grids.shifted(time_grids.uniform(4), 1e38),
            "shift must give times that increase in float32, got 1e",
        ),
        (lambda: time_grids.insert_times(np.linspace(0, 1, 3), (0.4, 0.45)), "points must be further apart"),
        (lambda: jax.jit(lambda ts: time_grids.insert_times(ts, (0.4,)))(jnp.linspace(0, 1, 3)), "got a traced one"),
    ],
)
def test_what_is_no_grid_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
