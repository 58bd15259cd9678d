"""The moving averages of a step and their decays, with the line (T3) of ``cfgjax.training``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from cfgjax.checks import require_between, require_scalar
from cfgjax.contracts import Contract, UnitInterval, checked
from cfgjax.types import Array, Number, TrainState, Tree

Decay = Number | Callable[[Array], Array]
"""(T3)'s decay in [0, 1], or a function of the number of steps done."""


def to_float32(params: Tree) -> Tree:
    """A copy of the parameters in float32."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), params)


@checked
def ema_warmup(decay: UnitInterval) -> Callable[[Array], Array]:
    """(T3)'s decay after n steps, min(decay, (1 + n) / (10 + n)): a young average soon forgets its start.

    >>> float(ema_warmup(0.99)(jnp.asarray(0)))
    0.10000000149011612
    """
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def require_decay(name: str, decay: object) -> None:
    """Raises TypeError or ValueError for what is neither a function nor one number, in [0, 1] where concrete."""
    if not callable(decay):
        require_between(name, decay, 0, 1)


def require_decays(name: str, decays: Sequence[Decay]) -> None:
    """Raises TypeError for what is not a tuple of decays, and the errors of each."""
    if not isinstance(decays, list | tuple):
        raise TypeError(f"{name} must be a tuple of decays, got {type(decays).__name__}")
    for index, decay in enumerate(decays):
        require_decay(f"{name}[{index}]", decay)


EMADecay = Annotated[Decay, Contract(require_decay)]
"""A decay, in [0, 1] where it is a concrete number."""
EMADecays = Annotated[Sequence[Decay], Contract(require_decays)]
"""A decay for each of some averages."""


def decay_at(name: str, decay: Decay, step: Array) -> Number:
    """The decay after so many steps."""
    if not callable(decay):
        return decay
    value = decay(step)
    require_scalar(name, value)
    return value


def ema_update(average: Tree, params: Tree, decay: Number) -> Tree:
    """The moving average after another step (T3)."""
    latest = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    return optax.incremental_update(latest, average, 1 - decay)


def ema_update_all(state: TrainState, params: Tree, decays: Sequence[Decay]) -> tuple[Tree, ...]:
    """The state's averages after another step, each with its own decay."""
    if len(decays) != len(state.averages):
        message = "average_decays must be one for each of the state's averages"
        raise ValueError(f"{message}, got {len(decays)} for {len(state.averages)}")
    numbers = [decay_at(f"average_decays[{index}]", decay, state.step) for index, decay in enumerate(decays)]
    return tuple(ema_update(average, params, number) for average, number in zip(state.averages, numbers, strict=True))
