"""Optimizers that one NaN would end (T7), and those whose parameters are not the ones to evaluate (T8)."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from cfgjax import training

PARAMS = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
SGD, ADAM = optax.sgd(0.1), optax.adam(0.1)
guarded = partial(optax.apply_if_finite, max_consecutive_errors=1000)
accumulating = partial(optax.MultiSteps, every_k_schedule=2)
PARTS = {"a": "a", "b": "b"}

ENDED = {
    "inside MultiSteps": accumulating(guarded(SGD)),
    "deep inside MultiSteps": accumulating(optax.chain(optax.clip(1.0), guarded(ADAM))),
    "masked inside MultiSteps": accumulating(optax.masked(guarded(SGD), {"a": True, "b": True})),
    "of hyperparameters": accumulating(optax.inject_hyperparams(lambda rate: guarded(optax.sgd(rate)))(rate=0.1)),
    "of parts": accumulating(optax.multi_transform({"a": guarded(SGD), "b": guarded(ADAM)}, PARTS)),
    "zeros inside MultiSteps": accumulating(optax.chain(optax.zero_nans(), SGD)),
    "behind moments": optax.chain(optax.scale_by_adam(), guarded(optax.scale(-0.1))),
    "behind a trace": optax.chain(optax.trace(0.9), optax.chain(optax.zero_nans(), SGD)),
    "named": optax.named_chain(("moments", optax.scale_by_adam()), ("guard", guarded(optax.scale(-0.1)))),
    "one part": optax.multi_transform({"a": optax.chain(optax.trace(0.9), guarded(SGD)), "b": guarded(SGD)}, PARTS),
}
RECOVERING = {
    "outside MultiSteps": guarded(accumulating(SGD)),
    "both": guarded(accumulating(guarded(SGD))),
    "skipped": accumulating(guarded(SGD), should_skip_update_fn=optax.skip_not_finite),
    "outside of a chain": guarded(optax.chain(optax.clip(1.0), ADAM)),
    "in a chain": optax.chain(optax.clip(1.0), guarded(ADAM)),
    "hyperparameters before": optax.chain(optax.inject_hyperparams(optax.clip)(max_delta=1.0), guarded(ADAM)),
    "parts": optax.multi_transform({"a": guarded(SGD), "b": guarded(ADAM)}, PARTS),
    "averages outside": contrib.schedule_free(guarded(SGD), 0.1),
}


def _after_one_nan(optimizer):
    """The parameters after 12 updates by gradients of 1, but the third, which is NaN."""

    def update(carry, slope):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda leaf: slope + 0 * leaf, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    slopes = jnp.ones(12).at[2].set(jnp.nan)
    (params, _), _ = jax.jit(lambda: jax.lax.scan(update, (PARAMS, optimizer.init(PARAMS)), slopes))()
    return jax.tree.leaves(params)


def _moves_on(optimizer):
    return all(np.all(np.isfinite(leaf)) and np.all(leaf < -0.3) for leaf in _after_one_nan(optimizer))


def _create(optimizer, params=None):
    return training.init_state(PARAMS if params is None else params, optimizer, jax.random.key(0))


def _loss(params, key, example):
    return jnp.sum(jnp.square(params["a"] - 1)) + 0 * example


@pytest.mark.parametrize("optimizer", list(ENDED.values()), ids=list(ENDED))
def test_an_optimizer_that_one_nan_ends_is_refused(optimizer):
    """Optax 0.2.8: ``MultiSteps`` empties its accumulator by 0 * NaN; should it recover, it may be taken."""
    assert not _moves_on(optimizer)
    with pytest.raises(ValueError, match=r"optax\.apply_if_finite around all the rest"):
        _create(optimizer)


def test_it_is_refused_by_the_step_too():
    """A state may come from elsewhere than ``create``."""
    optimizer = ENDED["inside MultiSteps"]
    state = _create(SGD)._replace(opt_state=optimizer.init(PARAMS))
    with pytest.raises(ValueError, match="optimizer must leave out what is not finite before it is accumulated"):
        jax.eval_shape(training.make_step(_loss, optimizer, 0.9), state, jnp.zeros(4))


@pytest.mark.parametrize("optimizer", list(RECOVERING.values()), ids=list(RECOVERING))
def test_an_optimizer_that_goes_on_after_one_nan_is_taken(optimizer):
    assert _moves_on(optimizer)
    _create(optimizer)


def test_a_pair_of_parameters_is_refused():
    for params in (PARAMS, optax.LookaheadParams.init_synced(PARAMS)):
        with pytest.raises(ValueError, match=r"optax.lookahead takes a pair \(fast, slow\) in their place"):
            _create(optax.lookahead(SGD, 5, 0.5), params)


NUM_STEPS = 6


def _schedule_free_by_hand(beta=0.75, rate=0.125):
    """z, x and y of Defazio et al., arXiv 2405.15682 (1) to (3), for (y - 1)^2 per entry, from 0; and x's EMA."""
    z = x = y = ema = 0.0
    for number in range(1, NUM_STEPS + 1):
        z -= rate * 2 * (y - 1)
        x += (z - x) / number
        y = (1 - beta) * z + beta * x
        ema = 0.5 * ema + 0.5 * x
    return {"x": x, "y": y, "ema": ema}


SCHEDULE_FREE = contrib.schedule_free_sgd(0.125, b1=0.75)
WRAPPED = {
    "alone": SCHEDULE_FREE,
    "chain": optax.chain(optax.clip(100.0), SCHEDULE_FREE),
    "guarded": guarded(SCHEDULE_FREE),
    "MultiSteps": optax.MultiSteps(SCHEDULE_FREE, 1),
    "parts": optax.multi_transform({"a": SCHEDULE_FREE, "b": SGD}, PARTS),
    "masked": optax.masked(SCHEDULE_FREE, {"a": True, "b": False}),
}


@pytest.mark.parametrize("optimizer", list(WRAPPED.values()), ids=list(WRAPPED))
def test_the_averages_of_a_schedule_free_optimizer_are_of_the_parameters_to_evaluate(optimizer):
    """``state.params`` is y; Optax's own ``schedule_free_eval_params`` knows no optimizer around it (0.2.8)."""
    step = jax.jit(training.make_step(_loss, optimizer, 0.5, average_decays=(0.5,)))
    state = training.init_state(PARAMS, optimizer, jax.random.key(0), num_averages=1)
    for _ in range(NUM_STEPS):
        state, _ = step(state, jnp.zeros(4))
    expected = _schedule_free_by_hand()
    assert abs(expected["x"] - expected["y"]) > 0.05
    np.testing.assert_allclose(state.params["a"], expected["y"], rtol=1e-5)
    np.testing.assert_allclose(training.eval_params(state)["a"], expected["x"], rtol=1e-5)
    np.testing.assert_allclose(state.ema["a"], expected["ema"], rtol=1e-5)
    np.testing.assert_allclose(state.averages[0]["a"], expected["ema"], rtol=1e-5)
    np.testing.assert_array_equal(training.eval_params(state)["b"], state.params["b"])


def test_the_parameters_to_evaluate_keep_their_type():
    params = {"a": jnp.zeros(2, jnp.bfloat16)}
    state = training.init_state(params, SCHEDULE_FREE, jax.random.key(0))
    state, _ = jax.jit(training.make_step(_loss, SCHEDULE_FREE, 0.0))(state, jnp.zeros(4))
    assert training.eval_params(state)["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(state.ema["a"], 0.25, rtol=1e-2)


def test_the_averages_of_sam_are_of_the_parameters_before_the_ascent():
    """Two calls are one step: the first climbs by 0.5 along the gradient's direction, the second descends from there.

    From 0 on (a - 1)^2 in one dimension: up to -0.5, where the slope is -3, and from 0 by 0.1 to 0.3.
    """
    climbing = optax.chain(contrib.normalize(), optax.sgd(0.5))
    optimizer = contrib.sam(SGD, climbing, sync_period=2)
    state = _create(optimizer, {"a": jnp.zeros(1)})
    run, seen = training.parallel(training.make_step(_loss, optimizer, 0.0), jax.devices()[:2]), []
    for _ in range(2):
        state, _ = run(state, jnp.zeros((2, 2)))
        seen.append((float(state.params["a"][0]), float(state.ema["a"][0])))
    np.testing.assert_allclose(seen, [(-0.5, 0.0), (0.3, 0.3)], atol=1e-6)


def test_plain_optimizers_evaluate_the_parameters_themselves():
    for optimizer in (SGD, ADAM, contrib.prodigy(1.0), contrib.ademamix(0.1), contrib.mechanize(SGD)):
        state = _create(optimizer)._replace(params=jax.tree.map(jnp.ones_like, PARAMS))
        jax.tree.map(np.testing.assert_array_equal, training.eval_params(state), state.params)


def test_named_chains_keep_their_order():
    """Which the check of (T7) reads from the state."""
    assert type(ENDED["named"].init(PARAMS)) is OrderedDict
