"""(I1) and (I2): the guided ODE, weighted, has the tilted law, and effective sample sizes are those of closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis import importance, likelihood
from cfgjax.mixtures import LabelledMixture
from tests.support import guided_normal

PATH, NULL, LABEL = paths.linear(), 0, 1
NORMALS = LabelledMixture(jnp.ones(2), jnp.array([[0.0], [1.0]]), jnp.array([[[2.0]], [[1.0]]]))
TILTED = {2.0: (4 / 3, 2 / 3), 3.0: (1.5, 0.5)}
"""w -> mean and variance of N(0, 2)^(1-w) N(1, 1)^w."""
CANDIDATES = (1.0, 1.25, 1.5, 1.75, 2.0)


def _drawn(mixture, y, null, num_draws, num_steps=32):
    """(w', w) -> samples of the guided ODE at w' [n, D], with log-weights for the tilted law at w [n]."""
    field, density = mixture.vector_field(PATH), mixture.log_density(PATH)
    noise = jax.random.normal(jax.random.key(5), (num_draws, mixture.means.shape[-1]))
    ts = jnp.linspace(0.0, 1.0, num_steps + 1)

    def log_density(x, y):
        return density(x, jnp.asarray(1.0), y)

    @jax.jit
    def at(drawn_at, scale):
        guided = guidance.given(guidance.classifier_free(field, drawn_at, null), y)
        divergence = likelihood.exact_divergence(guided)
        one = partial(importance.weighted_sample, solvers.rk4, divergence, log_density)
        return jax.vmap(lambda noise: one(noise, ts, y, null, scale))(noise)

    return at


def _errors(points, log_weights, features, exact):
    """Weighted means less the exact ones, in standard errors."""
    points, log_weights = (np.asarray(each, np.float64) for each in (points, log_weights))
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    values = features(points)
    mean = weights @ values
    return np.abs(mean - exact) / np.sqrt(np.square(weights) @ np.square(values - mean))


def _share(scale, drawn_at):
    """The effective sample size over n, for many draws, of the tilted law among those of the guided ODE."""
    mean, variance = TILTED[scale]
    own_mean, own_variance = (float(each) for each in guided_normal._moments(PATH, jnp.asarray(1.0), drawn_at))
    left = 2 * own_variance - variance
    return np.sqrt(variance * left) / own_variance * np.exp(-((mean - own_mean) ** 2) / left)


@pytest.fixture(scope="module")
def normals():
    return _drawn(NORMALS, LABEL, NULL, 20_000)


@pytest.mark.parametrize("scale", sorted(TILTED))
def test_the_guided_ode_with_weights_has_the_tilted_law_of_two_gaussians(normals, scale):
    """Section 6 of the formulas: mean and variance within 3 standard errors, drawn at w' under w and at w' = 1.

    The ODE alone has other moments at w' = w, and effective sizes are those of the closed form.
    """
    mean, variance = TILTED[scale]

    def features(x):
        return np.concatenate([x, np.square(x - mean)], axis=1)

    for drawn_at in CANDIDATES:
        x, log_weights = normals(drawn_at, scale)
        assert np.max(_errors(x, log_weights, features, [mean, variance])) < 3
        share = float(solvers.effective_sample_size(log_weights)) / len(x)
        assert share == pytest.approx(_share(scale, drawn_at), rel=0.02 if drawn_at < scale else 0.1)
    x, _ = normals(scale, scale)
    assert np.min(_errors(x, np.zeros(len(x)), lambda x: x, [mean])) > 20


def test_a_smaller_scale_has_the_larger_effective_size(normals):
    for scale in TILTED:
        found, sizes = importance.scale_by_effective_size(
            lambda drawn_at, scale=scale: normals(drawn_at, scale)[1], jnp.asarray(CANDIDATES)
        )
        shares = [_share(scale, drawn_at) for drawn_at in CANDIDATES]
        assert found == CANDIDATES[np.argmax(shares)] < scale
        np.testing.assert_allclose(np.asarray(sizes)[:4] / 20_000, shares[:4], rtol=0.03)


def test_it_has_the_tilted_law_of_a_mixture(skewed):
    """In 2-D for w = 2 and a label, within 3 standard errors of quadrature; at w' = 1 weights are bounded."""
    y, scale, null = 1, 2.0, skewed.num_classes
    x, log_weights = _drawn(skewed, y, null, 8_000)(1.0, scale)
    ticks = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    log_density = mixtures.guided_log_density(skewed, lambda z: 0.0, scale)
    on_grid = np.asarray(jax.jit(jax.vmap(lambda z: log_density(z, y)))(jnp.asarray(grid)), np.float64)
    exact = np.exp(on_grid - on_grid.max())
    exact /= exact.sum()

    def features(x):
        return np.concatenate([x, x[:, :1] * x, x[:, 1:] ** 2], axis=1)

    assert np.max(_errors(x, log_weights, features, exact @ features(grid))) < 3
    assert np.max(_errors(x, np.zeros(len(x)), features, exact @ features(grid))) > 6
    assert float(solvers.effective_sample_size(log_weights)) > 7_000
    assert np.max(log_weights) < (1 - scale) * jnp.log(skewed.weights[y, 0]) + 0.01


def test_log_densities_of_a_network_are_those_of_solves(skewed):
    """As the docstring composes them: for the oracle's field within the solver's error of its own log-density."""
    field, ts, y, null = skewed.vector_field(PATH), jnp.linspace(0.0, 1.0, 65), 1, skewed.num_classes
    guided = likelihood.exact_divergence(guidance.given(guidance.classifier_free(field, 1.5, null), y))

    def by_solve(x, y):
        own = likelihood.exact_divergence(guidance.given(field, y))
        return likelihood.log_density(solvers.heun, own, x, ts[::-1])[0]

    noise = jnp.array([0.4, -1.1])
    pair = [
        importance.weighted_sample(solvers.heun, guided, log_density, noise, ts, y, null, 2.0)
        for log_density in (by_solve, lambda x, y: skewed.log_density(PATH)(x, 1.0, y))
    ]
    np.testing.assert_array_equal(pair[0][0], pair[1][0])
    np.testing.assert_allclose(pair[0][1], pair[1][1], atol=0.02)


def test_a_weight_is_its_formula_and_an_impossible_point_counts_not_at_the_scale_that_leaves_it_out():
    assert importance.guided_log_weight(-1.0, -2.5, -0.5, 3.0) == pytest.approx(-2 * -1.0 + 3 * -2.5 + 0.5)
    assert importance.guided_log_weight(-jnp.inf, -2.5, -0.5, 1.0) == -2.0
    assert importance.guided_log_weight(-1.0, -jnp.inf, -0.5, 0.0) == -0.5
    assert importance.guided_log_weight(-1.0, -jnp.inf, -0.5, 2.0) == -jnp.inf


@pytest.mark.parametrize("lost", [-jnp.inf, jnp.nan])
def test_weights_that_are_all_lost_are_told(lost):
    with pytest.raises(ValueError, match=r"candidates must have weights that are of use: the effective sample size"):
        importance.scale_by_effective_size(lambda scale: jnp.full(5, lost), jnp.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="log_weights must be under inf, and one of them finite"):
        solvers.effective_sample_size(jnp.full(5, lost))
    best, sizes = importance.scale_by_effective_size(
        lambda scale: jnp.where(scale > 1.5, lost, jnp.zeros(5)), jnp.array([1.0, 2.0])
    )
    assert best == 1 and sizes.tolist() == pytest.approx([5, 0], abs=1e-4)
