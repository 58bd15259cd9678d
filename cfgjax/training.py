"""Training: the pure step, the moving average, and the one line that makes it parallel.

(T1) The gradient is of the LOCAL mean loss, then averaged over the devices: the global mean's, as every device holds
     the same number of examples.
(T2) Example i of step n takes the key fold_in(fold_in(key, n), i), with i its GLOBAL index: one device and eight see
     the same noise, the same times and the same dropped labels.
(T3) ema <- decay * ema + (1 - decay) * params, in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax.types import Array, Loss, Number, TrainState, Tree

AXIS = "devices"
Metrics = dict[str, Array]


class Step(Protocol):
    """A pure function (state, batch) -> outputs that averages over a named axis where one is given."""

    def __call__(self, state: TrainState, batch: Tree, *, axis_name: str | None = None) -> object:
        """The step's outputs."""


def create(params: Tree, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """The state before the first step: the optimizer's own start, and an EMA that equals the parameters.

    Parameters and key are copied: a step that is donated the state does not take the caller's arrays with it.
    """
    ema = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)
    params, key = jax.tree.map(jnp.copy, (params, key))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, key)


def example_keys(key: Array, step: Number, num_local: int, axis_name: str | None = None) -> Array:
    """One key for each local example, [num_local], by its global index (T2)."""
    offset = 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_local
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(partial(jax.random.fold_in, step_key))(offset + jnp.arange(num_local))


def _mean_loss(loss: Loss, params: Tree, keys: Array, batch: Tree) -> Array:
    return jnp.mean(jax.vmap(loss, in_axes=(None, 0, 0))(params, keys, batch))


def _average(tree: Tree, axis_name: str | None) -> Tree:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _num_examples(batch: Tree) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation, ema_decay: Number | Callable[[Array], Array]
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The pure training step (state, batch, *, axis_name=None) -> (state, metrics).

    Args:
        loss: (params, key, example) -> [], the loss of ONE example.
        optimizer: an Optax transformation.
        ema_decay: (T3)'s decay in [0, 1], or a function of the number of steps done.

    Returns:
        The step. A batch is a tree whose leaves have one leading axis, the (local) examples. ``axis_name`` names the
        mapped axis over which (T1) averages. Metrics: loss and grad_norm, both global and before the update.
    """

    def step(state: TrainState, batch: Tree, *, axis_name: str | None = None) -> tuple[TrainState, Metrics]:
        keys = example_keys(state.key, state.step, _num_examples(batch), axis_name)
        value, gradient = jax.value_and_grad(partial(_mean_loss, loss))(state.params, keys, batch)
        value, gradient = _average((value, gradient), axis_name)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay(state.step) if callable(ema_decay) else ema_decay
        latest = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        ema = optax.incremental_update(latest, state.ema, 1 - decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, opt_state, ema, state.key), metrics

    return step


def make_evaluation(loss: Loss) -> Callable[..., Metrics]:
    """The pure function (state, batch, *, axis_name=None) -> {"loss"} that evaluates the EMA.

    Example i takes the key of (T2) at step 0, whatever the state's step: every evaluation of a run sees the same noise.
    """

    def evaluate(state: TrainState, batch: Tree, *, axis_name: str | None = None) -> Metrics:
        keys = example_keys(state.key, 0, _num_examples(batch), axis_name)
        return {"loss": _average(_mean_loss(loss, state.ema, keys, batch), axis_name)}

    return evaluate


def replicate(state: TrainState, devices: Sequence[jax.Device] | None = None) -> TrainState:
    """The state with every leaf on all devices of a ``parallel`` step, where its outputs lie, too."""
    mesh = jax.sharding.Mesh(np.asarray(devices or jax.devices()), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def parallel(step: Step, devices: Sequence[jax.Device] | None = None, donate: bool = True) -> Callable:
    """The step mapped over the devices: (state, sharded batch) -> the same outputs, replicated.

    The state has no device axis, before or after; the batch has one in front, from ``shard``. Works for
    ``make_evaluation`` too. A state that does not lie on all the devices yet is put there, so that the second step
    finds what the first one found and compiles nothing.

    Args:
        step: the pure step.
        devices: the devices to use; by default all of them, of all processes.
        donate: give the old state's memory to the new one. Pass False for an evaluation, which keeps its state.
    """
    donated = (0,) if donate else ()
    mapped = jax.pmap(
        partial(step, axis_name=AXIS), AXIS, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=donated
    )
    everywhere = jax.sharding.Mesh(np.asarray(devices or jax.devices()), (AXIS,))

    def run(state: TrainState, batch: Tree) -> object:
        sharding = getattr(state.step, "sharding", None)
        is_placed = isinstance(sharding, jax.sharding.NamedSharding) and sharding.mesh == everywhere
        return mapped(state if is_placed else replicate(state, devices), batch)

    return run


def shard(batch: Tree, num_devices: int) -> Tree:
    """The batch with a device axis in front: each leaf [B, ...] becomes [num_devices, B / num_devices, ...].

    Raises:
        ValueError: a batch that the number of devices does not divide.
    """
    num_examples = _num_examples(batch)
    if num_examples % num_devices:
        raise ValueError(f"batch_size must be divisible by the number of devices, got {num_examples} on {num_devices}")
    return jax.tree.map(lambda leaf: leaf.reshape((num_devices, -1, *leaf.shape[1:])), batch)
