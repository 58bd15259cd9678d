"""Parameters and averages are read from a checkpoint alone, whatever optimizer, containers and devices made it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import checkpoints, guidance, training
from cfgjax.checkpoints import CheckpointError, NoCheckpointError
from cfgjax.training import fsdp


class Layer(NamedTuple):
    """A container of its own, whose fields are not in the order of their names."""

    weight: jax.Array
    bias: jax.Array


PARAMS = {
    "params": {"linear/w": jnp.arange(6.0).reshape(2, 3), "dense": {"kernel": jnp.full(4, 0.3, jnp.bfloat16)}},
    "layers": [Layer(jnp.arange(3.0), jnp.float32(7.0))],
}
OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "adamw in a chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    "several steps": optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
}


def _state(optimizer, num_averages=2):
    state = training.init_state(PARAMS, optimizer, jax.random.key(0), num_averages)
    moved = lambda factor: jax.tree.map(lambda leaf: factor * leaf, state.ema)  # noqa: E731
    return state._replace(ema=moved(2), averages=tuple(moved(3 + index) for index in range(num_averages)))


def _plain(tree):
    """The tree in the containers that a checkpoint knows."""
    return {**tree, "layers": [layer._asdict() for layer in tree["layers"]]}


def _assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one, np.float32), np.asarray(other, np.float32))


def _saved(folder, *states):
    with checkpoints.Writer(folder, checkpoints.RetentionPolicy(last=None)) as writer:
        for step, state in enumerate(states):
            writer.save(step, state, {"name": f"step {step}"})
    return folder


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_tree_comes_back_without_the_optimizer(optimizer, tmp_path):
    state = _state(optimizer)
    _saved(tmp_path, state)
    wanted = {"ema": state.ema, "params": state.params, 0: state.averages[0], 1: state.averages[1]}
    for which, expected in wanted.items():
        found = checkpoints.restore_params(tmp_path, which=which)
        _assert_same(found.state, _plain(expected))
        assert (found.step, found.metadata, found.corrupt) == (0, {"name": "step 0"}, {})
    _assert_same(checkpoints.restore_params(tmp_path, like=jax.eval_shape(lambda: state.ema)).state, state.ema)


@pytest.mark.parametrize("place", [training.replicate, fsdp.shard_state], ids=["replicated", "sharded"])
def test_however_the_state_lay_the_arrays_lie_whole_on_one_device(place, tmp_path):
    """Of 128 x 1024 numbers each of eight devices held a part, where they were cut."""
    params = {"kernel": jnp.arange(2.0**17).reshape(128, 1024)}
    state = place(training.init_state(params, optax.adam(1e-3), jax.random.key(0)))
    assert len(state.ema["kernel"].devices()) == jax.device_count()
    _saved(tmp_path, state)
    found = checkpoints.restore_params(tmp_path).state
    _assert_same(found, params)
    assert found["kernel"].devices() == {jax.devices()[0]}


def test_the_newest_is_taken_and_a_step_is_taken_at_its_word(tmp_path):
    first, second = _state(optax.sgd(0.1)), _state(optax.adam(0.1))
    second = second._replace(ema=jax.tree.map(lambda leaf: leaf + 1, second.ema))
    _saved(tmp_path, first, second)
    _assert_same(checkpoints.restore_params(tmp_path).state, _plain(second.ema))
    _assert_same(checkpoints.restore_params(tmp_path, 0).state, _plain(first.ema))


def test_what_is_not_there_is_named(tmp_path):
    _saved(tmp_path / "state", _state(optax.sgd(0.1), 1))
    _saved(tmp_path / "other", {"weights": jnp.ones(2)})
    for arguments, message in (
        ((tmp_path / "state", None, 1), "holds no average 1, but 1 beside the EMA"),
        ((tmp_path / "other",), "holds no ema, as the checkpoint of a TrainState does"),
        ((tmp_path / "other", None, 0), "holds no average 0, but 0 beside"),
        ((tmp_path / "state", None, "ema", {"kernel": jnp.ones(2)}), "holds another tree than asked for"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoints.restore_params(*arguments)
    with pytest.raises(NoCheckpointError):
        checkpoints.restore_params(tmp_path / "none")


def test_the_averaged_field_runs_inside_an_own_jit(tmp_path):
    """A checkpoint of another optimizer, the parameters an argument of the compiled function or closed over."""
    state = training.init_state({"w": jnp.array([0.5, -2.0])}, optax.lion(1e-3), jax.random.key(0))
    _saved(tmp_path, state)
    ema = checkpoints.restore_params(tmp_path).state
    apply = lambda params, x, t, y: params["w"] * x * t + y  # noqa: E731

    def guided(params, x, scale):
        field = guidance.classifier_free(lambda x, t, y: apply(params, x, t, y), scale, 3)
        return field(x, jnp.float32(0.5), jnp.int32(1))

    x = jnp.array([1.0, 2.0])
    expected = np.array([0.25, -2.0]) + 2.0 * 1 - 1.0 * 3
    np.testing.assert_allclose(jax.jit(guided)(ema, x, 2.0), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: guided(ema, x, 2.0))(x), expected, rtol=1e-6)


def test_parameters_that_lie_alone_are_their_own_average_and_no_state_to_go_on_from(tmp_path):
    """(P1)."""
    state = _state(optax.adam(1e-3), 0)
    _saved(tmp_path, {"params": state.params})
    for which in ("ema", "params"):
        found = checkpoints.restore_params(tmp_path, which=which, like=jax.eval_shape(lambda: state.params))
        _assert_same(found.state, state.params)
    with pytest.raises(CheckpointError, match="0 holds no average 0, but 0 beside the EMA"):
        checkpoints.restore_params(tmp_path, which=0)
    with pytest.raises(CheckpointError, match="0 is of parameters alone, with no optimizer's state to go on from"):
        checkpoints.restore(tmp_path, state)
    _assert_same(checkpoints.restore(tmp_path, {"params": state.params}).state, {"params": state.params})


def test_a_state_of_another_kind_is_no_parameters_alone(tmp_path):
    _saved(tmp_path, {"params": jnp.ones(2), "step": jnp.int32(1)})
    with pytest.raises(CheckpointError, match="0 holds no ema, as the checkpoint of a TrainState does"):
        checkpoints.restore_params(tmp_path)
