"""What guidance by several conditions does to ONE Gaussian over (x, a, b), in closed form.

Every p(x | subset) is a Gaussian N(m, s^2) here, so any combination of weights w_i that sum to 1 has an affine flow,
whose end has variance prod s_i^(2 w_i) for EVERY path with exact ends, and a mean that solves
m' = sum w_i [V_i' / (2 V_i) (m - alpha m_i) + alpha' m_i], V_i = alpha^2 s_i^2 + beta^2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from cfgjax import conditions, guidance, paths, solvers
from cfgjax.conditions import known
from cfgjax.mixtures import JointMixture, LabelledMixture

COVARIANCE = np.array([[1.5, 0.9, -0.5], [0.9, 1.2, 0.2], [-0.5, 0.2, 0.9]])
MEAN = np.array([0.3, -0.2, 0.4])
VALUES = {"a": 1.1, "b": -0.6}
JOINT = JointMixture(
    LabelledMixture(jnp.ones(1), jnp.asarray(MEAN)[None], jnp.asarray(COVARIANCE)[None]), {"a": 1, "b": 1}
)
Y = {"label": jnp.asarray(0)} | {name: known(jnp.array([value])) for name, value in VALUES.items()}
SCALES = np.array([1.0, 2.0, 3.0])
SUBSETS = {"a alone": ("a",), "b alone": ("b",), "both": ("a", "b")}


@pytest.fixture
def path(plain_or_steep_path):
    return plain_or_steep_path


def _law(names):
    """Mean and variance of p(x | names)."""
    rows = [1 + "ab".index(name) for name in names]
    gain = np.linalg.solve(COVARIANCE[np.ix_(rows, rows)], COVARIANCE[rows, 0]) if rows else np.zeros(0)
    apart = np.array([VALUES[name] for name in names]) - MEAN[rows]
    return MEAN[0] + gain @ apart, COVARIANCE[0, 0] - gain @ COVARIANCE[rows, 0]


def _end(laws, weights):
    """Mean and variance at t = 1 of the flow of sum_i w_i u_i, by the formulas above on the straight path."""
    means, variances = np.array(laws).T

    def slope(t, mean):
        spread = t**2 * variances + (1 - t) ** 2
        growth = (t * variances - (1 - t)) / spread
        return np.array([np.sum(weights * (growth * (mean[0] - t * means) + means))])

    mean = solve_ivp(slope, (0, 1), [0.0], rtol=1e-10, atol=1e-12).y[0, -1]
    return mean, np.prod(variances**weights)


def _given(names):
    """y, of which these vectors alone are known."""
    return JOINT.null | {name: Y[name] for name in ("label", *names)}


def _flow(path, guided, y=Y, num_steps=200):
    """Mean and variance of the guided flow's end, from the ends of -1, 0 and 1; it is affine."""

    def end(x):
        solver = solvers.heun(guidance.given(guided, y))
        return solvers.integrate(solver, jax.random.key(0), jnp.full((1,), x), jnp.linspace(0, 1, num_steps + 1))[0]

    low, mean, high = jax.vmap(end)(jnp.array([-1.0, 0.0, 1.0]))
    return mean, jnp.square(0.5 * (high - low))


@pytest.mark.parametrize("names", SUBSETS.values(), ids=SUBSETS)
def test_the_guided_flow_of_every_subset_ends_in_the_closed_form(names, path):
    """Mean and variance within 0.5 % at w = 1, 2, 3; the conditions that are left out, on both sides."""
    field, y = JOINT.vector_field(path), _given(names)
    sweep = jax.jit(jax.vmap(lambda w: _flow(path, guidance.classifier_free(field, w, JOINT.null), y)))
    found = np.stack(sweep(jnp.asarray(SCALES)), axis=-1)
    expected = [_end([_law(()), _law(names)], np.array([1 - w, w])) for w in SCALES]
    np.testing.assert_allclose(found, expected, rtol=5e-3)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")], ids="-".join)
def test_the_flow_of_a_chain_ends_in_the_closed_form(order, path):
    """(S1) with the scales 2.5 and 1.7: weights 1 - w_1, w_1 - w_2 and w_2."""
    scales = dict(zip(order, (2.5, 1.7), strict=True))
    field = JOINT.vector_field(path)
    found = jax.jit(lambda: _flow(path, guidance.classifier_free_chain(field, scales, JOINT.null, order)))()
    expected = _end([_law(()), _law(order[:1]), _law(order)], np.array([-1.5, 0.8, 1.7]))
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_the_flow_of_a_product_ends_in_the_closed_form(path):
    """(S2): weights 1 - w_a - w_b, w_a and w_b."""
    scales = {"a": 1.4, "b": 0.8}
    guided = guidance.classifier_free_product(JOINT.vector_field(path), scales, JOINT.null)
    found = jax.jit(lambda: _flow(path, guided))()
    expected = _end([_law(()), _law(("a",)), _law(("b",))], np.array([-1.2, 1.4, 0.8]))
    np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_the_formula_on_numbers_that_were_solved_by_hand():
    """Laws N(0, 2), N(1, 1) and N(1.5, 0.6) at w = 2.5 and 1.7: variance 2^-1.5 0.6^1.7."""
    _, variance = _end([(0.0, 2.0), (1.0, 1.0), (1.5, 0.6)], np.array([-1.5, 0.8, 1.7]))
    np.testing.assert_allclose(variance, 0.148358397, rtol=1e-8)


def _moments_of_diffusion(laws, weights):
    """Mean and variance at t = 1 of dX = [u + beta s] dt + sqrt(2 beta) dW for sum_i w_i (u_i, s_i), straight path."""
    means, variances = np.array(laws).T

    def slope(t, state):
        mean, variance = state
        spread = t**2 * variances + (1 - t) ** 2
        growth, pull = (t * variances - (1 - t)) / spread, -1 / spread
        rate = np.sum(weights * (growth + (1 - t) * pull))
        shift = np.sum(weights * (means - (growth + (1 - t) * pull) * t * means))
        return np.array([rate * mean + shift, 2 * rate * variance + 2 * (1 - t)])

    return solve_ivp(slope, (0, 1), [0.0, 1.0], rtol=1e-9, atol=1e-12).y[:, -1]


@pytest.mark.parametrize("scales", [(2.0, 2.0), (2.5, 1.7)], ids=str)
def test_the_guided_diffusion_ends_in_its_moments(scales):
    """Of a chain, within four standard errors of 10,000 samples and the steps' own 1e-3."""
    path, size = paths.linear(), 10_000
    order, diffusion = ("a", "b"), solvers.root_beta(paths.linear())
    guided = guidance.classifier_free_chain(
        JOINT.vector_field(path), dict(zip(order, scales, strict=True)), JOINT.null, order
    )

    def draw(key):
        noise_key, solver_key = jax.random.split(key)
        solver = solvers.euler_maruyama(path, guidance.given(guided, Y), diffusion)
        return solvers.integrate(solver, solver_key, jax.random.normal(noise_key, (1,)), jnp.linspace(0, 1, 401))[0]

    x = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(7), size)), np.float64)
    weights = np.array([1 - scales[0], scales[0] - scales[1], scales[1]])
    mean, variance = _moments_of_diffusion([_law(()), _law(("a",)), _law(order)], weights)
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / size) + 1e-3
    assert abs(x.var() - variance) < 4 * variance * np.sqrt(2 / size) + 1e-3


@pytest.mark.parametrize("names", SUBSETS.values(), ids=SUBSETS)
def test_the_tilted_law_of_every_subset(names):
    """p(x)^(1-w) p(x|names)^w at w = 2, a Gaussian, by 20 populations of 1,000: within three standard errors."""
    path, scale, absent = paths.linear(), 2.0, conditions.without(JOINT.null, *names)

    @jax.jit
    @jax.vmap
    def population(key):
        noise_key, solver_key = jax.random.split(key)
        pair = guidance.pair(JOINT.vector_field(path), absent)
        solver = solvers.feynman_kac(path, pair, _given(names), scale, solvers.constant(1.0))
        noise = jax.random.normal(noise_key, (1000, 1))
        particles, _ = solvers.solve(solver, solver_key, noise, jnp.linspace(0, 1, 201))
        weights = jax.nn.softmax(particles.log_weights)
        mean = weights @ particles.x[:, 0]
        return jnp.stack([mean, weights @ jnp.square(particles.x[:, 0] - mean)])

    found = np.asarray(population(jax.random.split(jax.random.key(3), 20)), np.float64)
    (null_mean, null_variance), (mean, variance) = _law(()), _law(names)
    precision = (1 - scale) / null_variance + scale / variance
    exact = np.array([((1 - scale) * null_mean / null_variance + scale * mean / variance) / precision, 1 / precision])
    assert np.all(np.abs(found.mean(axis=0) - exact) < 3 * found.std(axis=0, ddof=1) / np.sqrt(len(found)) + 2e-3)
