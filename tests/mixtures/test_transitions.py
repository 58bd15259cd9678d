"""Transitions (N1) to (N3) against the joint Gaussian of both states, quadrature, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from cfgjax import mixtures, paths
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering import Measurement, operators

CASES = [(0.2, 0.5, 0.3), (0.0, 0.6, 0.0), (0.4, 1.0, 0.9), (0.6, 0.7, 1.0)]
"""Times and correlations."""


def _at(path, t):
    return tuple(float(part(jnp.asarray(t))) for part in (path.alpha, path.beta))


def _markov(path, t, t_next):
    (alpha, beta), (alpha_next, beta_next) = _at(path, t), _at(path, t_next)
    return alpha * beta_next / (alpha_next * beta)


def _conditioned(arrays, coefficients, x, correlation):
    """Normalised weights, means and covariances of x' given x, from the Gaussian of (z, noise, noise') in float64."""
    weights, means, covariances = arrays
    (alpha, beta), (alpha_next, beta_next) = coefficients
    eye, none, log_weights = np.eye(2), np.zeros((2, 2)), np.zeros(weights.shape)
    found_means, found_covariances = np.zeros(means.shape), np.zeros(covariances.shape)
    transform = np.block([[alpha * eye, beta * eye, none], [alpha_next * eye, none, beta_next * eye]])
    for at in np.ndindex(weights.shape):
        source = np.block(
            [[covariances[at], none, none], [none, eye, correlation * eye], [none, correlation * eye, eye]]
        )
        mean, covariance = transform[:, :2] @ means[at], transform @ source @ transform.T
        gain = covariance[2:, :2] @ np.linalg.inv(covariance[:2, :2])
        found_means[at] = mean[2:] + gain @ (x - mean[:2])
        found_covariances[at] = covariance[2:, 2:] - gain @ covariance[:2, 2:]
        log_weights[at] = np.log(weights[at]) + multivariate_normal(mean[:2], covariance[:2, :2]).logpdf(x)
    return np.exp(log_weights - logsumexp(log_weights)), found_means, found_covariances


@pytest.mark.usefixtures("x64")
def test_it_is_the_joint_gaussian_given_the_state(path, clustered_arrays):
    mixture, x = LabelledMixture(*map(jnp.asarray, clustered_arrays)), np.array([0.4, -1.1])
    transition = jax.jit(lambda *numbers: mixtures.transition(path, mixture, *numbers))
    for t, t_next, correlation in CASES:
        exact = _conditioned(clustered_arrays, (_at(path, t), _at(path, t_next)), x, correlation)
        found = transition(x, t, t_next, correlation)
        for name, wanted in zip(("weights", "means", "covariances"), exact, strict=True):
            np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.usefixtures("x64")
def test_it_ends_in_the_posterior_of_the_state(plain_or_steep_path, clustered):
    """At t' = 1, for every correlation, x = alpha z + beta noise is a measurement of z."""
    x, t = jnp.array([0.4, -1.1]), 0.4
    alpha, beta = _at(plain_or_steep_path, t)
    measurement = Measurement(operators.matrix(alpha * np.eye(2)), x, beta)
    pair = (
        mixtures.posterior(clustered, measurement),
        mixtures.transition(plain_or_steep_path, clustered, x, t, 1.0, 0.7),
    )
    for one, other in zip(*map(jax.tree.leaves, pair), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_marginals_are_kept(plain_or_steep_path):
    """(N2) in 1-D by quadrature over x: the density of x' is p_t'(x'|y), for each label and the null."""
    path, t, t_next = plain_or_steep_path, 0.3, 0.55
    arrays = np.array([[1.0, 2.0], [0.5, 1.0]]), np.array([[[-1.0], [0.5]], [[1.5], [2.5]]])
    mixture = LabelledMixture(*map(jnp.asarray, (*arrays, np.array([0.3, 0.1, 0.2, 0.5]).reshape(2, 2, 1, 1))))
    states, later = np.linspace(-9, 9, 1801)[:, None], jnp.array([[-1.0], [0.2], [1.3]])
    log_density = mixture.log_density(path)

    def kernel(x, x_next, y, correlation):
        law = mixtures.transition(path, mixture, x, t, t_next, correlation)
        return law.log_density(paths.linear())(x_next, 1.0, y) + log_density(x, t, y)

    over = kernel
    for place in (0, 1, 2):
        over = jax.vmap(over, [0 if place == own else None for own in range(4)])
    over = jax.jit(over)
    exact = jax.vmap(jax.vmap(log_density, (0, None, None)), (None, None, 0))(later, t_next, jnp.arange(3))
    for correlation in (0.0, 0.6, 1.0, _markov(path, t, t_next)):
        joint = np.exp(over(states, later, jnp.arange(3), correlation))
        np.testing.assert_allclose(joint.sum(axis=-1) * (states[1] - states[0]), np.exp(exact), rtol=1e-7)


@pytest.mark.usefixtures("x64")
def test_markov_transitions_compose(plain_or_steep_path):
    """(N3) Chapman-Kolmogorov, exactly for one Gaussian: over t' the same as straight to t''; else they do not."""
    mixture = LabelledMixture(jnp.ones(1), jnp.array([[0.5, -1.0]]), jnp.array([[[1.0, 0.3], [0.3, 0.5]]]))
    x, t, middle, end = jnp.array([0.4, -1.1]), 0.2, 0.5, 0.9

    @jax.jit
    def composed(first, second, whole):
        def law(x, *numbers):
            found = mixtures.transition(plain_or_steep_path, mixture, x, *numbers)
            return found.means[0, 0], found.covariances[0, 0]

        mean, covariance = law(x, t, middle, first)
        later, left = law(mean, middle, end, second)
        gain = jax.jacfwd(lambda x: law(x, middle, end, second)[0])(mean)
        through = later, left + gain @ covariance @ gain.T
        return through, law(x, t, end, whole)

    markov = [_markov(plain_or_steep_path, *times) for times in ((t, middle), (middle, end), (t, end))]
    for one, other in zip(*composed(*markov), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    (_, one), (_, other) = composed(0.5, 0.5, 0.25)
    assert np.max(np.abs(one - other)) > 1e-3


def test_one_trace_serves_all_numbers_and_a_batch_is_a_loop(skewed):
    traces = []

    @jax.jit
    def at(x, t, t_next, correlation):
        traces.append(1)
        return mixtures.transition(paths.cosine(), skewed, x, t, t_next, correlation)

    columns = jnp.array([[0.4, -1.1], [2.0, 0.3], [0.0, 0.0]]), *map(jnp.asarray, zip(*CASES[:3], strict=True))
    alone = [at(*(column[row] for column in columns)) for row in range(3)]
    assert len(traces) == 1
    together = jax.vmap(at)(*columns)
    for row, one in enumerate(alone):
        for leaf, of_all in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(of_all[row], leaf, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": 0.5}, "t must be under t_next, got 0.5 and 0.5"),
        ({"t_next": 1.2}, r"t_next must be in \[0, 1\], got 1.2"),
        ({"correlation": -0.1}, r"correlation must be in \[0, 1\], got -0.1"),
        ({"x": jnp.ones(3)}, r"x must have the shape \(2,\)"),
        ({"mixture": 3}, "mixture must be a LabelledMixture"),
    ],
)
def test_wrong_arguments_are_refused_by_name(skewed, change, message):
    usual = {"mixture": skewed, "x": jnp.ones(2), "t": 0.2, "t_next": 0.5, "correlation": 0.3}
    with pytest.raises((TypeError, ValueError), match=message):
        mixtures.transition(paths.linear(), **(usual | change))
