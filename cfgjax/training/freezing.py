"""Training of a part of the parameters, with the line (T9) of ``cfgjax.training``.

``frozen`` is a tree with the parameters' structure, True where a leaf is frozen. The three functions go together:

    optimizer = freezing.of_optimizer(optax.adamw(1e-3), frozen)
    state = training.init_state(params, optimizer, key)
    step = freezing.of_step(training.make_step(freezing.of_loss(loss, frozen), optimizer, 0.999), frozen)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, cast

import jax
import optax

from cfgjax.checks import short_repr
from cfgjax.contracts import Contract, checked
from cfgjax.training.optimizers import Optimizer
from cfgjax.training.step import Metrics, Step
from cfgjax.types import Array, AxisName, Loss, TrainState, Tree


def _require_frozen(name: str, frozen: Tree) -> None:
    leaves = jax.tree.leaves(frozen)
    if not leaves or not all(isinstance(leaf, bool) for leaf in leaves):
        raise TypeError(f"{name} must be a tree of True and False, one for each parameter, got {short_repr(frozen)}")
    if all(leaves):
        raise ValueError(f"{name} must leave a parameter to train, got True for all {len(leaves)}")


Frozen = Annotated[Tree, Contract(_require_frozen)]
"""A tree of booleans, not all of them True."""


def _require_same_structure(frozen: Tree, params: Tree) -> None:
    if jax.tree.structure(frozen) != jax.tree.structure(params):
        raise ValueError(f"frozen must have the structure of the parameters, got {short_repr(frozen)}")


@checked
def of_loss(loss: Loss, frozen: Frozen) -> Loss:
    """The loss whose gradient by frozen parameters is 0, and not computed.

    Args:
        loss: (params, key, example) -> [], the loss of ONE example.
        frozen: which parameters are.

    Raises:
        ValueError: at the call, parameters of another structure.
    """

    def own(params: Tree, key: Array, example: Tree) -> Array:
        _require_same_structure(frozen, params)
        held = jax.tree.map(lambda is_frozen, leaf: jax.lax.stop_gradient(leaf) if is_frozen else leaf, frozen, params)
        return loss(held, key, example)

    return own


@checked
def of_optimizer(optimizer: Optimizer, frozen: Frozen) -> optax.GradientTransformation:
    """The optimizer of the other parameters alone: it sees no frozen ones, so that a norm is of these, and keeps none.

    Args:
        optimizer: an Optax transformation.
        frozen: which parameters are.
    """
    ways = jax.tree.map(lambda is_frozen: "frozen" if is_frozen else "trained", frozen)
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, ways)


@checked
def of_step(step: Step, frozen: Frozen) -> Step:
    """The step after which frozen parameters, and all their averages, are bitwise what they were.

    Args:
        step: of ``make_step``.
        frozen: which parameters are.

    Raises:
        ValueError: at the call, a state whose parameters have another structure.
    """
    kept = partial(jax.tree.map, lambda is_frozen, old, new: old if is_frozen else new, frozen)

    def own(
        state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None
    ) -> tuple[TrainState, Metrics]:
        _require_same_structure(frozen, state.params)
        after, metrics = cast(tuple[TrainState, Metrics], step(state, batch, source, axis_name=axis_name))
        averages = tuple(map(kept, state.averages, after.averages))
        params, ema = kept(state.params, after.params), kept(state.ema, after.ema)
        return after._replace(params=params, ema=ema, averages=averages), metrics

    return own
