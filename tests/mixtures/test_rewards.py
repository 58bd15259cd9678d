"""Quadratic rewards and guided posteriors, (Q1) to (Q3), against measurements, quadrature and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from cfgjax import mixtures, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering import Measurement, operators


def _grid(half=6.0, count=241):
    ticks = np.linspace(-half, half, count)
    return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2), (ticks[1] - ticks[0]) ** 2


def _normalised(log_values):
    values = np.exp(log_values - np.max(log_values))
    return values / values.sum()


@pytest.mark.usefixtures("x64")
def test_a_measurement_is_a_quadratic_reward(clustered_arrays):
    """(Q2), to 1e-10: the law, and the normaliser up to what does not depend on the point."""
    matrix, value, std = np.array([[1.0, -0.5], [0.3, 0.8], [1.0, 1.0]]), np.array([0.4, -0.2, 1.0]), 0.3
    mixture = LabelledMixture(*map(jnp.asarray, clustered_arrays))
    measurement = Measurement(operators.matrix(matrix), jnp.asarray(value), std)
    linear, precision = matrix.T @ value / std**2, matrix.T @ matrix / std**2
    pair = mixtures.posterior(mixture, measurement), mixtures.rewarded(mixture, linear, precision)
    for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    constant = steering.log_likelihood(measurement)(jnp.zeros(2))
    log_evidence = mixtures.log_evidence(mixture, measurement)
    log_normaliser = mixtures.log_normaliser(mixture, linear, precision)
    for y in range(4):
        np.testing.assert_allclose(log_normaliser(y) + constant, log_evidence(y), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_reward_that_widens_has_the_law_and_the_normaliser_of_quadrature(clustered_arrays):
    """With a negative eigenvalue of Q, as far as the covariances allow."""
    weights, means, covariances = clustered_arrays
    mixture = LabelledMixture(*map(jnp.asarray, (weights, means, covariances)))
    least = 1 / np.max(np.linalg.eigvalsh(covariances))
    linear, precision = np.array([0.5, -0.2]), np.array([[0.8, 0.3], [0.3, -0.5 * least]])
    points, area = _grid(14.0, 421)
    reward = points @ linear - 0.5 * np.einsum("ni,ij,nj->n", points, precision, points)
    found = mixtures.rewarded(mixture, linear, precision)
    log_normaliser = mixtures.log_normaliser(mixture, linear, precision)
    densities = jax.jit(jax.vmap(jax.vmap(mixture.log_density(paths.linear()), (0, None, None)), (None, None, 0)))
    given = jax.jit(jax.vmap(jax.vmap(found.log_density(paths.linear()), (0, None, None)), (None, None, 0)))
    prior, after = (np.asarray(each(points, 1.0, jnp.arange(4))) for each in (densities, given))
    normaliser = np.sum(np.exp(prior + reward), axis=1) * area
    np.testing.assert_allclose([log_normaliser(y) for y in range(4)], np.log(normaliser), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after, prior + reward - np.log(normaliser)[:, None], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_the_guided_posterior_is_the_product_of_its_three_laws(skewed_arrays):
    """p(z|y)^w p(z)^(1-w) p(m|z) by SciPy, for labels and the null."""
    weights, means, covariances = skewed_arrays
    measurement = Measurement(operators.matrix(np.array([[2.0, -1.0]])), jnp.array([0.8]), 0.5)
    mixture = LabelledMixture(*map(jnp.asarray, skewed_arrays))
    log_density = mixtures.guided_log_density(mixture, steering.log_likelihood(measurement), 3.0)
    points = np.random.default_rng(0).normal(size=(5, 2))
    found = jax.jit(jax.vmap(jax.vmap(log_density, (0, None)), (None, 0)))(points, jnp.arange(4))
    normals = [multivariate_normal(*law).logpdf(points) for law in zip(means, covariances, strict=True)]
    null = logsumexp(np.log(weights / weights.sum())[:, None] + normals, axis=0)
    known = norm(0.8, 0.5).logpdf(2 * points[:, 0] - points[:, 1])
    for labelled, row in zip([*normals, null], found, strict=True):
        np.testing.assert_allclose(row, 3 * labelled - 2 * null + known, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_weighted_draws_have_the_guided_posterior(skewed_arrays, scale):
    """(Q3) on a 2-D mixture under a measurement: means and covariances within 4 standard errors of quadrature."""
    mixture = LabelledMixture(*map(jnp.asarray, skewed_arrays))
    measurement, y = Measurement(operators.matrix(np.array([[1.0, 0.4]])), jnp.array([0.5]), 0.7), 1
    points, _ = _grid()
    log_density = mixtures.guided_log_density(mixture, steering.log_likelihood(measurement), scale)
    on_grid = jax.jit(jax.vmap(lambda z: log_density(z, y)))(jnp.asarray(points, jnp.float32))
    exact = _normalised(np.asarray(on_grid, np.float64))
    found, keys = mixtures.posterior(mixture, measurement), jax.random.split(jax.random.key(4), 20_000)
    draw = jax.jit(jax.vmap(lambda key: mixtures.guided_sample(mixture, found, key, y, scale)))
    drawn, log_weights = (np.asarray(each, np.float64) for each in draw(keys))
    assert np.max(log_weights) <= 0
    assert float(solvers.effective_sample_size(jnp.asarray(log_weights, jnp.float32))) > 2000
    weights = _normalised(log_weights)
    for features in (lambda z: z, lambda z: z[:, :1] * z, lambda z: z[:, 1:] ** 2):
        mean = weights @ features(drawn)
        error = np.sqrt(np.square(weights) @ np.square(features(drawn) - mean))
        assert np.max(np.abs(mean - exact @ features(points)) / error) < 4


def test_guidance_does_nothing_to_the_null_label(skewed):
    z, log_weight = mixtures.guided_sample(skewed, skewed, jax.random.key(0), 3, 5.0)
    assert log_weight == 0
    log_density = mixtures.guided_log_density(skewed, lambda z: 0.0, 5.0)
    np.testing.assert_allclose(log_density(z, 3), skewed.log_density(paths.linear())(z, 1.0, 3), rtol=1e-6)


def test_one_trace_serves_every_reward(skewed):
    traces = []

    @jax.jit
    def at(linear, precision):
        traces.append(1)
        return mixtures.rewarded(skewed, linear, precision).means

    means = [at(linear * jnp.ones(2), linear * jnp.eye(2)) for linear in (0.1, 0.5)]
    assert len(traces) == 1 and np.max(np.abs(means[0] - means[1])) > 0.01
    np.testing.assert_allclose(
        means[0], mixtures.rewarded(skewed, 0.1 * jnp.ones(2), 0.1 * jnp.eye(2)).means, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("linear", "precision", "message"),
    [
        (np.ones(3), np.eye(2), r"linear must have the shape \(2,\)"),
        (np.ones(2), np.eye(3), r"precision must have the shape \(2, 2\)"),
        (np.ones(2), np.ones((2, 3)), r"precision must be a square matrix \[D, D\]"),
        (np.ones(2), np.array([[1.0, 2.0], [0.0, 1.0]]), "precision must be symmetric"),
        (np.ones(2), -10 * np.eye(2), r"precision must be such that S\^-1 \+ precision is positive definite"),
        (np.ones(2), np.full((2, 2), np.nan), "precision must be finite"),
    ],
)
def test_wrong_rewards_are_refused_by_name(linear, precision, message):
    with pytest.raises(ValueError, match=message):
        mixtures.rewarded(mixtures.ring(3), linear, precision)
