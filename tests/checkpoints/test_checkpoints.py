"""Checkpoints: whole, bit-equal, of the tree that was asked for, or a CheckpointError that names the folder."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import checkpoints, training

OPTIMIZER = optax.adam(1e-3)


def _state(step=3, width=4):
    params = {"dense": {"kernel": jax.random.normal(jax.random.key(step), (width, 2)), "bias": jnp.arange(2.0)}}
    state = training.init_state(params, OPTIMIZER, jax.random.key(7))
    gradient = jax.tree.map(jnp.cos, params)
    _, opt_state = OPTIMIZER.update(gradient, state.opt_state, params)
    return state._replace(step=jnp.int32(step), opt_state=opt_state)


def _save(folder, *steps):
    with checkpoints.Writer(folder) as writer:
        for step in steps:
            writer.save(step, _state(step), {"step": step})


def _assert_same(found, expected):
    plain = [jax.tree.map(_numbers, tree) for tree in (found, expected)]
    assert jax.tree.structure(plain[0]) == jax.tree.structure(plain[1])
    jax.tree.map(np.testing.assert_array_equal, *plain)
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, expected)


def _numbers(leaf):
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _like():
    """A state of the right tree and other numbers."""
    return jax.tree.map(lambda leaf: leaf if leaf.dtype == jax.random.key(0).dtype else jnp.zeros_like(leaf), _state(0))


def test_a_restored_state_is_bit_equal(tmp_path):
    """Parameters, EMA, optimizer state, step and the typed key."""
    _save(tmp_path, 3)
    found = checkpoints.restore(tmp_path, _like()._replace(key=jax.random.key(0))).state
    _assert_same(found, _state(3))
    np.testing.assert_array_equal(jax.random.normal(found.key, (3,)), jax.random.normal(jax.random.key(7), (3,)))


def test_training_goes_on_as_if_never_stopped(tmp_path):
    """Six steps, or three, a restart and three more: the same bits."""
    step = jax.jit(training.make_step(lambda params, key, z: jnp.sum((params["a"] - z) ** 2), OPTIMIZER, 0.9))
    start = training.init_state({"a": jnp.ones(2)}, OPTIMIZER, jax.random.key(0))

    def run(state, num_steps):
        for _ in range(num_steps):
            state, _ = step(state, jnp.arange(8.0).reshape(4, 2) / (1 + state.step))
        return state

    middle = run(start, 3)
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(3, middle, {})
    _assert_same(run(checkpoints.restore(tmp_path, start).state, 3), run(start, 6))


def test_a_replicated_state_is_restored_to_its_devices(tmp_path):
    state = training.replicate(_state(3))
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(3, state, {})
    found = checkpoints.restore(tmp_path, state).state
    _assert_same(found, _state(3))
    assert found.params["dense"]["kernel"].sharding == state.params["dense"]["kernel"].sharding


def test_latest_and_the_number_kept(tmp_path):
    assert checkpoints.latest_step(tmp_path / "none") is None
    assert checkpoints.latest_step(tmp_path) is None
    _save(tmp_path, 1, 5, 12, 20)
    assert checkpoints.latest_step(tmp_path) == 20
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == [12, 20]


def test_an_older_step_may_be_asked_for(tmp_path):
    _save(tmp_path, 1, 5)
    _assert_same(checkpoints.restore(tmp_path, _like(), step=1).state, _state(1))
    _assert_same(checkpoints.restore(tmp_path, _like()).state, _state(5))


def test_saving_returns_before_it_is_whole_and_closing_waits(tmp_path):
    """The state may be donated as soon as ``save`` is back: what is written is the value then."""
    with checkpoints.Writer(tmp_path) as writer:
        state = _state(3)
        writer.save(3, state, {})
        for leaf in jax.tree.leaves(state.params):
            leaf.delete()
    _assert_same(checkpoints.restore(tmp_path, _like()).state, _state(3))


def _with_averages(state, number):
    return state._replace(averages=tuple(jax.tree.map(lambda leaf, i=i: leaf + i, state.ema) for i in range(number)))


def test_averages_are_restored_with_the_state(tmp_path):
    state = _with_averages(_state(3), 2)
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(3, state, {})
    _assert_same(checkpoints.restore(tmp_path, _with_averages(_like(), 2)).state, state)


@pytest.mark.parametrize(("kept", "wanted"), [(0, 2), (2, 0), (1, 2), (2, 1)])
def test_another_number_of_averages_is_refused_by_name(tmp_path, kept, wanted):
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(3, _with_averages(_state(3), kept), {})
    with pytest.raises(checkpoints.CheckpointError, match=r"another tree than asked for: averages/[01]/dense/bias is"):
        checkpoints.restore(tmp_path, _with_averages(_like(), wanted))


def test_metadata_lies_beside_the_state(tmp_path):
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(3, _state(3), {"preset": "ring", "width": 4})
    assert checkpoints.restore(tmp_path, _like()).metadata == {"preset": "ring", "width": 4}
    record = json.loads((tmp_path / "3" / "metadata" / "metadata").read_text())
    assert record["versions"]["jax"] == jax.__version__
    assert record["step"] == 3


@pytest.mark.parametrize("make", [lambda folder: folder, lambda folder: folder / "none"])
def test_a_missing_checkpoint(tmp_path, make):
    folder = make(tmp_path)
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.restore(folder, _like())
    assert str(folder) in str(caught.value)


def test_a_step_that_is_not_there(tmp_path):
    _save(tmp_path, 3)
    with pytest.raises(checkpoints.CheckpointError) as caught:
        checkpoints.restore(tmp_path, _like(), step=4)
    assert str(tmp_path / "4") in str(caught.value)


def test_another_tree(tmp_path):
    _save(tmp_path, 3)
    other = training.init_state({"other": jnp.ones(2)}, OPTIMIZER, jax.random.key(0))
    with pytest.raises(checkpoints.CheckpointError, match="another tree") as caught:
        checkpoints.restore(tmp_path, other)
    assert str(tmp_path / "3") in str(caught.value)


def test_other_shapes(tmp_path):
    _save(tmp_path, 3)
    with pytest.raises(checkpoints.CheckpointError, match="kernel has shape") as caught:
        checkpoints.restore(tmp_path, _state(0, width=5))
    assert str(tmp_path / "3") in str(caught.value)


def test_a_failed_restore_leaves_the_checkpoint_usable(tmp_path):
    _save(tmp_path, 3)
    with pytest.raises(checkpoints.CheckpointError):
        checkpoints.restore(tmp_path, _state(0, width=5))
    _assert_same(checkpoints.restore(tmp_path, _like()).state, _state(3))


def test_what_a_killed_save_leaves_is_not_read(tmp_path):
    """A temporary folder of a later step is neither the latest nor restored, and is gone when the folder is opened."""
    _save(tmp_path, 3)
    left = tmp_path / "9.orbax-checkpoint-tmp"
    (left / "state").mkdir(parents=True)
    (left / "state" / "half").write_bytes(b"half")
    assert checkpoints.latest_step(tmp_path) == 3
    _assert_same(checkpoints.restore(tmp_path, _like()).state, _state(3))
    _save(tmp_path, 4)
    assert not left.exists()
    assert checkpoints.latest_step(tmp_path) == 4
