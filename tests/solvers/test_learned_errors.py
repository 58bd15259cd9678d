"""(S9), (B1) to (B4): an error of a prediction, in any space and on any path, stays small to the end of a solve."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, paths, solvers
from cfgjax.analysis import likelihood
from cfgjax.solvers import adaptive
from cfgjax.solvers.ends import margin
from tests.conftest import PATHS
from tests.support.tables import SOLVERS, pair_of, solvers_that

KEY = jax.random.key(0)
ERROR, NUM_STEPS = 1e-3, 32
MEAN, VARIANCE = 0.5, 0.6
SPACES = ("denoiser", "noise", "score", "field")
START, LABEL = 0.7, jnp.asarray(0)


def _perturbed(path, space, error):
    """The field of N(MEAN, VARIANCE), made of a prediction in that space that is off by ``error(x)``."""

    def off(convert, name):
        def at(x, t):
            c = paths.coefficients(path, t)
            spread = (x - c.alpha * MEAN) / (c.alpha**2 * VARIANCE + c.beta**2)
            exact = {"denoiser": MEAN + c.alpha * VARIANCE * spread, "noise": c.beta * spread, "score": -spread}
            return convert(path, exact[name] + error(x), x, t).field

        return at

    def field_itself(x, t):
        c = paths.coefficients(path, paths.before_end(t))
        rate = (c.alpha * c.alpha_dot * VARIANCE + c.beta * c.beta_dot) / (c.alpha**2 * VARIANCE + c.beta**2)
        return c.alpha_dot * MEAN + rate * (x - c.alpha * MEAN) + error(x)

    made = [
        off(conversions.from_denoiser, "denoiser"),
        off(conversions.from_noise, "noise"),
        off(conversions.from_score, "score"),
        field_itself,
    ]
    return lambda x, t: jax.lax.switch(space, made, x, t)


WITHOUT = {"langevin_corrected", "with_field_state"}
"""Euler's rule, but for corrections that see no path, and for a carry."""
REVERSIBLE = {
    "reversible_euler": lambda path, field: solvers.reversible(solvers.euler, field),
    "reversible_rk4": lambda path, field: solvers.reversible(solvers.rk4, field),
    "reversible_ddim": lambda path, field: solvers.reversible(partial(solvers.ddim, path), field),
}
ROWS = {name: SOLVERS[name] for name in solvers_that(is_weighted=False) if name not in WITHOUT}
BOTH_WAYS = {name: row.build for name, row in ROWS.items() if row.is_two_way} | REVERSIBLE
FORWARDS = {name: row.build for name, row in ROWS.items() if not row.is_two_way}
STOCHASTIC = {name for name, row in ROWS.items() if row.is_stochastic} - {"churn"}
"""Those that follow the SDE; churn follows the ODE."""


def _amplification(path, space, is_stochastic, is_back, cut, has_slope=True):
    """By what the exact solution multiplies a constant error of the prediction, the ends of time cut off at ``cut``.

    The error of the state grows by e' = f' e + g, f' the drift's slope in x and g what the conversion makes of an
    error of 1: W / beta of a denoiser, W / alpha of a noise prediction, beta W / alpha of a score.
    """
    edge = np.geomspace(cut, 0.5, 2001)
    t = np.concatenate([edge, 1 - edge[-2::-1]])
    c = jax.vmap(partial(paths.coefficients, path))(jnp.asarray(t, jnp.result_type(float)))
    alpha, beta, wronskian = (np.asarray(each, np.float64) for each in (c.alpha, c.beta, c.wronskian))
    variance = alpha**2 * VARIANCE + beta**2
    of_noise = {"denoiser": alpha / beta, "noise": 1 + 0 * t, "score": beta, "field": alpha / wronskian}[space]
    noise_share = wronskian / alpha + (1 if is_stochastic else 0)
    slope = np.gradient(0.5 * np.log(variance), t) - (beta / variance if is_stochastic else 0)
    growth = np.concatenate([[0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(t))])
    growth = growth if has_slope else 0 * growth
    to_end = np.exp(-growth if is_back else growth[-1] - growth)
    return np.trapezoid(to_end * of_noise * noise_share, t)


def _multiples(path, end, *arguments, shape=jnp.ones_like):
    """By what ``end(field, *arguments)`` multiplies the error of a prediction in each space, [4]."""

    def one(space, error):
        return end(_perturbed(path, space, lambda x: error * shape(x)), *arguments)

    errors = jnp.array([0.0, ERROR], jnp.result_type(float))
    both = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(len(SPACES)), errors)
    return jnp.abs(both[:, 1] - both[:, 0]) / ERROR


def _require_bounded(found, path, is_back, is_stochastic=False, cut=0.25 / NUM_STEPS):
    """Three times what the exact solution makes of the error: a step near an end weighs it no worse than that."""
    bounds = [_amplification(path, space, is_stochastic, is_back, cut) for space in SPACES]
    assert np.all(np.asarray(found) <= 3 * np.array(bounds)), (found, bounds)


def _state():
    return jnp.asarray(START, jnp.result_type(float))


def _check(name, path):
    def end(field, ts):
        return solvers.integrate((BOTH_WAYS | FORWARDS)[name](path, field), KEY, _state(), ts)

    multiples = jax.jit(partial(_multiples, path, end))
    up = jnp.linspace(0, 1, NUM_STEPS + 1)
    _require_bounded(multiples(up), path, False, name in STOCHASTIC)
    if name in BOTH_WAYS:
        _require_bounded(multiples(up[::-1]), path, True)


SOME_PATHS = [
    "linear",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("variance_preserving", "original_variance_preserving", "polynomial_3")
    ),
]
"""The simplest path, and those that are steepest at t = 1, have no alpha of 0, and have the flattest one."""


@pytest.mark.parametrize("path_name", SOME_PATHS)
@pytest.mark.parametrize("name", list(BOTH_WAYS | FORWARDS))
def test_an_error_of_the_prediction_stays_small_up_to_data_and_down_to_noise(name, path_name):
    _check(name, PATHS[path_name])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", list(BOTH_WAYS | FORWARDS))
def test_an_error_of_the_prediction_stays_small_in_double_precision(name):
    _check(name, PATHS["variance_preserving"])


@pytest.mark.parametrize("path_name", SOME_PATHS)
def test_an_error_of_the_prediction_stays_small_under_step_control(path_name):
    """The ends are cut off where the time is held; the solve comes to its end although the error is over tolerance."""

    def end(field, start, stop):
        found = adaptive.integrate(field, _state(), start, stop, rtol=1e-4, atol=1e-4)
        return jnp.where(found.is_finished, found.x, jnp.nan)

    path, cut = PATHS[path_name], margin(jnp.result_type(float))
    multiples = jax.jit(partial(_multiples, path, end))
    _require_bounded(multiples(0.0, 1.0), path, False, cut=cut)
    _require_bounded(multiples(1.0, 0.0), path, True, cut=cut)


@pytest.mark.parametrize(
    ("make_solver", "path_name"),
    [
        (solvers.heun, "linear"),
        pytest.param(solvers.rk4, "variance_preserving", marks=pytest.mark.slow),
        pytest.param(solvers.heun, "polynomial_3", marks=pytest.mark.slow),
    ],
)
def test_an_error_of_the_prediction_stays_small_in_a_log_density(make_solver, path_name):
    """Both ways, of an error ``ERROR x`` with |x| < 1: log p moves with the divergence and the noise's density."""
    path, ts = PATHS[path_name], jnp.linspace(0, 1, NUM_STEPS + 1)

    def down(field):
        return jnp.stack(likelihood.log_density(make_solver, likelihood.exact_divergence(field), _state(), ts[::-1]))

    def up(field):
        return jnp.stack(likelihood.sample_log_density(make_solver, likelihood.exact_divergence(field), _state(), ts))

    for end, is_back in ((down, True), (up, False)):
        log_p, x = jax.jit(partial(_multiples, path, end, shape=lambda x: x))().T
        _require_bounded(x, path, is_back)
        plain = [_amplification(path, space, False, is_back, 0.25 / NUM_STEPS, has_slope=False) for space in SPACES]
        _require_bounded(np.maximum(log_p - 3 * np.array(plain), 0), path, is_back)


def test_an_error_of_the_prediction_stays_small_in_a_population():
    """Of two particles, for a pair whose sides are off by the same."""
    path = paths.linear()

    def end(field):
        solver = solvers.feynman_kac(path, pair_of(field), 0, 2.0, solvers.root_beta(path))
        particles = solvers.solve(solver, KEY, jnp.array([START, -START]), jnp.linspace(0, 1, NUM_STEPS + 1))[0]
        return particles.x[0]

    _require_bounded(jax.jit(partial(_multiples, path, end))(), path, False, is_stochastic=True)


@pytest.mark.parametrize("name", list(BOTH_WAYS | FORWARDS))
def test_no_time_between_a_steps_end_and_the_end_of_time(name):
    """Every evaluation stands at t = 0, or no nearer to either end than a quarter of a step (B2), (B3)."""
    times = []

    def field(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return -x

    for ts in (np.linspace(0, 1, 5), np.linspace(1, 0, 5))[: 2 if name in BOTH_WAYS else 1]:
        solver = (BOTH_WAYS | FORWARDS)[name](paths.linear(), field)
        jax.block_until_ready(solvers.integrate(solver, KEY, _state(), ts.astype(np.float32)))
    jax.effects_barrier()
    allowed = [t for t in times if t == 0 or 1 / 16 - 1e-6 < t < 1 - 1 / 16 + 1e-6]
    assert times
    assert allowed == times


@pytest.mark.parametrize("make_solver", [solvers.euler_maruyama, solvers.stochastic_heun])
def test_a_rule_that_runs_forwards_only_is_not_made_reversible(make_solver):
    path = paths.linear()
    with pytest.raises(ValueError, match="make_solver must make a rule that runs both ways"):
        solvers.reversible(lambda field: make_solver(path, field, solvers.root_beta(path)), lambda x, t: x)
