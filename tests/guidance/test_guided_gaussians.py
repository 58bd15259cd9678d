"""What guidance does to two Gaussians in 1-D, in closed form: null N(0, 2), label N(1, 1).

The guided ODE ends with variance 1^w 2^(1-w) for EVERY path with exact ends: two such paths differ by a change of time
and scale, with which guidance commutes as its weights sum to 1; so the mean is one for all of them, too. The guided
SDE's law depends on its diffusion; the tables are its moments' own differential equations, solved to 3 digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.mixtures import LabelledMixture

SCALES = np.array([1.0, 2.0, 3.0])
NUM_SAMPLES = 20_000
NULL = 1


def _gaussian(path, mean, variance):
    return LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]])).vector_field(path)


def _guided(path, scale):
    null, labelled = _gaussian(path, 0.0, 2.0), _gaussian(path, 1.0, 1.0)

    def field(x, t, y):
        return jnp.where(y == NULL, null(x, t, jnp.asarray(0)), labelled(x, t, jnp.asarray(0)))

    return guidance.given(guidance.classifier_free(field, scale, NULL), 0)


def _flow(path, num_steps):
    """The ends of the points -1, 0, 1 under the guided ODE, for each scale: [3, 3]."""

    def end(scale, x):
        solver = solvers.heun(_guided(path, scale))
        return solvers.integrate(solver, jax.random.key(0), jnp.full((1,), x), jnp.linspace(0, 1, num_steps + 1))[0]

    sweep = jax.jit(jax.vmap(jax.vmap(end, in_axes=(None, 0)), in_axes=(0, None)))
    return np.asarray(sweep(jnp.asarray(SCALES), jnp.array([-1.0, 0.0, 1.0])))


@pytest.mark.parametrize("num_steps", [200])
def test_guided_flow_ends_in_the_closed_form(exact_path, num_steps):
    """The flow is affine, so three points give its end's mean and variance without sampling."""
    low, mean, high = _flow(exact_path, num_steps).T
    np.testing.assert_allclose(low + high, 2 * mean, rtol=1e-4)
    np.testing.assert_allclose((high - mean) ** 2, 2.0 ** (1 - SCALES), rtol=5e-3)
    np.testing.assert_allclose(mean, [1.0, 1.623, 2.0], rtol=5e-3)


@pytest.mark.parametrize(
    ("sigma", "num_steps", "means", "variances"),
    [
        ("root_beta", 400, [1.0, 1.541, 1.826], [1.0, 0.563, 0.359]),
        (1.0, 400, [1.0, 1.5, 1.744], [1.0, 0.598, 0.417]),
        (5.0, 1000, [1.0, 1.335, 1.501], [1.0, 0.666, 0.5]),
    ],
)
def test_guided_diffusion_ends_in_the_table(sigma, num_steps, means, variances):
    """Means and variances within 4 standard errors and the table's rounding."""
    path = paths.linear()
    diffusion = solvers.root_beta(path) if sigma == "root_beta" else solvers.constant(sigma)

    def draw(scale, key):
        noise_key, solver_key = jax.random.split(key)
        solver = solvers.euler_maruyama(path, _guided(path, scale), diffusion)
        x = jax.random.normal(noise_key, (1,))
        return solvers.integrate(solver, solver_key, x, jnp.linspace(0, 1, num_steps + 1))[0]

    sweep = jax.jit(jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None)))
    samples = np.asarray(sweep(jnp.asarray(SCALES), jax.random.split(jax.random.key(7), NUM_SAMPLES)), np.float64)
    mean_error, variance_error = (
        np.sqrt(variances) / np.sqrt(NUM_SAMPLES),
        np.sqrt(2 / NUM_SAMPLES) * np.array(variances),
    )
    assert np.all(np.abs(samples.mean(axis=1) - means) < 4 * mean_error + 5e-4)
    assert np.all(np.abs(samples.var(axis=1) - variances) < 4 * variance_error + 5e-4)


def test_the_guided_flow_does_not_sample_the_tilted_law():
    """p(x)^(1-w) p(x|y)^w has precision w + (1 - w) / 2: at w = 3 variance 1/2, where the flow leaves 1/4."""
    low, _, high = _flow(paths.linear(), 200)[2]
    assert abs((high - low) ** 2 / 4 - 1 / (3 + (1 - 3) / 2)) > 0.2
