"""The pure step, its gradient and its evaluation, with the lines (T1) to (T7) of ``cfgjax.training``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from cfgjax.checks import require_arrays, require_integers, require_kind, require_shape
from cfgjax.contracts import FloatTree, Key, NonNegativeInt, PositiveInt, checked, whole
from cfgjax.training.batching import num_examples, require_divisible
from cfgjax.training.ema import EMADecay, EMADecays, decay_at, ema_update, ema_update_all, to_float32
from cfgjax.training.optimizers import Optimizer, evaluated, require_recovering
from cfgjax.types import Array, AxisName, Loss, Number, TrainState, Tree

Metrics = dict[str, Array]
StepNumber = Annotated[Number, whole(0)]
"""The number of steps done, an integer that is not negative where concrete."""


class Step(Protocol):
    """A pure function (state, batch, source) -> outputs that averages over a named axis where one is given."""

    def __call__(self, state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None) -> object:
        """The step's outputs."""


@checked
def init_state(params: FloatTree, optimizer: Optimizer, key: Key, num_averages: NonNegativeInt = 0) -> TrainState:
    """The state before the first step: the optimizer's own start, and averages that equal the parameters.

    Parameters and key are copied: a step that is donated the state does not take the caller's arrays with it.

    Args:
        params: the network's parameters.
        optimizer: an Optax transformation.
        key: the run's root key.
        num_averages: how many moving averages to keep beside the EMA, for ``make_step``'s ``average_decays``.

    Raises:
        ValueError: an optimizer that one NaN would end (T7).
    """
    ema, *averages = (to_float32(params) for _ in range(1 + num_averages))
    params, key = jax.tree.map(jnp.copy, (params, key))
    opt_state = optimizer.init(jax.tree.map(jnp.copy, params))  # which may keep what it is given, as sam does
    require_recovering(opt_state)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, ema, key, tuple(averages))


@checked
def example_keys(key: Key, step: StepNumber, num_local: PositiveInt, axis_name: AxisName = None) -> Array:
    """One key for each local example, [num_local], by its global index (T2)."""
    offset = 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_local
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(partial(jax.random.fold_in, step_key))(offset + jnp.arange(num_local))


def _mean_loss(loss: Loss, params: Tree, keys: Array, batch: Tree) -> Array:
    def checked(params: Tree, key: Array, example: Tree) -> Array:
        value = loss(params, key, example)
        require_shape("loss", value, (), "give")
        return value

    return jnp.mean(jax.vmap(checked, in_axes=(None, 0, 0))(params, keys, batch))


def _num_examples(state: TrainState, batch: Tree, source: Tree) -> int:
    """The number of examples of a batch.

    Raises:
        TypeError, ValueError: no state; no arrays with a common leading axis; with a source, no integer.
    """
    require_kind("state", state, TrainState, "a TrainState, as training.init_state gives it")
    require_arrays("batch", batch)
    if source is not None:
        require_integers("batch", batch)
    return num_examples(batch)


def _examples(batch: Tree, source: Tree) -> Tree:
    """The batch itself, or the rows of the source that it names (T4)."""
    return batch if source is None else jax.tree.map(lambda leaf: leaf[batch], source)


def _microbatches(batch: Tree, num_microbatches: int) -> Tree:
    """The batch with an axis of microbatches in front: each leaf [B, ...] becomes [n, B / n, ...] (T5)."""
    require_divisible(batch, num_microbatches, "num_microbatches")
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape((-1, num_microbatches, *leaf.shape[1:])), 0, 1), batch)


def _over_microbatches(gradient: Callable[..., Tree], num_microbatches: int, keys: Array, batch: Tree) -> Tree:
    """The mean of gradient(keys, batch) over equal microbatches of both (T5)."""
    if num_microbatches == 1:
        return gradient(keys, batch)
    microbatches = _microbatches((keys, batch), num_microbatches)
    first = jax.eval_shape(gradient, *jax.tree.map(lambda leaf: leaf[0], microbatches))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)

    def add(total: Tree, microbatch: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, gradient(*microbatch)), None

    total, _ = jax.lax.scan(add, zeros, microbatches)
    return jax.tree.map(lambda leaf: leaf / num_microbatches, total)


def _average(tree: Tree, axis_name: AxisName) -> Tree:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def _as_finite_as(value: Array, gradient: Tree) -> Tree:
    """The gradient, or NaN in all of it where the value is not finite (T7)."""
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(value), leaf, jnp.nan), gradient)


@checked
def make_value_and_grad(loss: Loss, num_microbatches: PositiveInt = 1) -> Callable[..., tuple[Array, Tree]]:
    """The pure function (state, batch, source=None, *, axis_name=None) -> (loss, gradient) at the state's own step.

    Args:
        loss: (params, key, example) -> [], the loss of ONE example.
        num_microbatches: the microbatches over which gradients of the (local) batch are accumulated (T5).

    Raises:
        TypeError, ValueError: at the call, no TrainState, a batch of no arrays with a common leading axis, or which
            ``num_microbatches`` does not divide; a loss that does not give one number.
    """

    def gradient(
        state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None
    ) -> tuple[Array, Tree]:
        num_local = _num_examples(state, batch, source)
        keys = example_keys(state.key, state.step, num_local, axis_name)
        slope = partial(jax.value_and_grad(partial(_mean_loss, loss)), state.params)
        return _average(_over_microbatches(slope, num_microbatches, keys, _examples(batch, source)), axis_name)

    return gradient


@checked
def make_step(
    loss: Loss,
    optimizer: Optimizer,
    ema_decay: EMADecay,
    num_microbatches: PositiveInt = 1,
    average_decays: EMADecays = (),
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The pure training step (state, batch, source=None, *, axis_name=None) -> (state, metrics).

    Args:
        loss: (params, key, example) -> [], the loss of ONE example.
        optimizer: an Optax transformation; that of ``init_state``.
        ema_decay: (T3)'s decay in [0, 1], or a function of the number of steps done.
        num_microbatches: the microbatches over which gradients of the (local) batch are accumulated (T5).
        average_decays: the decays of the state's ``averages``, one for each, as ``posthoc_ema.power_function_decay``
            gives them.

    Returns:
        The step. A batch is a tree whose leaves have one leading axis, the (local) examples; with a ``source`` it is
        an array of indices into the leading axis of the source's leaves (T4). ``axis_name`` names the mapped axis
        over which (T1) averages. Metrics: loss and grad_norm, both global and before the update.

    Raises:
        TypeError, ValueError: at the call, those of ``make_value_and_grad``; the state of an optimizer that one NaN
            would end (T7), or with more or fewer averages than ``average_decays``; a decay's function that does not
            give one number.
    """
    gradient_of = make_value_and_grad(loss, num_microbatches)

    def step(
        state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None
    ) -> tuple[TrainState, Metrics]:
        value, gradient = gradient_of(state, batch, source, axis_name=axis_name)
        require_recovering(state.opt_state)
        gradient = _as_finite_as(value, gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = evaluated(opt_state, params)
        ema = ema_update(state.ema, averaged, decay_at("ema_decay", ema_decay, state.step))
        averages = ema_update_all(state, averaged, average_decays)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, opt_state, ema, state.key, averages), metrics

    return step


@dataclass(frozen=True)
class MultiStep:
    """The step of ``multi_step``: (state, batches, source=None, *, axis_name=None) -> (state, metrics [K])."""

    step: Step
    example_axis: ClassVar[int] = 1
    """The axis of a batch's leaves that holds the examples; of a plain step's batch it is 0."""

    def __call__(
        self, state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None
    ) -> tuple[TrainState, Metrics]:
        """The state after the K steps, and the metrics of each."""

        def advance(state: TrainState, batch: Tree) -> tuple[TrainState, Metrics]:
            return cast(tuple[TrainState, Metrics], self.step(state, batch, source, axis_name=axis_name))

        return jax.lax.scan(advance, state, batch)


@checked
def multi_step(step: Step) -> MultiStep:
    """The step over K batches in one call (T6): (state, batches, source=None, *, axis_name=None) -> (state, metrics).

    A small network's step takes less time than its dispatch from the host; K steps in one call pay for one dispatch.

    Args:
        step: of ``make_step``.

    Returns:
        The function. Its batches are a tree whose leaves are [K, B, ...], from ``shard_stacked`` under ``parallel``;
        the metrics are those of every step, [K].
    """
    return MultiStep(step)


@checked
def make_eval_step(loss: Loss, num_microbatches: PositiveInt = 1) -> Callable[..., Metrics]:
    """The pure function (state, batch, source=None, *, axis_name=None) -> {"loss"} that evaluates the EMA.

    Example i takes the key of (T2) at step 0, whatever the state's step: every evaluation of a run sees the same noise.
    The (local) batch is taken in ``num_microbatches`` microbatches (T5).

    Raises:
        TypeError, ValueError: at the call, those of ``make_value_and_grad``.
    """

    def evaluate(state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None) -> Metrics:
        num_local = _num_examples(state, batch, source)
        keys = example_keys(state.key, 0, num_local, axis_name)
        mean = partial(_mean_loss, loss, state.ema)
        return {"loss": _average(_over_microbatches(mean, num_microbatches, keys, _examples(batch, source)), axis_name)}

    return evaluate
