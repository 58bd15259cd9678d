"""(A1) to (A6): moments of each part on normal laws, and where the whole is the posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.piecewise import Piecewise
from cfgjax.steering import operators
from cfgjax.types import Measurement

KEY = jax.random.key(0)
NUMBER = 20_000
MATRIX, VALUE = np.array([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]]), np.array([0.3, -1.0])
ESTIMATE = np.array([0.2, -0.7, 1.1])


def _require_moments(values, mean, covariance):
    """Mean and covariance within 4 standard errors."""
    off = np.asarray(values, float) - mean
    for found, wanted in ((off, 0 * mean), (off[:, :, None] * off[:, None], covariance)):
        errors = np.abs(found.mean(axis=0) - wanted)
        assert np.all(errors <= 4 * found.std(axis=0) / np.sqrt(len(off)) + 1e-6), (errors, found.std(axis=0))


def _posterior(mean, covariance, matrix, value, noise_std):
    """Of N(mean, covariance) under a measurement, by gain."""
    gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + noise_std**2 * np.eye(len(value)))
    return mean + gain @ (value - matrix @ mean), covariance - gain @ matrix @ covariance


def test_a_gaussian_refinement_is_a_draw_of_the_posterior():
    """Prior N(z^, V I) with 1 / V = (alpha / beta)^2 + 1 / S, at t = 0 as well and without noise."""
    path = paths.linear()

    @jax.jit
    def draws(t, noise_std):
        measurement = Measurement(operators.matrix(MATRIX), jnp.asarray(VALUE), noise_std)
        refine = steering.gaussian_refinement(path, measurement, 0.8)
        return jax.vmap(lambda key: refine(key, jnp.asarray(ESTIMATE), t))(jax.random.split(KEY, NUMBER))

    for t, noise_std in ((0.0, 0.0), (0.0, 0.4), (0.6, 0.0), (0.6, 0.4)):
        prior = np.eye(3) / ((t / (1 - t)) ** 2 + 1 / 0.8)
        _require_moments(draws(jnp.float32(t), noise_std), *_posterior(ESTIMATE, prior, MATRIX, VALUE, noise_std))


@pytest.mark.parametrize("num_langevin", [0, 1, 7])
def test_langevin_steps_have_their_moments(num_langevin):
    """(A5) in each direction of A^T A: what is left of the start, and the variance with its bias."""
    path, t, noise_std, h = paths.cosine(), jnp.float32(0.5), 0.8, 0.1
    measurement = Measurement(operators.matrix(MATRIX), jnp.asarray(VALUE), noise_std)
    likelihood = steering.log_likelihood(measurement)
    refine = steering.langevin_refinement(path, likelihood, lambda t: h * (1 - t) * 2, num_langevin)
    ends = jax.jit(jax.vmap(lambda key: refine(key, jnp.asarray(ESTIMATE), t)))(jax.random.split(KEY, NUMBER))
    mean, _ = _posterior(ESTIMATE, np.eye(3), MATRIX, VALUE, noise_std)
    precision, vectors = np.linalg.eigh(np.eye(3) + MATRIX.T @ MATRIX / noise_std**2)
    left = (1 - h * precision) ** num_langevin
    variance = (1 - left**2) / (precision - h * precision**2 / 2)
    _require_moments(ends, mean + vectors @ (left * (vectors.T @ (ESTIMATE - mean))), vectors * variance @ vectors.T)


def test_a_relative_step_is_a_share_of_the_variance():
    """V = S beta^2 / (alpha^2 S + beta^2), for infinite S (beta / alpha)^2."""
    step = steering.relative_langevin_step(paths.linear(), 0.5, 0.2, 2.0)
    np.testing.assert_allclose(step(jnp.float32(0.6)), 0.2 / (2.25 + 0.5 + 4.0), rtol=1e-6)
    step = steering.relative_langevin_step(paths.linear(), 0.5)
    np.testing.assert_allclose(step(jnp.float32(0.6)), 0.1 / (2.25 + 4.0), rtol=1e-6)
    np.testing.assert_allclose(step(jnp.float32(0.0)), 0.1 / 4.0, rtol=1e-6)


def _gaussian_field(path, mean, variance):
    means = jnp.asarray(mean, jnp.result_type(float))
    mixture = LabelledMixture(jnp.ones(1), means[None], variance * jnp.eye(len(mean))[None])
    return guidance.given(mixture.vector_field(path), 0)


def _ends(solver, ts, dimension):
    def draw(key):
        state_key, solver_key = jax.random.split(key)
        return solvers.integrate(solver, solver_key, jax.random.normal(state_key, (dimension,)), ts)

    return jax.jit(jax.vmap(draw))(jax.random.split(KEY, NUMBER))


def test_of_one_round_normal_law_the_denoiser_with_exact_draws_gives_the_posterior():
    """(A4): at the end, and at a time inside, on grids from noise that are even and that are not."""
    path, mean, variance = paths.cosine(), np.array([0.5, -1.0, 0.0]), 0.8
    denoiser = conversions.denoiser_of(path, _gaussian_field(path, mean, variance))

    @jax.jit
    def ends(ts, noise_std):
        measurement = Measurement(operators.matrix(MATRIX), jnp.asarray(VALUE), noise_std)
        refinement = steering.gaussian_refinement(path, measurement, variance)
        return _ends(steering.decoupled_annealing(path, denoiser, refinement), ts, 3)

    for last, noise_std in ((1.0, 0.0), (1.0, 0.4), (0.6, 0.4)):
        found = ends(np.float32([0, 0.2, 0.35, last]), noise_std)
        center, spread = _posterior(mean, variance * np.eye(3), MATRIX, VALUE, noise_std)
        alpha, beta = float(path.alpha(last)), float(path.beta(last))
        _require_moments(found, alpha * center, alpha**2 * spread + beta**2 * np.eye(3))


def test_the_end_of_the_ode_is_its_exact_map():
    """mean + sqrt(S / (alpha^2 S + beta^2)) (x - alpha mean), which no step calls at t = 1."""
    path, mean, variance, x = paths.cosine(), np.array([0.5, -1.0]), 0.8, jnp.array([0.7, -0.3])
    exact = _gaussian_field(path, mean, variance)
    estimate = steering.ode_estimate(exact, solvers.rk4, 32)
    for t in (0.0, 0.45):
        alpha, beta = float(path.alpha(t)), float(path.beta(t))
        wanted = mean + np.sqrt(variance / (alpha**2 * variance + beta**2)) * (np.asarray(x) - alpha * mean)
        np.testing.assert_allclose(jax.jit(estimate)(x, jnp.float32(t)), wanted, rtol=1e-4)


def test_daps_without_information_spreads_by_the_prior_term():
    """One step on N(0, S): alpha'^2 (S + V n) + beta'^2, V n what the Langevin steps add; so it keeps no marginals."""
    path, variance, t, t_next, h, count = paths.cosine(), 0.8, 0.5, 0.7, 0.3, 3
    field = _gaussian_field(path, np.zeros(1), variance)
    solver = steering.daps(
        path, field, lambda z: 0.0 * jnp.sum(z), lambda t: h, solvers.heun, num_inner_steps=16, num_langevin=count
    )
    alpha, beta, later, later_beta = (float(each(s)) for s in (t, t_next) for each in (path.alpha, path.beta))
    state = np.sqrt(alpha**2 * variance + beta**2)
    draw = jax.vmap(
        lambda key, noise: solver.step(key, solver.init(state * noise), jnp.float32(t), jnp.float32(t_next)).x
    )
    keys = jax.random.split(KEY, NUMBER)
    ends = jax.jit(draw)(keys, jax.random.normal(jax.random.key(1), (NUMBER, 1)))
    precision = (alpha / beta) ** 2
    added = (1 - (1 - h * precision) ** (2 * count)) / (precision - h * precision**2 / 2)
    _require_moments(ends, np.zeros(1), np.array([[later**2 * (variance + added) + later_beta**2]]))


def test_the_reward_may_be_any_function_and_draws_towards_it():
    """A reward -|z - 2|^2 / (2 s^2) that is no Measurement is the likelihood of one."""
    path = paths.linear()
    field = _gaussian_field(path, np.zeros(2), 1.0)
    measurement = Measurement(lambda z: z, jnp.full(2, 2.0), 0.5)
    step = steering.relative_langevin_step(path, 0.5)
    ends = [
        jax.jit(
            lambda x, reward=reward: solvers.integrate(
                steering.daps(path, field, reward, step, num_langevin=20), KEY, x, np.linspace(0, 1, 6)
            )
        )(jnp.ones(2))
        for reward in (lambda z: -2 * jnp.sum(jnp.square(z - 2)), steering.log_likelihood(measurement))
    ]
    np.testing.assert_allclose(*ends, rtol=1e-4)


def test_one_trace_serves_every_measurement_and_each_example_has_its_own():
    traces, path = [], paths.linear()
    field = _gaussian_field(path, np.zeros(2), 1.0)

    @jax.jit
    @jax.vmap
    def end(matrix, value, noise_std, count, variance):
        traces.append(1)
        measurement = Measurement(operators.matrix(matrix), value, noise_std)
        step = steering.relative_langevin_step(path, noise_std)
        langevin = steering.daps(path, field, steering.log_likelihood(measurement), step, num_langevin=count)
        exact = steering.decoupled_annealing(
            path, conversions.denoiser_of(path, field), steering.gaussian_refinement(path, measurement, variance)
        )
        return [solvers.integrate(each, KEY, jnp.ones(2), np.linspace(0, 1, 5)) for each in (langevin, exact)]

    rng = np.random.default_rng(0)
    matrices, values = rng.normal(size=(3, 1, 2)), rng.normal(size=(3, 1))
    found = [
        end(matrices, values + shift, np.full(3, 1e-3 + shift), np.array([1, 2, 3]), np.full(3, 1 + shift))
        for shift in (0.0, 1.0)
    ]
    assert len(traces) == 1
    np.testing.assert_allclose(np.sum(matrices * np.asarray(found[0][1])[:, None], axis=-1), values, atol=0.02)
    assert np.all(np.isfinite(np.asarray(found)))


def test_evaluations_are_those_of_the_inner_solver():
    path, step = paths.linear(), lambda t: 0.01

    def build(field):
        return steering.daps(path, field, lambda z: -jnp.sum(z**2), step, solvers.heun, 4, 50)

    found = solvers.num_function_evaluations(build, lambda x, t: -x, jnp.ones(2), np.linspace(0, 1, 3))
    assert found.tolist() == [8, 8]


def test_of_a_piecewise_field_each_evaluation_is_of_the_piece_at_its_time():
    field = Piecewise((0.25, 0.75), (lambda x, t: 1.0 - x, lambda x, t: 4.0 * x, lambda x, t: -x))
    found, x = steering.ode_estimate(field, solvers.euler, 4)(jnp.zeros(1), jnp.float32(0.0)), np.zeros(1)
    for slope in (1.0 - x, 4 * 0.25, 4 * 0.5, -1.0):
        x = x + 0.25 * slope
    np.testing.assert_allclose(found, x, rtol=1e-5)


def _mistaken(log_likelihood=lambda z: -jnp.sum(z**2), step_size=lambda t: 0.01, **others):
    solver = steering.daps(paths.linear(), lambda x, t: -x, log_likelihood, step_size, **others)
    return solvers.integrate(solver, KEY, jnp.ones(2), np.linspace(0, 1, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _mistaken(lambda z: z), r"log_likelihood\(z\) must be one number for one example, got the shape"),
        (lambda: _mistaken(lambda z: "one"), r"log_likelihood\(z\) must be one real number"),
        (lambda: _mistaken(step_size=lambda t: jnp.ones(2)), r"step_size\(t\) must be one number"),
        (lambda: _mistaken(step_size=0.1), r"step_size must be a function, got float"),
        (lambda: _mistaken(make_solver=lambda field: field), r"make_solver must be a function that makes a Solver"),
        (lambda: _mistaken(num_langevin=-1), r"num_langevin must be at least 0"),
        (lambda: _mistaken(prior_variance=0.0), r"prior_variance must be above 0"),
        (lambda: _refined(Measurement(operators.matrix(MATRIX), jnp.zeros(3), 0.1)), r"measurement\.value must have"),
        (lambda: _refined(Measurement(operators.matrix(MATRIX), jnp.zeros(2), 0.1), np.inf), r"prior_variance must be"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def _refined(measurement, prior_variance=1.0):
    refine = steering.gaussian_refinement(paths.linear(), measurement, prior_variance)
    return refine(KEY, jnp.ones(3), jnp.float32(0.5))


def test_a_refinement_of_another_shape_is_named():
    solver = steering.decoupled_annealing(paths.linear(), lambda x, t: x, lambda key, estimate, t: jnp.ones(1))
    with pytest.raises(ValueError, match=r"refinement must give the shape \(2,\), got"):
        solvers.integrate(solver, KEY, jnp.ones(2), np.linspace(0, 1, 3))
