"""The deterministic solvers beside Euler and Heun: measured orders, constant denoisers, the ends of time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.solvers.exponential import _moments
from tests.conftest import PATHS
from tests.support.tables import SOLVERS, solvers_that

KEY = jax.random.key(0)
START = np.array([0.6, -1.1])
RULES = [name for name in solvers_that(order=...) if name not in ("euler", "heun")]
"""Euler's and Heun's are tested beside ``integrate``."""
EXPONENTIAL = ["ddim", "dpm_solver", "unipc"]


def _guided(path):
    mixture = mixtures.ring(5, radius=1.0, std=0.5)
    return guidance.given(guidance.classifier_free(mixture.vector_field(path), 1.5, 5), 1)


@functools.cache
def _fine(path, ends):
    """The end of the guided flow by many steps of Kutta's rule."""
    return np.asarray(solvers.integrate(solvers.rk4(_guided(path)), KEY, jnp.asarray(START), jnp.linspace(*ends, 2049)))


def _slope(name, path, ends, steps):
    """The fitted order of a solver on the guided flow of a mixture, in double precision."""
    fine, solver = _fine(path, ends), SOLVERS[name].build(path, _guided(path))
    found = [solvers.integrate(solver, KEY, jnp.asarray(START), jnp.linspace(*ends, n + 1)) for n in steps]
    errors = [np.linalg.norm(end - fine) for end in found]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RULES)
def test_order_on_the_guided_flow(name, plain_or_steep_path):
    """Inside [0.1, 0.9], on two paths. UniPC-2's corrector brings it to order 3."""
    assert abs(_slope(name, plain_or_steep_path, (0.1, 0.9), (32, 64, 128)) - SOLVERS[name].order) < 0.2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "least"),
    [("midpoint", 1.9), ("rk4", 3.8), ("adams_bashforth", 1.9), ("ddim", 0.95), ("dpm_solver", 1.6), ("unipc", 1.9)],
)
def test_order_up_to_both_ends(name, least):
    """On [0, 1]: the log signal-to-noise ratio's long steps at the ends take a part of the exponential rules' order."""
    assert _slope(name, paths.linear(), (0.0, 1.0), (32, 64, 128)) > least


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["midpoint", "rk4", "adams_bashforth"])
@pytest.mark.parametrize(("ends", "coarsest"), [((0.0, 1.0), 16), ((1.0, 0.0), 128)])
def test_order_on_an_equation_with_a_known_solution(name, ends, coarsest):
    """dx = -2 t x^2 dt has the solution 1 / (1 + t^2); forwards and, past the first step's own error, backwards."""
    solver = SOLVERS[name].build(None, lambda x, t: -2 * t * x**2)
    start, exact = 1 / (1 + ends[0] ** 2), 1 / (1 + ends[1] ** 2)
    steps = coarsest * np.array([1, 2, 4])
    found = [solvers.integrate(solver, KEY, jnp.asarray(start), jnp.linspace(*ends, n + 1)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(np.abs(np.asarray(found) - exact)), 1)[0]
    assert slope > {"midpoint": 1.9, "rk4": 3.8, "adams_bashforth": 1.9}[name]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EXPONENTIAL)
@pytest.mark.parametrize("path_name", ["linear", "variance_preserving", "polynomial_2"])
def test_constant_denoisers_are_solved_exactly_in_any_steps(name, path_name):
    """Data in one point z: x_t = alpha z + beta noise, whatever the grid, from t = 0 to t = 1."""
    point, exact_path = np.array([0.7, -0.3]), PATHS[path_name]

    def field(x, t):
        return paths.conditional_field(exact_path, x, jnp.asarray(point), t)

    for ts in ([0.0, 1.0], [0.0, 0.1, 0.45, 0.5, 0.93], [0.2, 0.6, 0.9]):
        start = paths.coefficients(exact_path, ts[0])
        x = start.alpha * point + start.beta * START
        end = paths.coefficients(exact_path, ts[-1])
        found = solvers.integrate(SOLVERS[name].build(exact_path, field), KEY, jnp.asarray(x), jnp.array(ts))
        np.testing.assert_allclose(found, end.alpha * point + end.beta * START, rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_ddim_step_by_hand(plain_or_steep_path):
    """x' = alpha' D + beta' E with the oracle's denoiser and noise prediction."""
    path, mixture, t, t_next = plain_or_steep_path, mixtures.ring(3), 0.3, 0.55
    y, x = jnp.asarray(1), jnp.asarray(START)
    field = guidance.given(mixture.vector_field(path), y)
    end = paths.coefficients(path, t_next)
    expected = end.alpha * mixture.denoiser(path)(x, jnp.asarray(t), y) + end.beta * mixture.noise(path)(
        x, jnp.asarray(t), y
    )
    solver = solvers.ddim(path, field)
    np.testing.assert_allclose(
        solver.step(KEY, solver.init(x), jnp.asarray(t), jnp.asarray(t_next)).x, expected, rtol=1e-8
    )


@pytest.mark.usefixtures("x64")
def test_two_steps_of_dpm_solver_by_hand():
    """Algorithm 2 in lambda = log(alpha / beta), from its formula."""
    path, ts = paths.cosine(), [0.2, 0.5, 0.6]
    denoiser = lambda x, t: np.sin(3 * x) + t  # noqa: E731
    alpha, beta = np.sin(np.pi / 2 * np.array(ts)), np.cos(np.pi / 2 * np.array(ts))
    lengths = np.diff(np.log(alpha / beta))
    first = denoiser(START, ts[0])
    middle = beta[1] / beta[0] * START - alpha[1] * np.expm1(-lengths[0]) * first
    second = denoiser(middle, ts[1])
    ratio = lengths[0] / lengths[1]
    mean = (1 + 1 / (2 * ratio)) * second - 1 / (2 * ratio) * first
    expected = beta[2] / beta[1] * middle - alpha[2] * np.expm1(-lengths[1]) * mean

    def field(x, t):
        c = paths.coefficients(path, t)
        value = jnp.sin(3 * x) + t
        return c.alpha_dot * value + c.beta_dot * (x - c.alpha * value) / c.beta

    found = solvers.integrate(solvers.dpm_solver(path, field), KEY, jnp.asarray(START), jnp.array(ts))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_moments_of_the_corrector():
    """(X4): the means of s and s^2 weighted with e^(h s), by quadrature, on both sides of h = 1."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    nodes, weights = (nodes + 1) / 2, weights / 2
    for h in (1e-6, 0.3, 0.999, 1.001, 4.0, 12.0):
        density = weights * np.exp(h * nodes)
        expected = [np.sum(density * nodes**k) / np.sum(density) for k in (1, 2)]
        np.testing.assert_allclose(_moments(jnp.asarray(h)), expected, rtol=1e-8)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.slow
@pytest.mark.parametrize("path_name", ["variance_preserving", "polynomial_2"])
def test_ends_are_finite_on_the_paths_with_singular_ends(name, path_name):
    """For w = 0, 1 and 4, from t = 0 to t = 1 in single precision, with finite gradients in w."""
    path = PATHS[path_name]
    field = mixtures.ring(4, radius=2.0, std=0.4).vector_field(path)

    def end(scale, x):
        solver = SOLVERS[name].build(path, guidance.given(guidance.classifier_free(field, scale, 4), 2))
        return solvers.integrate(solver, KEY, x, jnp.linspace(0, 1, 17))[0]

    xs = jax.random.normal(KEY, (16, 2))
    found, slopes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(end), (None, 0)), (0, None)))(
        jnp.array([0.0, 1.0, 4.0]), xs
    )
    assert np.all(np.isfinite(found))
    assert np.all(np.isfinite(slopes))
    assert abs(float(jnp.mean(found[1])) + 2.0) < 0.4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("ends", "start", "inner", "last", "weights"),
    [
        ((0.2, 0.5), 0, 1 / 2, 1, (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
        ((0.5, 1.0), 0, 1 / 2, 3 / 4, (2 / 9, 3 / 9, 0, 4 / 9)),
        ((1.0, 0.6), 1 / 3, 1 / 3, 1, (0, 0, 3 / 4, 1 / 4)),
    ],
    ids=["O3", "O5", "O6"],
)
def test_kutta_s_stages_by_hand(ends, start, inner, last, weights):
    """(O3), (O5) towards t = 1 and (O6) from there, of any field: the times of their stages and their weights."""
    x, t, h = START, ends[0], ends[1] - ends[0]

    def field(x, t):
        return np.cos(3 * t) - x**2

    stages = [field(x, t + start * h)]
    for place in (inner, inner, last):
        stages.append(field(x + place * h * stages[-1], t + place * h))
    expected = x + h * sum(weight * stage for weight, stage in zip(weights, stages, strict=True))
    solver = solvers.rk4(lambda x, t: jnp.cos(3 * t) - x**2)
    found = solver.step(KEY, solver.init(jnp.asarray(x)), *map(jnp.asarray, ends)).x
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["heun", *RULES, "cfg_plus_plus"])
def test_gradients_in_state_and_times_are_difference_quotients(name):
    """From t = 0 to t = 1, where a step's rule is another one and no quotient of what is left out may be NaN."""

    def end(x, inner):
        solver = SOLVERS[name].build(paths.linear(), lambda x, t: jnp.cos(3 * t) - x**2)
        return solvers.integrate(solver, KEY, x, jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)]))

    check_grads(jax.jit(end), (jnp.asarray(START), jnp.array([0.2, 0.5, 0.9])), order=1, rtol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_evaluations_are_as_documented_and_before_the_end(name):
    times = []

    def field(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return -x

    end = solvers.integrate(SOLVERS[name].build(paths.linear(), field), KEY, jnp.ones(2), jnp.linspace(0, 1, 6))
    jax.effects_barrier()
    assert len(times) == 5 * SOLVERS[name].evaluations
    assert max(times) < 1
    assert np.all(np.isfinite(end))


@pytest.mark.parametrize("name", ["dpm_solver", "unipc"])
def test_exponential_rules_with_a_memory_refuse_the_way_back(name):
    solver = SOLVERS[name].build(paths.linear(), lambda x, t: x)
    with pytest.raises(ValueError, match="ts must increase"):
        solvers.integrate(solver, KEY, jnp.ones(2), np.linspace(1, 0, 5, dtype=np.float32))
