"""What an optimizer's state tells: whether NaN can stay in it (T7), and which parameters are to be evaluated (T8)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from cfgjax.contracts import Contract, checked
from cfgjax.types import Array, TrainState, Tree

_GUARDS = optax.ApplyIfFiniteState, optax.ZeroNansState
_INJECTED = optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState


def require_optimizer(name: str, optimizer: object) -> None:
    """Raises TypeError for what has not the two functions of an Optax transformation; a maker has none."""
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(
            f"{name} must be an Optax transformation, as optax.adam(1e-3) is, got {type(optimizer).__name__}"
        )


Optimizer = Annotated[optax.GradientTransformation, Contract(require_optimizer)]
"""An Optax transformation."""


def _keeps(node: Any, has_kept: bool = False) -> bool:
    """Whether a gradient that is not finite may stay behind in a state; ``has_kept``: in what it went through before.

    Raises:
        ValueError: it may stay before what leaves it out, in an accumulator or in an optimizer's moments.
    """
    if isinstance(node, _INJECTED):
        return _keeps(node.inner_state, has_kept)
    if isinstance(node, _GUARDS):
        if has_kept:
            raise ValueError(
                "optimizer must leave out what is not finite before it is accumulated or averaged, "
                "optax.apply_if_finite around all the rest: after MultiSteps or moments one NaN ends all updates"
            )
        return False
    if jax.tree_util.all_leaves([node]):
        return jnp.issubdtype(jnp.result_type(node), jnp.floating)
    if isinstance(node, optax.MultiStepsState):
        keeps = node.skip_state == ()
        return _keeps(node.inner_opt_state, has_kept or keeps) or keeps
    is_chain, keeps = type(node) in (tuple, OrderedDict), False
    for each in jax.tree.leaves(node, is_leaf=lambda each: each is not node):
        keeps |= _keeps(each, has_kept or (keeps and is_chain))
    return keeps


def require_recovering(opt_state: Any) -> None:
    """Raises ValueError for the state of an optimizer that never updates again after one NaN, or is given a pair.

    In Optax 0.2.8 ``MultiSteps`` empties its accumulator by a product with 0, which leaves NaN in it, and the moments
    of an optimizer keep NaN likewise. What then leaves out all that is not finite leaves out every later update.
    """
    _keeps(opt_state)
    if _nodes(opt_state, optax.LookaheadState):
        raise ValueError(
            "optimizer must update the parameters of the loss, and optax.lookahead takes a pair (fast, slow) in their "
            "place: the moving average of a plain optimizer does what its slow ones do"
        )


def _nodes(tree: Any, kinds: Any) -> list[Any]:
    """The nodes of a tree that are of these kinds, but those inside another."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in leaves if isinstance(node, kinds)]


def _before_ascent(state: contrib.SAMState) -> Callable[[Array, Array], Array]:
    return lambda cache, params: jnp.where(state.steps_since_sync == 0, params, cache)


def _average(state: contrib.ScheduleFreeState) -> Callable[[Array, Array], Array]:
    def average(z: Array, y: Array) -> Array:
        z, y = z.astype(jnp.float32), y.astype(jnp.float32)
        return z + (y - z) / jnp.asarray(state.b1, jnp.float32)

    return average


def evaluated(opt_state: Any, params: Tree) -> Tree:
    """The parameters to evaluate (T8), of an optimizer's state and the parameters at which it takes gradients."""
    for state in _nodes(opt_state, contrib.ScheduleFreeState):
        params = _where_kept(_average(state), state.z, params)
    for state in _nodes(opt_state, contrib.SAMState):
        params = params if state.cache is None else _where_kept(_before_ascent(state), state.cache, params)
    return params


def _where_kept(rule: Callable[[Array, Array], Array], kept: Tree, params: Tree) -> Tree:
    """The rule of (kept, params), where an optimizer of a part of the parameters keeps something."""
    is_other = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(
        lambda kept, params: params if is_other(kept) else rule(kept, params), kept, params, is_leaf=is_other
    )


@checked
def eval_params(state: TrainState) -> Tree:
    """The parameters to evaluate (T8), in their own types; ``state.params`` itself for most optimizers.

    Of these the step takes its moving averages: ``state.ema`` needs no such call.

    Args:
        state: of ``init_state`` or a step.
    """
    found = evaluated(state.opt_state, state.params)
    return jax.tree.map(lambda leaf, params: leaf.astype(params.dtype), found, state.params)
