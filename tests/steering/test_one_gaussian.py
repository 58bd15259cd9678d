"""On one Gaussian the posterior is known: where a rule is exact by its own theory it gives that very field."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import dawsn

from cfgjax import solvers, steering
from tests.steering.conftest import DIMENSION, field_of, measured, posterior_of

TIMES = (0.011, 0.2, 0.5, 0.8, 0.97)
VARIANCE = 0.7


POINTS = np.random.default_rng(1).normal(size=(3, DIMENSION))
NOISES = (0.05, 0.2, 1.0)


def _largest_error(found, exact):
    """The largest difference of two fields at some points, against the largest value."""
    points = jnp.asarray(POINTS)[:, None], jnp.asarray(TIMES)[None]
    x, t = (jnp.broadcast_to(each, (3, 5, *each.shape[2:])) for each in points)
    values = [jax.vmap(jax.vmap(field))(x, t) for field in (found, exact)]
    return jnp.max(jnp.abs(values[0] - values[1])) / jnp.max(jnp.abs(values[1]))


def _errors(path, law, measurement, *builds, noises=NOISES):
    """The largest errors of rules by the noise, [noises, builds]: one program for all noises."""

    def errors(noise_std):
        known = measurement._replace(noise_std=noise_std)
        exact = field_of(path, *posterior_of(*law, known))
        field = field_of(path, *law)
        return jnp.stack([_largest_error(build(field, known), exact) for build in builds])

    return np.asarray(jax.jit(jax.vmap(errors))(jnp.asarray(noises)))


def _spread(path, variance):
    """r^2(t) = beta^2 v / (alpha^2 v + beta^2), the variance of z given x for the covariance v I."""
    return lambda t: path.beta(t) ** 2 * variance / (path.alpha(t) ** 2 * variance + path.beta(t) ** 2)


def _strength(path):
    """The lambda of ``diffpir`` whose r^2 is that of the covariance v I."""
    return lambda t: 1 + path.beta(t) ** 2 / (path.alpha(t) ** 2 * VARIANCE)


def test_mmps_is_exact_for_every_covariance_and_operator(any_path, gaussian, rng):
    """With as many iterations as there are rows, and not with one."""
    path = any_path
    measurement = measured(rng.normal(size=(3, DIMENSION)), rng.normal(size=3), 0.0)
    builds = [partial(steering.mmps, path, num_iterations=count) for count in (3, 1)]
    exact, one = _errors(path, gaussian, measurement, *builds).T
    assert exact.max() < 1e-6
    assert one.min() > 1e-2


def test_tmpd_is_exact_for_one_measured_number(any_path, gaussian, rng):
    path = any_path
    measurement = measured(rng.normal(size=(1, DIMENSION)), rng.normal(size=1), 0.0)
    assert _errors(path, gaussian, measurement, partial(steering.tmpd, path)).max() < 1e-9


def test_tmpd_is_exact_where_its_diagonal_is(any_path, rng, x64):
    """For a diagonal covariance and rows that do not overlap; where they do it is not."""
    path, value = any_path, rng.normal(size=2)
    law = rng.normal(size=DIMENSION), np.diag(rng.uniform(0.1, 2.0, DIMENSION))
    apart = measured([[1.0, 2.0, 0, 0], [0, 0, 0.5, 0]], value, 0.0)
    assert _errors(path, law, apart, partial(steering.tmpd, path)).max() < 1e-9
    mixed = measured([[1.0, 2.0, 0, 0], [0, 1.0, 0.5, 0]], value, 0.0)
    assert _errors(path, law, mixed, partial(steering.tmpd, path)).min() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [3, 6])
def test_covariances_of_one_size_are_exact_on_such_a_law(plain_or_steep_path, rng, rank, x64):
    """For any A, of dependent rows and without noise, too; with another variance they are not."""
    path, matrix, mean = plain_or_steep_path, rng.normal(size=(rank, DIMENSION)), rng.normal(size=DIMENSION)
    law = mean, VARIANCE * np.eye(DIMENSION)
    measurement = measured(matrix, matrix @ rng.normal(size=DIMENSION), 0.0)
    exact = (
        partial(steering.pi_gdm, path, prior_variance=VARIANCE),
        partial(steering.diffpir, path, strength=_strength(path)),
    )
    other = partial(steering.pi_gdm, path, prior_variance=1.0), partial(steering.diffpir, path)
    errors = _errors(path, law, measurement, *exact, *other, noises=(0.0, *NOISES))
    assert errors[:, :2].max() < 1e-6
    assert errors[1:, 2:].min() > 1e-3


def test_a_linear_log_likelihood_is_exact(any_path, gaussian, rng):
    path, (mean, covariance) = any_path, gaussian
    slope = rng.normal(size=DIMENSION)

    def error():
        exact = field_of(path, mean + covariance @ slope, covariance)
        found = steering.universal(path, field_of(path, *gaussian), lambda z: jnp.sum(z * slope))
        return _largest_error(found, exact)

    assert jax.jit(error)() < 1e-9


def _orthogonal_rows(rng, square):
    return np.sqrt(square) * np.linalg.qr(rng.normal(size=(DIMENSION, 2)))[0].T


def _dps_scale(path, noise_std, square):
    return lambda t: noise_std**2 / (noise_std**2 + square * _spread(path, VARIANCE)(t))


def test_every_rule_is_exact_for_orthogonal_rows(any_path, rng, x64):
    """On the covariance v I: by its scale ``dps``, which by the scale 1 is not; the others by their settings."""
    path, law = any_path, (rng.normal(size=DIMENSION), VARIANCE * np.eye(DIMENSION))
    measurement = measured(_orthogonal_rows(rng, 1.7), rng.normal(size=2), 0.3)
    builds = (
        partial(steering.dps, path),
        partial(steering.dps, path, scale=_dps_scale(path, 0.3, 1.7)),
        partial(steering.pi_gdm, path, prior_variance=VARIANCE),
        partial(steering.tmpd, path),
        partial(steering.mmps, path, num_iterations=1),
        partial(steering.diffpir, path, strength=_strength(path)),
    )
    plain, *exact = _errors(path, law, measurement, *builds, noises=(0.3,))[0]
    assert max(exact) < 1e-6
    assert plain > 1e-2


def _affine_flow(solver, dimension, num_steps=400):
    """Mean and covariance at t = 1 of an ODE whose flow is affine, from N(0, I)."""
    ts = jnp.linspace(0.0, 1.0, num_steps + 1)

    def flow(x):
        return solvers.integrate(solver, jax.random.key(0), x, ts)

    starts = jnp.concatenate([jnp.zeros((1, dimension)), jnp.eye(dimension)])
    ends = np.asarray(jax.jit(jax.vmap(flow))(starts))
    slope = (ends[1:] - ends[0]).T
    return ends[0], slope @ slope.T


@pytest.mark.parametrize("rule", ["dps", pytest.param("mmps", marks=pytest.mark.slow)])
def test_samples_have_the_posteriors_mean_and_covariance(any_exact_path, rng, rule, x64):
    path = any_exact_path
    law = rng.normal(size=DIMENSION), VARIANCE * np.eye(DIMENSION)
    measurement = measured(_orthogonal_rows(rng, 1.7), rng.normal(size=2), 0.3)
    field = field_of(path, *law)
    steered = {
        "dps": lambda: steering.dps(path, field, measurement, _dps_scale(path, 0.3, 1.7)),
        "mmps": lambda: steering.mmps(path, field, measurement, num_iterations=2),
    }[rule]()
    mean, covariance = _affine_flow(solvers.heun(steered), DIMENSION)
    exact_mean, exact_covariance = posterior_of(*law, measurement)
    np.testing.assert_allclose(mean, exact_mean, atol=1e-3)
    np.testing.assert_allclose(covariance, exact_covariance, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, pytest.param(0.4, marks=pytest.mark.slow)])
def test_the_bias_of_dps_in_closed_form(any_exact_path, scale, x64):
    """On N(0, v), m = z + s n, its ODE ends at N(2 k^(1/2) Dawson(k^(1/2)) m, v exp(-2 k)), k = w v / (2 s^2).

    Of every path: with q = v alpha^2 / beta^2 its correction integrates to k / (1 + q) from q on.
    """
    path, variance, noise_std, value = any_exact_path, 0.9, 0.8, 1.3
    measurement = measured([[1.0]], [value], noise_std)
    field = field_of(path, np.zeros(1), np.full((1, 1), variance))
    steered = steering.dps(path, field, measurement, scale, start=1e-3)
    mean, covariance = _affine_flow(solvers.heun(steered), 1, 600)
    half = scale * variance / (2 * noise_std**2)
    np.testing.assert_allclose(mean, 2 * np.sqrt(half) * dawsn(np.sqrt(half)) * value, rtol=1e-3)
    np.testing.assert_allclose(covariance, variance * np.exp(-2 * half), rtol=1e-3)
