"""Posteriors of mixtures under measurements, (O1) to (O3), against precisions, SciPy's joint Gaussians, and draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from cfgjax import mixtures, paths, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering import Measurement, operators

D, K, M = 4, 3, 2
TIMES = np.array([0.05, 0.4, 0.95])


def _arrays(seed=0, dimension=D):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(K, M, dimension, dimension))
    covariances = factors @ np.swapaxes(factors, -1, -2) / dimension + 0.1 * np.eye(dimension)
    return rng.uniform(0.2, 1.0, size=(K, M)), rng.normal(size=(K, M, dimension)), covariances


def _mixture(seed=0, dimension=D):
    return LabelledMixture(*map(jnp.asarray, _arrays(seed, dimension)))


def _matrix(count, rank, seed=1, dimension=D):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, rank)) @ rng.normal(size=(rank, dimension))


def _measurement(matrix, std, seed=2):
    rng = np.random.default_rng(seed)
    value = matrix @ rng.normal(size=matrix.shape[1]) + std * rng.normal(size=len(matrix))
    return Measurement(operators.matrix(matrix), jnp.asarray(value), std)


def _by_precisions(arrays, matrix, value, std):
    """Normalised weights, means and covariances of the posterior by its precisions, and log N(m; ...), in float64."""
    weights, means, covariances = arrays
    precisions = np.linalg.inv(covariances)
    found = np.linalg.inv(precisions + matrix.T @ matrix / std**2)
    pulls = np.einsum("...ij,...j->...i", precisions, means) + matrix.T @ value / std**2
    spreads = matrix @ covariances @ matrix.T + std**2 * np.eye(len(matrix))
    pairs = np.ndindex(weights.shape)
    evidence = [multivariate_normal(matrix @ means[at], spreads[at]).logpdf(value) for at in pairs]
    evidence = np.reshape(evidence, weights.shape)
    log_weights = np.log(weights / weights.sum()) + evidence
    return np.exp(log_weights - logsumexp(log_weights)), np.einsum("...ij,...j->...i", found, pulls), found, evidence


@jax.jit
def _of(mixture, measurement):
    """The posterior, and the log-evidence of all labels and the null."""
    log_evidence = mixtures.log_evidence(mixture, measurement)
    return mixtures.posterior(mixture, measurement), jax.vmap(log_evidence)(jnp.arange(mixture.num_classes + 1))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("count", "rank"), [(1, 1), (3, 3), (4, 2), (4, 4), (6, 4), (6, 2)])
@pytest.mark.parametrize("std", [0.5, 0.02])
def test_it_has_the_weights_means_and_covariances_of_bayes_rule(count, rank, std):
    """For fewer and more numbers than the point has, all independent or not."""
    matrix, (weights, *_) = _matrix(count, rank), _arrays()
    measurement = _measurement(matrix, std)
    exact = _by_precisions(_arrays(), matrix, np.asarray(measurement.value), std)
    found, log_evidence = _of(_mixture(), measurement)
    for name, wanted in zip(("weights", "means", "covariances"), exact, strict=False):
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-6, atol=1e-9, err_msg=name)
    log_weights = np.log(weights / weights.sum(axis=1, keepdims=True)) + exact[-1]
    null = logsumexp(np.log(weights / weights.sum()) + exact[-1])
    np.testing.assert_allclose(log_evidence, [*logsumexp(log_weights, axis=1), null], rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_without_noise_points_are_on_the_measured_plane():
    """The limit of small noise, and of a mask, which has rows of zeros, the posterior of the rows that it keeps."""
    measurement = _measurement(_matrix(2, 2), 0.0)
    (exact, _), (near, _) = (_of(_mixture(), measurement._replace(noise_std=std)) for std in (0.0, 1e-5))
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(near), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)
    values = jax.vmap(jax.vmap(measurement.operator))(exact.means)
    np.testing.assert_allclose(values, np.broadcast_to(measurement.value, values.shape), atol=1e-12)

    keep = np.array([1.0, 0.0, 1.0, 0.0])
    masked = Measurement(operators.mask(keep), jnp.array([0.3, 0.0, -0.2, 0.0]), 0.0)
    rows = Measurement(operators.matrix(np.eye(D)[keep > 0]), jnp.array([0.3, -0.2]), 0.0)
    both = (_of(_mixture(), each) for each in (masked, rows))
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("std", [1e-1, 1e-3])
@pytest.mark.parametrize(("count", "rank"), [(2, 2), (4, 2), (6, 4)])
def test_little_noise_costs_float32_no_digits(std, count, rank):
    matrix = _matrix(count, rank).astype(np.float32).astype(np.float64)
    measurement = _measurement(matrix, std)
    value = np.asarray(measurement.value, np.float64)
    arrays = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(_mixture())]
    _, means, covariances, _ = _by_precisions(arrays, matrix, value, np.float64(np.float32(std)))
    found, _ = _of(_mixture(), measurement)
    assert np.max(np.abs(found.means - means)) < 2e-4
    assert np.max(np.abs(found.covariances - covariances)) < 2e-5


def test_a_label_keeps_its_law_though_floating_point_has_no_weight_for_it():
    """A value 60 standard deviations from two of three labels, which float32 gives the weight 0."""
    means = np.array([[[0.0, 0.0], [0.5, 1.0]], [[60.0, 1.0], [60.5, 0.0]], [[-3.0, 0.0], [-3.0, 2.0]]])
    arrays = np.array([[1.0, 2.0], [1.0, 1.0], [0.5, 1.5]]), means, np.broadcast_to(np.eye(2), (3, 2, 2, 2))
    matrix, value, std = np.array([[1.0, 0.5]]), np.array([60.0]), 0.1
    measurement = Measurement(operators.matrix(matrix), jnp.asarray(value), std)
    found, _ = _of(LabelledMixture(*map(jnp.asarray, arrays)), measurement)
    _, wanted_means, wanted_covariances, evidence = _by_precisions(arrays, matrix, value, std)
    log_weights = np.log(arrays[0]) + evidence
    assert np.exp(logsumexp(log_weights[0]) - logsumexp(log_weights)) < 1e-300
    np.testing.assert_array_equal(np.sum(found.weights, axis=1), [0, 1, 0])
    np.testing.assert_allclose(found.means, wanted_means, atol=2e-5)
    path, point, keys = paths.cosine(), np.array([48.0, 20.0]), jax.random.split(jax.random.key(0), 2000)

    @jax.jit
    def of(found, x, ys):
        over = (None, None, 0)
        densities, fields = (
            jax.vmap(view, over)(x, 0.9, ys) for view in (found.log_density(path), found.vector_field(path))
        )
        drawn = jax.vmap(lambda key: found.sample(key, 0))(keys)
        again = mixtures.joint(found, jnp.eye(2), 1.0).mixture
        return densities, fields, found.label_log_probs(path)(x, 0.9), drawn, again.component_log_probs

    densities, fields, log_probs, drawn, kept = map(np.asarray, of(found, jnp.asarray(point), jnp.arange(4)))
    exact = []
    alpha, beta = (float(part(jnp.asarray(0.9))) for part in (path.alpha, path.beta))
    for y in range(3):
        shares = log_weights[y] - logsumexp(log_weights[y])
        laws = zip(wanted_means[y], wanted_covariances[y], strict=True)
        normals = [multivariate_normal(alpha * mu, alpha**2 * S + beta**2 * np.eye(2)) for mu, S in laws]
        exact.append(logsumexp(shares + [normal.logpdf(point) for normal in normals]))
    np.testing.assert_allclose(densities[:3], exact, rtol=1e-4)
    assert np.all(np.isfinite(fields)) and np.all(np.isfinite(log_probs))
    np.testing.assert_allclose(kept, log_weights - logsumexp(log_weights), rtol=1e-5, atol=1e-4)
    shares = np.exp(log_weights[0] - logsumexp(log_weights[0]))
    spread = np.sqrt(np.diagonal(wanted_covariances[0, 0]) + 1)
    assert np.all(np.abs(drawn.mean(axis=0) - shares @ wanted_means[0]) < 4 * spread / np.sqrt(len(keys)))


def _by_scipy(arrays, matrix, value, std, alpha, beta, points, y):
    """log p_t(x|m, y) at points, by the Gaussians of state and measurement together."""
    weights, means, covariances = arrays
    both, alone = [], []
    transform = np.concatenate([alpha * np.eye(points.shape[1]), matrix])
    noise = np.diag(np.concatenate([np.full(points.shape[1], beta**2), np.full(len(matrix), std**2)]))
    states = np.concatenate([points, np.tile(value, (len(points), 1))], axis=1)
    for at in itertools.product([y] if y < K else range(K), range(M)):
        mean, covariance = transform @ means[at], transform @ covariances[at] @ transform.T + noise
        size = points.shape[1]
        both.append(np.log(weights[at]) + multivariate_normal(mean, covariance).logpdf(states))
        alone.append(np.log(weights[at]) + multivariate_normal(mean[size:], covariance[size:, size:]).logpdf(value))
    return logsumexp(both, axis=0) - logsumexp(alone)


def _check_states_and_steering(path):
    """p_t(x|m, y), log p_t(m|x, y), and what steering rests on: u(x|m, y) = u(x|y) + b grad log p_t(m|x, y)."""
    matrix, std = _matrix(3, 2), 0.3
    measurement, mixture = _measurement(matrix, std), _mixture()
    (found, log_evidence), points = _of(mixture, measurement), np.random.default_rng(5).normal(size=(4, D))
    likelihood = mixtures.likelihood(path, mixture, measurement)

    def at(x, t, y):
        c = paths.coefficients(path, t)
        log_prob, gradient = jax.value_and_grad(likelihood)(x, t, y)
        steered = mixture.vector_field(path)(x, t, y) + c.beta * c.wronskian / c.alpha * gradient
        by_bayes = found.log_density(path)(x, t, y) + log_evidence[y] - mixture.log_density(path)(x, t, y)
        slope = jax.grad(likelihood, 1)(x, t, y)
        step = 1e-5
        ahead, behind = (likelihood(x, t + sign * step, y) for sign in (1, -1))
        return (
            found.log_density(path)(x, t, y),
            (log_prob, by_bayes),
            (steered, found.vector_field(path)(x, t, y)),
            (slope, (ahead - behind) / (2 * step)),
        )

    over = jax.vmap(jax.vmap(jax.vmap(at, (0, None, None)), (None, None, 0)), (None, 0, None))
    densities, *pairs = jax.jit(over)(jnp.asarray(points), jnp.asarray(TIMES), jnp.arange(K + 1))
    for (i, t), y in itertools.product(enumerate(TIMES), range(K + 1)):
        alpha, beta = (float(part(jnp.asarray(t))) for part in (path.alpha, path.beta))
        wanted = _by_scipy(_arrays(), matrix, np.asarray(measurement.value), std, alpha, beta, points, y)
        np.testing.assert_allclose(densities[i, y], wanted, rtol=1e-8, atol=1e-8)
    for (one, other), tolerance in zip(pairs, (1e-9, 1e-8, 1e-5), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("x64")
def test_states_have_the_law_of_the_posterior_and_steering_is_exact():
    _check_states_and_steering(paths.linear())


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_states_have_the_law_of_the_posterior_and_steering_is_exact_on_every_path(path):
    _check_states_and_steering(path)


@pytest.mark.usefixtures("x64")
def test_the_likelihood_at_both_ends(plain_or_steep_path):
    """At t = 1 that of the point itself, at t = 0 the evidence."""
    measurement, mixture, x = _measurement(_matrix(6, 3), 0.3), _mixture(), jnp.array([0.3, -1.0, 0.2, 2.0])
    likelihood = mixtures.likelihood(plain_or_steep_path, mixture, measurement)
    log_evidence = _of(mixture, measurement)[1]
    over = jax.jit(jax.vmap(jax.value_and_grad(likelihood), (None, 0, 0)))
    values, gradients = over(x, jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.array([1, 1, K, K]))
    at_end = steering.log_likelihood(measurement)
    np.testing.assert_allclose(values, [at_end(x), log_evidence[1], at_end(x), log_evidence[K]], rtol=1e-10)
    np.testing.assert_allclose(gradients[::2], np.stack([jax.grad(at_end)(x)] * 2), rtol=1e-9)


def test_float32_keeps_the_gradients_digits_near_both_ends(plain_or_steep_path):
    """Near t = 0 the gradient is O(alpha), and b times it must not be lost."""
    ts = jnp.array([1e-4, 1e-2, 0.5, 0.99, 0.9999])

    def gradients():
        likelihood = mixtures.likelihood(plain_or_steep_path, _mixture(), _measurement(_matrix(3, 3), 0.05))
        x = jnp.array([0.3, -1.0, 0.2, 1.1])
        return jax.jit(jax.vmap(jax.grad(likelihood), (None, 0, None)))(x, ts.astype(x.dtype), K)

    found = np.asarray(gradients())
    with jax.enable_x64(True):
        exact = np.asarray(gradients())
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.max(error) < 2e-3


@pytest.mark.usefixtures("x64")
def test_label_and_measurement_together():
    """p(z|m, y) = p(z|y) p(m|z) / p(m|y), and p(y|m) = p(y) p(m|y) / p(m)."""
    mixture, measurement, path = _mixture(), _measurement(_matrix(2, 2), 0.4), paths.linear()
    found, log_evidence = _of(mixture, measurement)
    z, ys = jnp.array([0.3, -1.0, 0.2, 1.1]), jnp.arange(K + 1)
    after, before = (jax.vmap(law.log_density(path), (None, None, 0))(z, 1.0, ys) for law in (found, mixture))
    np.testing.assert_allclose(after, before + steering.log_likelihood(measurement)(z) - log_evidence, rtol=1e-9)
    shares = mixture.weights.sum(axis=1) / mixture.weights.sum()
    by_bayes = shares * jnp.exp(log_evidence[:K] - log_evidence[K])
    np.testing.assert_allclose(found.weights.sum(axis=1), by_bayes, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_it_is_the_joint_mixture_given_its_vector():
    matrix, std, path, x = _matrix(2, 2), 0.4, paths.cosine(), jnp.array([0.3, -1.0, 0.2, 1.1])
    measurement = _measurement(matrix, std)

    @jax.jit
    def both(y):
        found, joint = mixtures.posterior(_mixture(), measurement), mixtures.joint(_mixture(), matrix, std)
        given = {"label": y, "vector": measurement.value}
        return found.score(path)(x, 0.4, y), joint.score(path)(x, 0.4, given)

    for y in range(K + 1):
        np.testing.assert_allclose(*both(y), rtol=1e-9)


def _moments(points, weights):
    """Means, and their standard errors, of coordinates and their products under normalised weights."""
    features = np.concatenate(
        [points, points[:, :, None].repeat(D, 2).reshape(len(points), -1) * np.tile(points, D)], 1
    )
    mean = weights @ features
    return mean, np.sqrt(np.square(weights) @ np.square(features - mean))


def test_draws_and_weighted_draws_of_the_prior_have_its_moments():
    """In 4-D, for a label and for the null, within four standard errors: by importance sampling, and by its draws."""
    mixture, measurement = _mixture(), _measurement(_matrix(2, 2), 0.8)
    found, keys = _of(mixture, measurement)[0], jax.random.split(jax.random.key(3), 40_000)
    weights, means, covariances = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)[:3])
    second = covariances + means[..., :, None] * means[..., None, :]
    for y in (1, K):
        rows = slice(y, y + 1) if y < K else slice(None)
        shares = weights[rows] / weights[rows].sum()
        exact = np.concatenate(
            [np.einsum("km,kmi->i", shares, means[rows]), np.einsum("km,kmij->ij", shares, second[rows]).reshape(-1)]
        )
        drawn, prior = (
            np.asarray(jax.vmap(lambda key, law=law, y=y: law.sample(key, y))(keys), np.float64)
            for law in (found, mixture)
        )
        log_weights = np.asarray(jax.vmap(steering.log_likelihood(measurement))(jnp.asarray(prior, jnp.float32)))
        for points, log_weight in ((drawn, np.zeros(len(keys))), (prior, log_weights)):
            mean, error = _moments(points, np.exp(log_weight - logsumexp(log_weight)))
            assert np.max(np.abs(mean - exact) / error) < 4


def test_one_trace_serves_every_measurement_and_a_batch_is_a_loop():
    traces, mixture, path = [], _mixture(), paths.linear()

    @jax.jit
    def at(measurement):
        traces.append(1)
        found, x = mixtures.posterior(mixture, measurement), jnp.ones(D)
        likelihood = mixtures.likelihood(path, mixture, measurement)
        return found, mixtures.log_evidence(mixture, measurement)(1), likelihood(x, 0.3, 1)

    cases = [_measurement(_matrix(2, 2, seed), std, seed) for seed, std in ((1, 0.1), (2, 0.7), (3, 2.0))]
    cases = [jax.tree.map(jnp.asarray, case) for case in cases]
    alone = [at(case) for case in cases]
    assert len(traces) == 1
    together = jax.vmap(at)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases))
    for index, one in enumerate(alone):
        for leaf, of_all in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(of_all[index], leaf, rtol=2e-4, atol=2e-5)
    assert len({round(float(each[1]), 3) for each in alone}) == 3


@pytest.mark.parametrize(
    ("measurement", "message"),
    [
        (
            Measurement(operators.matrix(np.ones((1, 2))), jnp.ones(2), 0.5),
            r"measurement.value must have the shape \(1,\)",
        ),
        (Measurement(operators.matrix(np.ones((1, 3))), jnp.ones(1), 0.5), r"z, flattened, must have the shape \(3,\)"),
        (Measurement(jnp.square, jnp.ones(2), 0.5), r"measurement.operator must be linear in z, got one that is not"),
        (Measurement(lambda z: z + 1, jnp.ones(2), 0.5), r"measurement.operator must be linear, got one that is"),
        (Measurement(operators.matrix(np.ones((1, 2))), jnp.ones(1), -0.5), "measurement.noise_std must be at least 0"),
        ((1, 2, 3), r"measurement must be a Measurement"),
    ],
)
def test_wrong_measurements_are_refused_by_name(measurement, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mixtures.posterior(mixtures.ring(3), measurement)


def test_an_offset_is_refused_within_a_program_too():
    def means(value):
        return mixtures.posterior(mixtures.ring(3), Measurement(lambda z: z + 1, value, 0.5)).means

    with pytest.raises(ValueError, match=r"measurement\.operator must be linear, got one that is"):
        jax.jit(means)(jnp.ones(2))


def test_what_else_is_refused():
    measurement = Measurement(operators.matrix(np.ones((1, 2))), jnp.ones(1), 0.0)
    with pytest.raises(ValueError, match=r"measurement\.noise_std must be above 0"):
        mixtures.likelihood(paths.linear(), mixtures.ring(3), measurement)
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\], got 4"):
        mixtures.log_evidence(mixtures.ring(3), measurement)(4)
    with pytest.raises(ValueError, match=r"log_weights must be under inf, and not all -inf for any label"):
        LabelledMixture.of_log_weights(jnp.array([0.0, -jnp.inf]), jnp.zeros((2, 1)), jnp.ones((2, 1, 1)))
