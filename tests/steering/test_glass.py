"""(G1) to (G4): the step is a draw of the exact kernel p(x'|x), which a mixture has in closed form.

Of ONE normal law the inner flow is affine in the noise, so that mean and covariance of a step follow from steps on
chosen noises, without sampling.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.paths import noise_like
from cfgjax.piecewise import Piecewise
from tests.conftest import EXACT_PATHS

KEY = jax.random.key(0)
MEAN, COVARIANCE = np.array([1.5, -0.5]), np.array([[0.5, 0.1], [0.1, 0.2]])
GAUSSIAN = LabelledMixture(jnp.ones(1), jnp.asarray(MEAN)[None], jnp.asarray(COVARIANCE)[None])
X = np.array([0.7, -0.3])
PAIRS = np.array([(0.0, 0.4), (0.0, 1.0), (0.3, 0.6), (0.5, 1.0), (0.8, 0.9)])
THREE_PATHS = ["linear", "cosine", "variance_preserving"]


def at(path, t):
    return float(path.alpha(t)), float(path.beta(t))


def kernel(path, mean, covariance, x, t, t_next, rho):
    """Mean and covariance of x' given x and a component N(mean, covariance) of z; log p_t(x) of it as well."""
    (alpha, beta), (alpha_next, beta_next), one = at(path, t), at(path, t_next), np.eye(len(x))
    whole, error = alpha**2 * covariance + beta**2 * one, x - alpha * mean
    gain = alpha * covariance @ np.linalg.inv(whole)
    of_state = rho * beta_next / beta
    of_data = alpha_next - of_state * alpha
    log_density = -0.5 * (error @ np.linalg.solve(whole, error) + np.linalg.slogdet(2 * np.pi * whole)[1])
    of_z = covariance - gain @ (alpha * covariance)
    spread = of_data**2 * of_z + beta_next**2 * (1 - rho**2) * one
    return of_data * (mean + gain @ error) + of_state * x, spread, log_density


def _moments(monkeypatch, path, field, make_solver, num_steps):
    """(t, t_next, rho) -> mean and covariance of a step from X, for a solver that is affine in the noise."""

    def moments(t, t_next, rho):
        solver = steering.glass(path, field, steering.constant_correlation(rho), make_solver, num_steps)

        def end(noise):
            monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: noise.astype(dtype))
            return solver.step(KEY, solver.init(jnp.asarray(X)), t, t_next).x

        ends = jax.vmap(end)(jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)]))
        slopes = ends[1:] - ends[:1]
        return ends[0], jnp.sum(slopes[:, :, None] * slopes[:, None, :], axis=0)

    return jax.jit(jax.vmap(moments))


def _slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*map(_slow, THREE_PATHS), "polynomial_2"])
def test_a_step_has_mean_and_covariance_of_the_kernel(name, monkeypatch):
    """From noise and to data, for no correlation, some, and the Markov chain's; of polynomials W is 0 at t = 0."""
    path = EXACT_PATHS[name]
    markov = [float(steering.markov_correlation(path)(*pair)) for pair in PAIRS]
    pairs, rhos = np.tile(PAIRS, (3, 1)), np.concatenate([np.zeros(5), np.full(5, 0.7), markov])
    field = guidance.given(GAUSSIAN.vector_field(path), 0)
    found = _moments(monkeypatch, path, field, solvers.rk4, 16)(*pairs.T, rhos)
    for (t, t_next), rho, mean, covariance in zip(pairs, rhos, *found, strict=True):
        wanted = kernel(path, MEAN, COVARIANCE, X, t, t_next, rho)
        np.testing.assert_allclose(mean, wanted[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(covariance, wanted[1], rtol=1e-3, atol=1e-3 * np.max(wanted[1]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("make_solver", "order"),
    [(solvers.euler, 1), (solvers.heun, 2), pytest.param(solvers.rk4, 4, marks=pytest.mark.slow)],
)
def test_the_inner_solver_has_its_order(make_solver, order, monkeypatch):
    """Inside (0, 1), and to the data for the rules that keep it there."""
    path = paths.cosine()
    field = guidance.given(GAUSSIAN.vector_field(path), 0)
    times = PAIRS[[2, 3]] if order < 4 else PAIRS[[2]]
    counts = (16, 32) if order < 4 else (8, 16)
    errors = []
    for num_steps in counts:
        found = _moments(monkeypatch, path, field, make_solver, num_steps)(*times.T, np.full(len(times), 0.3))[1]
        wanted = [_kernel_covariance(path, *pair) for pair in times]
        errors.append(np.abs(np.asarray(found) - wanted).max(axis=(1, 2)))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.2)


def _kernel_covariance(path, t, t_next, rho=0.3):
    (alpha, beta), (alpha_next, beta_next) = ((path.alpha(each), path.beta(each)) for each in (t, t_next))
    of_z = np.linalg.inv(np.linalg.inv(COVARIANCE) + (alpha / beta) ** 2 * np.eye(2))
    return (alpha_next - rho * beta_next / beta * alpha) ** 2 * of_z + beta_next**2 * (1 - rho**2) * np.eye(2)


@pytest.mark.usefixtures("x64")
def test_where_the_data_point_is_known_one_euler_step_is_the_posterior_of_ddpm():
    """Equation 7 of Ho et al., with z in place of x_0 and abar = alpha^2."""
    path, z = paths.cosine(), np.array([0.4, -2.0])
    field = conversions.field_of_denoiser(path, lambda x, t: jnp.asarray(z))
    solver = steering.glass(path, field, steering.markov_correlation(path), solvers.euler, 1)
    for t, t_next in ((0.2, 0.5), (0.6, 0.7)):
        before, after = np.sin(np.pi * np.array([t, t_next]) / 2) ** 2
        rate = 1 - before / after
        mean = np.sqrt(after) * rate / (1 - before) * z + np.sqrt(1 - rate) * (1 - after) / (1 - before) * X
        std = np.sqrt((1 - after) / (1 - before) * rate)
        found = solver.step(KEY, solver.init(jnp.asarray(X)), jnp.float64(t), jnp.float64(t_next)).x
        np.testing.assert_allclose(found, mean + std * noise_like(KEY, jnp.asarray(X)), rtol=1e-6)


def _memoryless_moments(scale, start, stop, num_steps=4000):
    """Mean and variance at ``stop``, from N(0, 1) at ``start``, of the guided SDE with sigma^2 = 2 b, b = (1 - t) / t.

    Linear path, N(0, 2) and N(1, 1) the null's and the label's law: drift x / t + 2 b s_w, which is affine.
    """

    def slope(t, moments):
        weights, b = np.array([1 - scale, scale]), (1 - t) / t
        precision = weights / (t**2 * np.array([2.0, 1.0]) + (1 - t) ** 2)
        rate, shift = 1 / t - 2 * b * precision.sum(), 2 * b * precision[1] * t
        return np.array([rate * moments[0] + shift, 2 * rate * moments[1] + 2 * b])

    moments, h = np.array([0.0, 1.0]), (stop - start) / num_steps
    for t in start + h * np.arange(num_steps):
        moments = moments + h * slope(t + h / 2, moments + h / 2 * slope(t, moments))
    return moments


@pytest.mark.usefixtures("x64")
def test_short_markov_steps_under_guidance_are_the_guided_sde(monkeypatch):
    """DDPM's chain is the SDE with the memoryless sigma; the error falls with the first order of the step's length."""
    path = paths.linear()
    mixture = LabelledMixture(jnp.ones(2), jnp.array([[0.0], [1.0]]), jnp.array([[[2.0]], [[1.0]]]))
    guided = guidance.given(guidance.classifier_free(mixture.vector_field(path), 2.5, 0), 1)
    solver = steering.glass(path, guided, steering.markov_correlation(path), solvers.euler, 1)

    def moved(x, noise, t, t_next):
        monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.full(shape, noise, dtype))
        return solver.step(KEY, solver.init(jnp.full(1, x)), t, t_next).x[0]

    ends = jax.jit(jax.vmap(jax.vmap(moved, (0, 0, None, None)), (None, None, 0, 0)))
    errors = []
    for num_steps in (100, 200):
        ts = np.linspace(0.1, 0.9, num_steps + 1)
        moments = 0.0, 1.0
        found = ends(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]), ts[:-1], ts[1:])
        for still, by_state, by_noise in np.asarray(found):
            rate = by_state - still
            moments = rate * moments[0] + still, rate**2 * moments[1] + (by_noise - still) ** 2
        errors.append(np.abs(np.array(moments) - _memoryless_moments(2.5, 0.1, 0.9)))
    assert np.all(errors[1] < 0.02)
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 1, atol=0.2)


def test_evaluations_are_counted_and_lie_between_the_times_of_a_markov_step():
    path, ts = paths.linear(), np.array([0.0, 0.3, 1.0])

    def build(field):
        return steering.glass(path, field, steering.markov_correlation(path), solvers.heun, 3)

    found = solvers.num_function_evaluations(build, lambda x, t: -x, jnp.ones(2), ts)
    assert found.tolist() == [6, 6]

    times = []

    def noted(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return -x

    solver = build(noted)
    for t, t_next in ((0.3, 0.6), (0.3, 1.0)):
        times.clear()
        jax.block_until_ready(solver.step(KEY, solver.init(jnp.ones(2)), jnp.float32(t), jnp.float32(t_next)))
        jax.effects_barrier()
        assert len(times) == 6 and min(times) >= t - 1e-6 and max(times) < t_next


def test_a_step_has_one_piece_of_a_piecewise_field():
    """Though its inner times lie beyond the edge."""
    field = Piecewise((0.5,), (lambda x, t: -x, lambda x, t: jnp.cos(x) - t))
    ends = []
    for each in (field, field.pieces[0]):
        solver = steering.glass(paths.linear(), each, steering.constant_correlation(0.2), solvers.euler, 3)
        solver = solver.pieces[0] if isinstance(solver, Piecewise) else solver
        ends.append(jax.jit(solver.step)(KEY, solver.init(jnp.ones(2)), jnp.float32(0.2), jnp.float32(0.9)).x)
    np.testing.assert_array_equal(*ends)


def test_one_trace_serves_every_correlation_and_time():
    traces = []

    @jax.jit
    def step(rho, t, t_next):
        traces.append(1)
        path = paths.linear()
        solver = steering.glass(path, lambda x, t: -x, steering.constant_correlation(rho), solvers.euler, 2)
        return solver.step(KEY, solver.init(jnp.ones(2)), t, t_next).x

    ends = {tuple(step(rho, t, 0.9).tolist()) for rho in (0.0, 0.5) for t in (0.1, 0.3)}
    assert len(traces) == 1 and len(ends) == 4


def _mistaken(correlation=None, **others):
    path = paths.linear()
    solver = steering.glass(path, lambda x, t: -x, correlation or steering.markov_correlation(path), **others)
    return solvers.integrate(solver, KEY, jnp.ones(2), jnp.linspace(0, 1, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _mistaken(lambda t, t_next: 1.0), r"correlation\(0\.0, 0\.5\) must be at least 0 and under 1, got 1"),
        (lambda: _mistaken(lambda t, t_next: -t), r"correlation\(0\.25, 0\.5\) must be at least 0"),
        (lambda: _mistaken(lambda t, t_next: jnp.ones(2)), r"correlation\(t, t_next\) must be one number"),
        (lambda: _mistaken(0.5), r"correlation must be a function, got float"),
        (lambda: _mistaken(make_solver=lambda field: field), r"make_solver must be a function that makes a Solver"),
        (lambda: _mistaken(num_steps=0), r"num_steps must be at least 1"),
        (lambda: steering.constant_correlation(1.0), r"value must be at least 0 and under 1, got 1\.0"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
