"""(H1) to (H4) against log-densities in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis import likelihood

POINTS = jnp.array([[0.3, -0.2], [1.5, 0.4], [-2.0, 1.0], [2.1, 2.2]])


def _log_density(field, x, num_steps, solver=solvers.heun, start=1.0):
    ts = jnp.linspace(start, 0.0, num_steps + 1)
    return likelihood.log_density(solver, likelihood.exact_divergence(field), x, ts)[0]


@pytest.mark.parametrize("y", [0, 1, 2, 3], ids=["label 0", "label 1", "label 2", "null"])
def test_the_oracle_field_gives_the_oracle_density(x64, y, clustered):
    path = paths.linear()
    field = guidance.given(clustered.vector_field(path), y)
    found = jax.jit(jax.vmap(lambda x: _log_density(field, x, 400)))(POINTS)
    exact = jax.vmap(lambda x: clustered.log_density(path)(x, jnp.ones(()), jnp.asarray(y)))(POINTS)
    np.testing.assert_allclose(found, exact, atol=2e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_guided_density_of_two_gaussians(x64, scale):
    """The guided ODE is affine here: N(m, s1^{2w} s0^{2(1-w)}), with m where the noise 0 ends."""
    mixture = mixtures.LabelledMixture(jnp.array([0.5, 0.5]), jnp.array([[0.0], [0.0]]), jnp.array([[[2.0]], [[1.0]]]))
    path, labelled = paths.linear(), mixture.vector_field(paths.linear())
    null, given = guidance.given(labelled, 0), guidance.given(labelled, 1)

    def guided(x, t):
        return guidance.interpolate(null(x, t), given(x, t), scale)

    del path
    xs = jnp.array([[-1.0], [0.0], [0.7]])
    found = jax.vmap(lambda x: _log_density(guided, x, 400))(xs)
    variance = 2.0 ** (1 - scale)
    exact = -0.5 * (xs[:, 0] ** 2 / variance + jnp.log(2 * jnp.pi * variance))
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_the_solve_ends_at_the_noise_that_makes_the_point(x64, clustered):
    field = guidance.given(clustered.vector_field(paths.linear()), 0)
    forth, back = jnp.linspace(0.0, 1.0, 401), jnp.linspace(1.0, 0.0, 401)
    start = jnp.array([0.4, -1.1])
    end = solvers.integrate(solvers.heun(field), jax.random.key(0), start, forth)
    _, noise = likelihood.log_density(solvers.heun, likelihood.exact_divergence(field), end, back)
    np.testing.assert_allclose(noise, start, atol=1e-4)


@pytest.mark.parametrize(("solver", "order", "coarsest"), [(solvers.euler, 1, 320), (solvers.heun, 2, 80)])
def test_the_density_converges_at_the_solvers_order(x64, solver, order, coarsest):
    path, mixture = paths.linear(), mixtures.ring(3)
    field = guidance.given(mixture.vector_field(path), 3)
    exact = float(mixture.log_density(path)(POINTS[1], jnp.ones(()), jnp.asarray(3)))
    counts = coarsest * np.array([1, 2, 4])
    errors = [abs(float(_log_density(field, POINTS[1], int(count), solver)) - exact) for count in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.25


def _curved(x, t):
    return jnp.sin(x[::-1]) * x + t * jnp.roll(x, 1) ** 2


def test_both_divergences_agree_with_the_jacobians_trace(x64):
    x, t = jax.random.normal(jax.random.key(0), (5,)), jnp.asarray(0.3)
    trace = jnp.trace(jax.jacobian(_curved)(x, t))
    value, exact = likelihood.exact_divergence(_curved)(x, t)
    np.testing.assert_allclose(exact, trace, rtol=1e-12)
    np.testing.assert_array_equal(value, _curved(x, t))
    keys = jax.random.split(jax.random.key(1), 20_000)
    estimates = jax.vmap(lambda key: likelihood.estimated_divergence(_curved, key)(x, t)[1])(keys)
    error = float(jnp.std(estimates)) / np.sqrt(len(keys))
    assert abs(float(jnp.mean(estimates)) - float(trace)) < 4 * error


def test_the_divergence_of_an_image_is_that_of_its_flat_self(x64):
    x = jax.random.normal(jax.random.key(0), (2, 3, 1))
    shaped = likelihood.exact_divergence(lambda x, t: _curved(x.reshape(-1), t).reshape(x.shape))(x, jnp.asarray(0.5))
    flat = likelihood.exact_divergence(_curved)(x.reshape(-1), jnp.asarray(0.5))
    np.testing.assert_allclose(shaped[1], flat[1], rtol=1e-12)
    np.testing.assert_allclose(shaped[0].reshape(-1), flat[0], rtol=1e-12)


def test_one_probe_serves_a_whole_solve(x64):
    """With a diagonal Jacobian the estimate is exact for any signs; with another one it is constant in t and x."""
    linear = jnp.array([[0.5, 2.0], [-1.0, 0.3]])
    divergence = likelihood.estimated_divergence(lambda x, t: linear @ x, jax.random.key(3))
    values = [float(divergence(jnp.full(2, scale), jnp.asarray(t))[1]) for scale, t in ((0.0, 0.1), (3.0, 0.9))]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    diagonal = likelihood.estimated_divergence(lambda x, t: jnp.array([2.0, -0.5]) * x, jax.random.key(4))
    assert float(diagonal(jnp.ones(2), jnp.asarray(0.5))[1]) == 1.5


def test_an_increasing_grid_is_refused():
    divergence = likelihood.exact_divergence(lambda x, t: x)
    with pytest.raises(ValueError, match="ts must decrease"):
        likelihood.log_density(solvers.heun, divergence, jnp.ones(2), jnp.linspace(0, 1, 5))


def test_a_decreasing_grid_is_refused_for_samples():
    divergence = likelihood.exact_divergence(lambda x, t: x)
    with pytest.raises(ValueError, match="ts must increase"):
        likelihood.sample_log_density(solvers.heun, divergence, jnp.ones(2), jnp.linspace(1, 0, 5))


RING = mixtures.ring(8)
SIDE = np.linspace(-4, 4, 81)
GRID = np.stack(np.meshgrid(SIDE, SIDE), axis=-1).reshape(-1, 2).astype(np.float32)


def _guided_log_density(scale, x, num_steps=64):
    field = guidance.given(guidance.classifier_free(RING.vector_field(paths.linear()), scale, 8), 1)
    ts = np.linspace(1, 0, num_steps + 1, dtype=np.float32)
    return likelihood.log_density(solvers.heun, likelihood.exact_divergence(field), x, ts)[0]


@pytest.mark.parametrize("scale", [pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_the_guided_density_integrates_to_one_and_is_that_of_the_samples(scale):
    """On a grid of 0.1: its sum within 0.5 % of 1; the samples' mean and covariance within 4 standard errors."""
    density = np.exp(np.asarray(jax.jit(jax.vmap(partial(_guided_log_density, scale)))(GRID), np.float64)) * 0.01
    assert abs(density.sum() - 1) < 5e-3
    field = guidance.given(guidance.classifier_free(RING.vector_field(paths.linear()), scale, 8), 1)

    def draw(noise):
        return solvers.integrate(solvers.heun(field), jax.random.key(0), noise, jnp.linspace(0, 1, 65))

    samples = np.asarray(jax.jit(jax.vmap(draw))(jax.random.normal(jax.random.key(1), (20_000, 2))), np.float64)
    mean = density @ GRID
    covariance = (GRID - mean).T @ (density[:, None] * (GRID - mean))
    error = np.sqrt(np.diag(covariance) / len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean) < 4 * error + 2e-3)
    assert np.all(np.abs(np.cov(samples.T) - covariance) < 8 * error.max() * np.sqrt(covariance.max()) + 2e-3)
    counts, *_ = np.histogram2d(*samples.T, bins=[np.linspace(-4.05, 4.05, 82)] * 2)
    found, expected = (
        each.reshape(27, 3, 27, 3).sum(axis=(1, 3)) for each in (counts.T, len(samples) * density.reshape(81, 81))
    )
    is_common = expected > 20
    squares = (found - expected)[is_common] ** 2 / expected[is_common]
    assert np.sum(squares) < len(squares) + 5 * np.sqrt(2 * len(squares))


def test_at_scale_one_it_is_the_exact_log_density():
    """Within 1e-3 nats, where the label's density is not below exp(-12)."""
    exact = jax.jit(jax.vmap(lambda x: RING.log_density(paths.linear())(x, jnp.ones(()), jnp.asarray(1))))(GRID)
    near = GRID[np.asarray(exact) > -12]
    found = jax.jit(jax.vmap(partial(_guided_log_density, 1.0, num_steps=256)))(near)
    np.testing.assert_allclose(found, np.asarray(exact)[np.asarray(exact) > -12], atol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [3.0, guidance.interval(3.0, 0.25, 0.75)], ids=["constant", "interval"])
def test_forwards_and_backwards_agree(scale):
    """The density of a sample drawn with it is the density found for that sample, and the noise comes back."""
    field = guidance.given(guidance.classifier_free(RING.vector_field(paths.linear()), scale, 8), 1)
    divergence, noise = likelihood.exact_divergence(field), jnp.array([0.3, -0.8])
    ts = np.linspace(0, 1, 513)
    log_p, x = likelihood.sample_log_density(solvers.heun, divergence, noise, ts)
    back, foot = likelihood.log_density(solvers.heun, divergence, x, ts[::-1].copy())
    np.testing.assert_allclose(log_p, back, atol=2e-3)
    np.testing.assert_allclose(foot, noise, atol=1e-3)
    plain = solvers.integrate(solvers.heun(field), jax.random.key(0), noise, ts)
    np.testing.assert_allclose(x, plain, rtol=1e-12)


def test_bits_of_uniform_levels_are_eight():
    """All 256 levels equally likely: log p = -D log 2 on [-1, 1]^D, eight bits a dimension."""
    bits = partial(likelihood.bits_per_dimension, num_dimensions=784)
    assert float(bits(-784 * np.log(2.0))) == pytest.approx(8.0, rel=1e-6)
    assert float(bits(0.0, value_range=1.0)) == 8.0
