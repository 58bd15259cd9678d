"""Frozen parameters: bitwise what they were (T9), the others as if they were alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import training
from cfgjax.training import freezing, fsdp
from tests.training.test_training import _batch, _loss, _params

FROZEN = {"inner": True, "outer": False, "label": True}
OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.05), optax.adamw(1e-2, weight_decay=0.5))
"""Whose clipping acts at every step, and whose decay would move what has no gradient."""
NUM_STEPS = 3


def _start(frozen=FROZEN, optimizer=OPTIMIZER):
    params = _params() | {"label": -jnp.zeros((3, 8))}  # a sum with an update of 0 makes +0.0 of -0.0
    return training.init_state(params, freezing.of_optimizer(optimizer, frozen), jax.random.key(1), 1)


def _step(frozen=FROZEN, optimizer=OPTIMIZER):
    held = freezing.of_optimizer(optimizer, frozen)
    step = training.make_step(freezing.of_loss(_loss, frozen), held, 0.9, 2, average_decays=(0.5,))
    return freezing.of_step(step, frozen)


def _bits(leaf):
    return np.asarray(leaf).view(np.uint32)


def _assert_kept(state, start):
    for name in ("inner", "label"):
        for tree in (state.params, state.ema, *state.averages):
            np.testing.assert_array_equal(_bits(tree[name]), _bits(start.params[name]))
    for tree in (state.params, state.ema, *state.averages):
        assert not np.any(np.asarray(tree["outer"]) == np.asarray(start.params["outer"]))


def _by_hand(start):
    """AdamW on the one array that is trained, by jax.grad of the mean loss: its array and gradient norms."""
    outer, opt_state = start.params["outer"], OPTIMIZER.init(start.params["outer"])
    norms = []
    for index in range(NUM_STEPS):
        keys, batch = training.example_keys(start.key, index, 16), _batch(index)

        def mean_loss(outer, keys=keys, batch=batch):
            return jnp.mean(jax.vmap(_loss, (None, 0, 0))(start.params | {"outer": outer}, keys, batch))

        gradient = jax.grad(mean_loss)(outer)
        norms.append(float(jnp.linalg.norm(gradient)))
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, outer)
        outer = optax.apply_updates(outer, updates)
    return outer, norms


@pytest.mark.parametrize(
    ("make_run", "num_devices"), [(training.parallel, 1), (training.parallel, 8), (partial(fsdp.fsdp, least=16), 8)]
)
def test_one_array_is_trained_as_if_it_were_alone_and_the_others_keep_their_bits(make_run, num_devices):
    start = _start()
    expected, norms = _by_hand(start)
    state, run, found = start, make_run(_step(), jax.devices()[:num_devices], donate=False), []
    for index in range(NUM_STEPS):
        state, metrics = run(state, training.shard(_batch(index), num_devices))
        found.append(float(metrics["grad_norm"]))
    _assert_kept(state, start)
    np.testing.assert_allclose(state.params["outer"], expected, rtol=1e-5)
    np.testing.assert_allclose(found, norms, rtol=1e-5)
    assert min(norms) > 0.05


def test_the_optimizer_keeps_nothing_of_what_is_frozen():
    shapes = [leaf.shape for leaf in jax.tree.leaves(_start().opt_state)]
    assert sorted(shapes) == [(), (8, 2), (8, 2)]


def test_a_mean_that_is_not_finite_changes_no_bit_of_what_is_frozen():
    batch = _batch(0)
    batch["z"] = batch["z"].at[0].set(jnp.nan)
    start = _start()
    state, _ = jax.jit(_step())(start, batch)
    for name in ("inner", "label"):
        np.testing.assert_array_equal(_bits(state.params[name]), _bits(start.params[name]))
    assert np.all(np.isnan(state.params["outer"]))


def test_with_nothing_frozen_it_is_the_step_itself():
    nothing = dict.fromkeys(FROZEN, False)
    plain = training.init_state(_start().params, OPTIMIZER, jax.random.key(1), 1)
    step = training.make_step(_loss, OPTIMIZER, 0.9, 2, average_decays=(0.5,))
    expected, _ = jax.jit(step)(plain, _batch(0))
    found, _ = jax.jit(_step(nothing))(_start(nothing), _batch(0))
    for name in ("params", "ema", "averages"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(expected, name))


def test_parameters_of_another_structure_are_refused():
    with pytest.raises(ValueError, match="frozen must have the structure of the parameters, got"):
        freezing.of_loss(_loss, {"inner": True, "outer": False})(_params(), jax.random.key(0), None)
    with pytest.raises(ValueError, match="frozen must have the structure of the parameters, got"):
        freezing.of_step(_step(), {"inner": True, "outer": False})(_start(), _batch(0))


@pytest.mark.parametrize(("frozen", "kind"), [(dict.fromkeys(FROZEN, True), ValueError), ({}, TypeError)])
def test_all_or_nothing_at_all_cannot_be_frozen(frozen, kind):
    with pytest.raises(kind, match="frozen must"):
        freezing.of_optimizer(OPTIMIZER, frozen)
