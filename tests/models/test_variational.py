"""The loss of a variational autoencoder: its divergence by quadrature, its minimiser where the posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cfgjax.checks import THREEFRY
from cfgjax.models import autoencoder_loss, kl_to_normal, sample_latent

KEY = jax.random.key(11, impl=THREEFRY)
AXES = np.array([[2.0, 0.0], [0.0, -0.5], [1.0, 0.0]])
"""Of an image's three numbers on a latent's two: columns at right angles, so that the posterior has no correlation."""
IMAGE = np.array([0.8, -0.3, 0.4])
VARIANCE = 0.05


def _decode(latent):
    return (jnp.asarray(AXES, jnp.float32) @ latent.reshape(2)).reshape(1, 3, 1)


def _posterior():
    """Mean and variance of z given the image, for z of N(0, I) and the image of N(AXES z, VARIANCE I)."""
    precision = AXES.T @ AXES / VARIANCE + np.eye(2)
    return np.linalg.solve(precision, AXES.T @ IMAGE / VARIANCE), 1 / np.diag(precision)


def _loss(latent, key):
    """The loss at one draw of the latent of a mean and a log-variance, [2, 2]."""
    image = jnp.asarray(IMAGE, jnp.float32).reshape(1, 3, 1)
    return autoencoder_loss(lambda _: tuple(latent.reshape(2, 1, 2, 1)), _decode, key, image, VARIANCE)


def _over_draws(function, mean, log_variance):
    """The mean of a function of latent and key over draws, and 4 standard errors of it."""
    latent = jnp.asarray([mean, log_variance], jnp.float32)
    found = jax.jit(jax.vmap(function, (None, 0)))(latent, jax.random.split(KEY, 10_000))
    found = np.asarray(found, np.float64)
    return found.mean(0), 4 * found.std(0) / np.sqrt(len(found))


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.2), (-3.0, 4.0), (0.1, 1e-8), (20.0, 1e4)])
def test_the_divergence_is_that_of_quadrature(mean, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    z = mean + np.sqrt(variance) * nodes
    ratio = stats.norm.logpdf(z, mean, np.sqrt(variance)) - stats.norm.logpdf(z)
    expected = weights @ ratio / np.sqrt(2 * np.pi)
    found = kl_to_normal(jnp.full((1, 1, 1), mean, jnp.float32), jnp.full((1, 1, 1), np.log(variance), jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_divergence_near_zero_keeps_its_digits():
    """KL = log_variance^2 / 4 for small ones, where exp(log_variance) - 1 - log_variance cancels."""
    assert kl_to_normal(jnp.zeros(1), jnp.full(1, 1e-2)) == pytest.approx(1e-4 / 4 + 1e-6 / 12, rel=1e-3)


def test_divergences_of_independent_numbers_add_up():
    mean, log_variance = jax.random.normal(KEY, (2, 3, 4, 2))
    parts = jax.vmap(kl_to_normal)(mean.reshape(-1, 1), log_variance.reshape(-1, 1))
    assert kl_to_normal(mean, log_variance) == pytest.approx(
        float(np.sum(np.asarray(parts), dtype=np.float64)), rel=1e-5
    )


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_a_loss_is_half_the_squared_error_and_the_weighted_divergence_per_number(kl_weight):
    image, mean, log_variance = jax.random.normal(KEY, (3, 2, 3, 1))
    found = autoencoder_loss(lambda image: (2 * mean, log_variance), lambda z: 3 * z, KEY, image, kl_weight)
    z = np.asarray(sample_latent(KEY, 2 * mean, log_variance), np.float64)
    m, log_v = np.asarray(2 * mean, np.float64), np.asarray(log_variance, np.float64)
    divergence = np.sum(m**2 + np.exp(log_v) - 1 - log_v) / 2
    expected = (np.sum((np.asarray(image) - 3 * z) ** 2) / 2 + kl_weight * divergence) / 6
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_exact_posterior_reaches_the_evidence():
    mean, variance = _posterior()
    found, bound = _over_draws(_loss, mean, np.log(variance))
    evidence = stats.multivariate_normal.logpdf(IMAGE, np.zeros(3), AXES @ AXES.T + VARIANCE * np.eye(3))
    expected = -VARIANCE * (evidence / 3 + np.log(2 * np.pi * VARIANCE) / 2)
    assert abs(found - expected) < bound


def test_the_exact_posterior_minimises_the_loss():
    """Its mean gradient is 0, and a little away it is not."""
    mean, variance = _posterior()
    for shift in (0.0, 0.5):
        found, bound = _over_draws(jax.grad(_loss), mean + shift, np.log(variance) + shift)
        assert np.all((np.abs(found) < bound) == (shift == 0))


def test_one_shape_of_mean_and_log_variance_and_of_both_images():
    image = jnp.zeros((2, 2, 1))
    with pytest.raises(ValueError, match=r"log_variance"):
        autoencoder_loss(lambda image: (image, image[:1]), lambda z: z, KEY, image, 1.0)
    with pytest.raises(ValueError, match=r"decode\(z\)"):
        autoencoder_loss(lambda image: (image, image), lambda z: z[:1], KEY, image, 1.0)
    with pytest.raises(ValueError, match=r"kl_weight"):
        autoencoder_loss(lambda image: (image, image), lambda z: z, KEY, image, -1.0)
