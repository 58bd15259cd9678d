"""(W1) to (W3): weights of a population, those that are 0 and those that are no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import solvers
from cfgjax.solvers.population import Particle
from cfgjax.types import Solver, State

KEY = jax.random.key(5)
TS = jnp.linspace(0, 1, 4)


def _one(increment, start=lambda x: jnp.zeros(())):
    """A particle that stands still and adds ``increment(x, t_next)`` to its log-weight."""

    def step(key, carry, t, t_next):
        return Particle(carry.carry, increment(carry.x, t_next))

    return Solver(lambda x: Particle(State(x), start(x)), step, is_forward_only=True)


def _particles(one, x, threshold=0.0, observe=None):
    return solvers.solve(solvers.population(one, threshold), KEY, jnp.asarray(x), TS, observe)


def test_the_effective_size_by_hand():
    """(1 + 2 + 5)^2 / (1 + 4 + 25), whatever factor the weights have."""
    for shift in (0.0, 500.0, -500.0):
        found = solvers.effective_sample_size(jnp.log(jnp.array([1.0, 2.0, 5.0])) + shift)
        np.testing.assert_allclose(found, 64 / 30, rtol=1e-4)


def test_weights_from_the_start_count():
    """With a log-weight x at the start and none after: the mean of exp(x), the weights and the size, at each time."""
    x = np.array([0.0, 1.0, -2.0, 0.5])
    found, seen = _particles(
        _one(lambda x, t: jnp.zeros(()), lambda x: x),
        x,
        observe=lambda carry, t: (carry.log_normaliser, carry.effective_size, carry.num_steps),
    )
    weights = np.exp(x)
    np.testing.assert_allclose(seen[0], np.log(weights.mean()), rtol=1e-5)
    np.testing.assert_allclose(seen[1], weights.sum() ** 2 / np.sum(weights**2), rtol=1e-5)
    np.testing.assert_allclose(np.exp(found.log_weights), weights / weights.mean(), rtol=1e-5)
    np.testing.assert_array_equal(seen[2], np.arange(4))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_weight_of_0_stays_0_or_is_replaced(threshold):
    """One particle has weight 0 from the first step on, though its further increments are -inf less -inf."""
    one = _one(lambda x, t: jnp.where(x > 0, 0.0, jnp.where(t < 0.5, -jnp.inf, jnp.nan)))
    found, _ = _particles(one, [1.0, -1.0, 2.0, 3.0], threshold)
    np.testing.assert_allclose(found.log_normaliser, np.log(0.75), rtol=1e-5)
    if threshold:
        assert np.all(np.asarray(found.x) > 0)
        np.testing.assert_array_equal(found.log_weights, 0)
    else:
        np.testing.assert_allclose(np.exp(found.log_weights), np.array([1, 0, 1, 1]) / 0.75, rtol=1e-5)
        np.testing.assert_allclose(found.effective_size, 3, rtol=1e-5)


def test_where_all_weights_are_0_the_states_go_on():
    found, sizes = _particles(
        _one(lambda x, t: jnp.where(t < 0.5, 0.0, -jnp.inf)),
        [1.0, 2.0],
        1.0,
        observe=lambda carry, t: carry.effective_size,
    )
    np.testing.assert_array_equal(found.x, [1, 2])
    np.testing.assert_array_equal(found.log_weights, -np.inf)
    np.testing.assert_allclose(sizes, [2, 2, 0, 0], rtol=1e-6)
    assert found.log_normaliser == -np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_an_increment_that_is_no_number_is_seen_in_every_weight(bad, threshold):
    one = _one(lambda x, t: jnp.where((x > 1) & (t > 0.5) & (t < 0.9), bad, 0.0))
    found, _ = _particles(one, [1.0, 2.0, 1.0], threshold)
    np.testing.assert_array_equal(np.sort(found.x), [1, 1, 2])
    assert np.all(np.isnan(found.log_weights))
    assert np.isnan(found.log_normaliser)
    assert np.isnan(found.effective_size)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_lost_at_the_start_are_refused(bad):
    one = _one(lambda x, t: jnp.zeros(()), lambda x: jnp.full((), bad))
    with pytest.raises(ValueError, match="log-weights at the start must be under inf, and one of them finite"):
        _particles(one, [1.0, 2.0])


def test_the_normaliser_is_unbiased_with_few_particles():
    """E exp(sum of x t) of still particles x ~ N(0, 1), by 3 of them with resampling: e^2 over 40,000 populations."""

    def estimate(key):
        one = _one(lambda x, t: x * jnp.where(t > 0.9, 1.0, 0.5))
        x = jax.random.normal(key, (3,)) / 2
        return jnp.exp(solvers.solve(solvers.population(one, 0.9), key, x, TS)[0].log_normaliser)

    found = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 40_000)))
    exact = np.exp(0.5)
    assert abs(found.mean() - exact) < 4 * found.std() / 200
    assert found.std() / 200 < 0.03 * exact
