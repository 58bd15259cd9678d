"""One Gaussian, whose posterior every rule may be held against."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.steering import operators
from tests.conftest import EXACT_PATHS, PATHS

DIMENSION = 4


def _slowly(named):
    """Parameters of which all but the first are slow."""
    return [pytest.param(value, id=name, marks=pytest.mark.slow if i else ()) for i, (name, value) in enumerate(named)]


@pytest.fixture(params=_slowly(PATHS.items()))
def any_path(request):
    """Every path of the library, most of them slowly."""
    return request.param


@pytest.fixture(params=_slowly(EXACT_PATHS.items()))
def any_exact_path(request):
    """Every path from pure noise to the data, most of them slowly."""
    return request.param


@pytest.fixture
def rng():
    """Random numbers of NumPy at a fixed seed."""
    return np.random.default_rng(5)


@pytest.fixture
def gaussian(rng, x64):
    """(mean, covariance) of a law in 4-D, anisotropic and correlated."""
    factor = rng.normal(size=(DIMENSION, DIMENSION))
    return rng.normal(size=DIMENSION), 0.3 * factor @ factor.T + 0.1 * np.eye(DIMENSION)


def field_of(path, mean, covariance):
    """The field of one Gaussian."""
    mixture = LabelledMixture(jnp.ones(1), jnp.asarray(mean)[None], jnp.asarray(covariance)[None])
    return guidance.given(mixture.vector_field(path), 0)


def posterior_of(mean, covariance, measurement):
    """(mean, covariance) of one Gaussian given a measurement."""
    mixture = LabelledMixture(jnp.ones(1), jnp.asarray(mean)[None], jnp.asarray(covariance)[None])
    found = mixtures.posterior(mixture, measurement)
    return found.means.reshape(-1), found.covariances.reshape(len(mean), len(mean))


def measured(matrix, value, noise_std):
    """The Measurement by a matrix."""
    return steering.Measurement(operators.matrix(np.asarray(matrix)), jnp.asarray(value), noise_std)
