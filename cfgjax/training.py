"""Training: the pure step, the moving average, and the one line that makes it parallel.

(T1) The gradient is of the LOCAL mean loss, then averaged over the devices: the global mean's, as every device holds
     the same number of examples.
(T2) Example i of step n takes the key fold_in(fold_in(key, n), i), with i its GLOBAL index: one device and eight see
     the same noise, the same times and the same dropped labels.
(T3) ema <- decay * ema + (1 - decay) * params, in float32.
(T4) A set that fits lies whole on every device, once; a batch is then its indices, gathered inside the step.
(T5) The mean over a batch is the mean over its chunks' means, taken one after another: fewer values in memory at once.
     Chunk c of C is the examples c, C + c, 2 C + c, ...: of a batch cut over devices, every device holds its share of
     every chunk.
(T6) K steps in one dispatch are the same K steps: a scan over K batches, inside the mapped function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax.types import Array, Loss, Number, TrainState, Tree

AXIS = "devices"
Metrics = dict[str, Array]


class Step(Protocol):
    """A pure function (state, batch, source) -> outputs that averages over a named axis where one is given."""

    def __call__(self, state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None) -> object:
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


def _examples(batch: Tree, source: Tree) -> Tree:
    """The batch itself, or the rows of the source that it names (T4)."""
    return batch if source is None else jax.tree.map(lambda leaf: leaf[batch], source)


def _chunks(batch: Tree, num_chunks: int) -> Tree:
    """The batch with an axis of chunks in front: each leaf [B, ...] becomes [num_chunks, B / num_chunks, ...] (T5)."""
    _require_divisible(batch, num_chunks, "num_chunks")
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape((-1, num_chunks, *leaf.shape[1:])), 0, 1), batch)


def _over_chunks(gradient: Callable[..., Tree], num_chunks: int, keys: Array, batch: Tree) -> Tree:
    """The mean of gradient(keys, batch) over equal chunks of both (T5)."""
    if num_chunks == 1:
        return gradient(keys, batch)
    chunks = _chunks((keys, batch), num_chunks)
    first = jax.eval_shape(gradient, *jax.tree.map(lambda leaf: leaf[0], chunks))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)

    def add(total: Tree, chunk: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, gradient(*chunk)), None

    total, _ = jax.lax.scan(add, zeros, chunks)
    return jax.tree.map(lambda leaf: leaf / num_chunks, total)


def _average(tree: Tree, axis_name: str | None) -> Tree:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _num_examples(batch: Tree) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def warming_decay(decay: Number) -> Callable[[Array], Array]:
    """(T3)'s decay after n steps, min(decay, (1 + n) / (10 + n)): a young average soon forgets its start.

    >>> float(warming_decay(0.99)(jnp.asarray(0)))
    0.10000000149011612
    """
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: Number | Callable[[Array], Array],
    num_chunks: int = 1,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The pure training step (state, batch, source=None, *, axis_name=None) -> (state, metrics).

    Args:
        loss: (params, key, example) -> [], the loss of ONE example.
        optimizer: an Optax transformation.
        ema_decay: (T3)'s decay in [0, 1], or a function of the number of steps done.
        num_chunks: in how many chunks the (local) batch is taken (T5).

    Returns:
        The step. A batch is a tree whose leaves have one leading axis, the (local) examples; with a ``source`` it is
        an array of indices into the leading axis of the source's leaves (T4). ``axis_name`` names the mapped axis
        over which (T1) averages. Metrics: loss and grad_norm, both global and before the update.

    Raises:
        ValueError: at the step, a local batch that ``num_chunks`` does not divide.
    """

    def step(
        state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None
    ) -> tuple[TrainState, Metrics]:
        keys = example_keys(state.key, state.step, _num_examples(batch), axis_name)
        slope = partial(jax.value_and_grad(partial(_mean_loss, loss)), state.params)
        local = _over_chunks(slope, num_chunks, keys, _examples(batch, source))
        value, gradient = _average(local, axis_name)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay(state.step) if callable(ema_decay) else ema_decay
        latest = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        ema = optax.incremental_update(latest, state.ema, 1 - decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, opt_state, ema, state.key), metrics

    return step


@dataclass(frozen=True)
class Several:
    """The step of ``several``: (state, batches, source=None, *, axis_name=None) -> (state, metrics [K])."""

    step: Step
    example_axis: ClassVar[int] = 1
    """The axis of a batch's leaves that holds the examples; of a plain step's batch it is 0."""

    def __call__(
        self, state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None
    ) -> tuple[TrainState, Metrics]:
        """The state after the K steps, and the metrics of each."""

        def advance(state: TrainState, batch: Tree) -> tuple[TrainState, Metrics]:
            return cast(tuple[TrainState, Metrics], self.step(state, batch, source, axis_name=axis_name))

        return jax.lax.scan(advance, state, batch)


def several(step: Step) -> Several:
    """The step over K batches in one call (T6): (state, batches, source=None, *, axis_name=None) -> (state, metrics).

    A small network's step takes less time than its dispatch from the host; K steps in one call pay for one dispatch.

    Args:
        step: of ``make_step``.

    Returns:
        The function. Its batches are a tree whose leaves are [K, B, ...], from ``shard_several`` under ``parallel``;
        the metrics are those of every step, [K].
    """
    return Several(step)


def make_evaluation(loss: Loss) -> Callable[..., Metrics]:
    """The pure function (state, batch, source=None, *, axis_name=None) -> {"loss"} that evaluates the EMA.

    Example i takes the key of (T2) at step 0, whatever the state's step: every evaluation of a run sees the same noise.
    """

    def evaluate(state: TrainState, batch: Tree, source: Tree = None, *, axis_name: str | None = None) -> Metrics:
        keys = example_keys(state.key, 0, _num_examples(batch), axis_name)
        return {"loss": _average(_mean_loss(loss, state.ema, keys, _examples(batch, source)), axis_name)}

    return evaluate


def replicate(tree: Tree, devices: Sequence[jax.Device] | None = None) -> Tree:
    """The tree with every leaf on all devices of a ``parallel`` step: its state, or the source of its batches."""
    mesh = jax.sharding.Mesh(np.asarray(devices or jax.devices()), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def mapped(step: Step, devices: Sequence[jax.Device] | None = None, donate: bool = True) -> Any:
    """The step under pmap: (state, sharded batch, source) -> the same outputs, with neither state nor source sharded.

    The function of ``parallel`` before it places its state; it has ``lower``, to compile without running.
    """
    donated = (0,) if donate else ()
    named = partial(step, axis_name=AXIS)
    return jax.pmap(named, AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices, donate_argnums=donated)


def _compiled_anew(on_devices: Any, compiler_options: Mapping[str, str]) -> Callable[..., object]:
    """A function of ``mapped`` that is compiled with options, once for each structure, shape and type of arguments."""
    programs: dict[Any, Callable[..., object]] = {}

    def run(*args: Tree) -> object:
        leaves, structure = jax.tree.flatten(args)
        key = structure, tuple(jax.typeof(leaf) for leaf in leaves)
        if key not in programs:
            programs[key] = on_devices.lower(*args).compile(compiler_options=dict(compiler_options))
        return programs[key](*args)

    return run


def parallel(
    step: Step,
    devices: Sequence[jax.Device] | None = None,
    donate: bool = True,
    compiler_options: Mapping[str, str] | None = None,
) -> Callable:
    """The step mapped over the devices: (state, sharded batch, source=None) -> the same outputs, replicated.

    The state has no device axis, before or after; the batch has one in front, from ``shard``. Works for
    ``make_evaluation`` too. A state that does not lie on all the devices yet is put there, so that the second step
    finds what the first one found and compiles nothing; put a source there once, by ``replicate``.

    Args:
        step: the pure step.
        devices: the devices to use; by default all of them, of all processes.
        donate: give the old state's memory to the new one. Pass False for an evaluation, which keeps its state.
        compiler_options: as of ``jax.jit``, such as ``compiler.batched_product_options()``. ``jax.pmap`` takes none,
            so the program is compiled ahead of its first run; over several processes pmap allows no such call, and
            the options are left out.
    """
    on_devices: Callable[..., object] = mapped(step, devices, donate)
    if compiler_options and jax.process_count() == 1:
        on_devices = _compiled_anew(on_devices, compiler_options)
    everywhere = jax.sharding.Mesh(np.asarray(devices or jax.devices()), (AXIS,))

    def run(state: TrainState, batch: Tree, source: Tree = None) -> object:
        sharding = getattr(state.step, "sharding", None)
        is_placed = isinstance(sharding, jax.sharding.NamedSharding) and sharding.mesh == everywhere
        return on_devices(state if is_placed else replicate(state, devices), batch, source)

    return run


def _require_divisible(batch: Tree, num_parts: int, name: str) -> None:
    num_examples = _num_examples(batch)
    if num_examples % num_parts:
        raise ValueError(f"batch_size must be divisible by {name}, got {num_examples} on {num_parts}")


def shard(batch: Tree, num_devices: int) -> Tree:
    """The batch with a device axis in front: each leaf [B, ...] becomes [num_devices, B / num_devices, ...].

    Raises:
        ValueError: a batch that the number of devices does not divide.
    """
    _require_divisible(batch, num_devices, "the number of devices")
    return jax.tree.map(lambda leaf: leaf.reshape((num_devices, -1, *leaf.shape[1:])), batch)


def shard_several(batches: Sequence[Tree], num_devices: int) -> Tree:
    """K batches for ``parallel(several(step))``: K leaves [B, ...] become one [num_devices, K, B / num_devices, ...].

    Raises:
        ValueError: a batch that the number of devices does not divide.
    """
    shards = [shard(batch, num_devices) for batch in batches]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves], axis=1), *shards)
