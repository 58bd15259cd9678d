"""Weights are never lost by accident: what comes out of bad rewards, in a trace and on the host."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import steering
from tests.steering.test_particles import BUILDERS, DIFFUSION, EVERY, FIELD, KEY, PATH, PLAIN, _noise, _solved, some


def _bad(value, start, x, t):
    """A reward that is ``value`` right of 0 from a time on."""
    return jnp.where((t > start) & (jnp.sum(x) > 0), value, 0.0 * jnp.sum(x))


@pytest.mark.parametrize("name", some(EVERY, "tilted", "twisted"))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_reward_that_is_no_number_is_found(name, value):
    found, _ = _solved(EVERY[name](partial(_bad, value, 0.5)), _noise(16), 8)
    assert np.all(np.isfinite(found.x))
    assert np.all(np.isnan(found.log_weights))
    with pytest.raises(ValueError, match=r"particles must have weights, got NaN: the reward was NaN or \+inf"):
        steering.draws(found, KEY)
    assert np.all(np.isnan(jax.jit(steering.draws)(found, KEY)))


@pytest.mark.parametrize("name", ["tilted", "twisted"])
def test_a_reward_that_is_no_number_at_the_start_is_refused(name):
    with pytest.raises(ValueError, match="log-weights at the start must be under inf"):
        _solved(BUILDERS[name](lambda x, t: jnp.nan * t), _noise(4), 2)


@pytest.mark.parametrize("name", some(EVERY, "twisted", "maximum, every 1"))
def test_a_reward_of_minus_infinity_is_a_weight_of_0(name):
    """Half of the line is forbidden, by a reward whose gradient there is NaN: no particle is drawn of it."""

    def reward(x, t):
        return jax.lax.cond(t > 0.9, lambda x: jnp.log(jnp.maximum(jnp.sum(x), 0.0)), lambda x: 0.0 * jnp.sum(x), x)

    found, _ = _solved(EVERY[name](reward), _noise(64), 20)
    assert np.all(np.isfinite(found.x))
    assert np.isfinite(found.log_normaliser)
    if name == "tilted":  # its reward has to be differentiable in time, and this one jumps
        return
    drawn = np.asarray(steering.draws(found, KEY, 1_000))
    assert drawn.shape == (1_000, 1)
    assert np.all(drawn > 0)


@pytest.mark.parametrize("name", some(EVERY, "twisted", "maximum, every 1"))
def test_where_all_weights_are_0_states_go_on_and_draws_are_refused(name):
    found, sizes = _solved(EVERY[name](lambda x, t: jnp.where(t > 0.5, -jnp.inf, 0.0 * jnp.sum(x))), _noise(16), 8)
    assert np.all(np.isfinite(found.x))
    assert np.all(found.log_weights == -np.inf)
    assert sizes[-1] == 0
    with pytest.raises(ValueError, match="particles must not all have the weight 0"):
        steering.draws(found, KEY)
    assert np.all(np.isnan(jax.jit(steering.draws)(found, KEY)))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_one_particle_is_no_law(threshold):
    """One of them has it all, with or without resampling."""
    found, _ = _solved(BUILDERS["smc"](lambda x, t: 300 * t * jnp.sum(x), threshold=threshold), _noise(16), 2)
    with pytest.raises(
        ValueError, match=r"particles must have an effective size of at least 2 at all times, got 1 of 16"
    ):
        steering.draws(found, KEY)
    assert np.all(np.isfinite(jax.jit(steering.draws)(found, KEY)))


def test_weights_that_were_lost_on_the_way_are_told_though_the_last_are_equal():
    """One particle has it all at half the time, its copies go apart after it: their sizes look well again."""
    found, sizes = _solved(BUILDERS["smc"](lambda x, t: jnp.where(t == 0.5, 300.0, 0.0) * jnp.sum(x)), _noise(16), 4)
    assert sizes[-1] > 15
    assert found.least_size == np.min(sizes)
    with pytest.raises(ValueError, match=r"an effective size of at least 2 at all times, got 1 of 16"):
        steering.draws(found, KEY)


def test_particles_that_a_program_closes_over_are_looked_at():
    """Their numbers are known while the program is traced, so that the error can speak."""
    found, _ = _solved(BUILDERS["smc"](lambda x, t: 300 * t * jnp.sum(x)), _noise(16), 2)
    with pytest.raises(ValueError, match="effective size of at least 2"):
        jax.jit(lambda key: steering.draws(found, key))(KEY)


def test_draws_have_the_weights():
    found, _ = _solved(BUILDERS["smc"](lambda x, t: 0.5 * t * jnp.sum(x), threshold=0.0), _noise(8), 4)
    drawn = np.asarray(steering.draws(found, KEY, 100_000))[:, 0]
    share = np.array([np.mean(drawn == x) for x in np.asarray(found.x)[:, 0]])
    np.testing.assert_allclose(share, np.exp(found.log_weights) / 8, atol=2e-5)


WRONG = {
    "must be one number for one example": lambda x, t: x,
    r"reward must be a function of \(x, t\), got one of \(x, t, y\), which wants a label": lambda x, t, y: 0.0,
    r"reward\(x, t\) must be one real number, got NoneType": lambda x, t: None,
}


@pytest.mark.parametrize("words", WRONG)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_reward_that_is_none_is_refused_while_it_is_traced(name, words):
    with pytest.raises((TypeError, ValueError), match=words):
        jax.eval_shape(lambda: _solved(EVERY[name](WRONG[words]), _noise(4), 2))


def test_what_makes_no_rewards_is_refused():
    with pytest.raises(ValueError, match=r"log_likelihood\(z\) must be one number"):
        steering.annealed(lambda z: z)(jnp.ones(2), jnp.float32(0.5))
    with pytest.raises(ValueError, match="y must be in"):
        steering.of_label(lambda x, t: jnp.zeros(3), 3)(jnp.ones(2), jnp.float32(0.5))
    with pytest.raises(ValueError, match="potential must be one number"):
        _solved(steering.fk_steering(PLAIN, lambda x, t: t, lambda seen, reward: jnp.ones(2)), _noise(4), 2)
    with pytest.raises(TypeError, match="which wants a label"):
        steering.tilted(PATH, lambda x, t, y: x, lambda x, t: t, DIFFUSION).step(
            KEY, BUILDERS["tilted"](lambda x, t: t).init(_noise(2)), jnp.float32(0), jnp.float32(1)
        )


def test_the_reward_of_the_denoised_estimate_by_hand():
    """D of N(1, 2) is 1 + 2 alpha (x - alpha) / (2 alpha^2 + beta^2); at t = 1 it is x, and the field is left alone."""
    reward = steering.of_denoised(PATH, lambda x, t: jnp.where(t >= 1, jnp.nan, FIELD(x, t)), jnp.sum, lambda t: 3 * t)
    x = jnp.array([0.7])
    for t in (0.0, 0.3, 0.8):
        denoised = 1 + 2 * t * (0.7 - t) / (2 * t**2 + (1 - t) ** 2)
        np.testing.assert_allclose(reward(x, jnp.float32(t)), 3 * t * denoised, rtol=1e-4)
    value, slope = jax.value_and_grad(reward)(x, jnp.float32(1))
    np.testing.assert_allclose([value, slope[0]], [2.1, 3.0], rtol=1e-6)


def test_a_schedule_of_0_leaves_no_reward():
    reward = steering.annealed(lambda z: jnp.where(z[0] > 0, 1.0, -jnp.inf))
    assert [float(reward(-jnp.ones(1), jnp.float32(t))) for t in (0, 0.5)] == [0.0, -np.inf]
    assert float(reward(jnp.ones(1), jnp.float32(0.5))) == 0.5


def test_the_reward_of_a_label():
    log_probs = lambda x, t: jnp.log(jnp.array([0.2, 0.3, 0.5]))  # noqa: E731
    np.testing.assert_allclose(steering.of_label(log_probs, 1, 2.0)(jnp.ones(1), 0.5), 2 * np.log(0.3), rtol=1e-6)
