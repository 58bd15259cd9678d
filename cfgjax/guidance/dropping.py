"""A condition fixed for sampling, and dropped for training."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import evaluated, is_number, require_rates, short_repr
from cfgjax.conditions import as_condition, null_for
from cfgjax.contracts import AnyCondition, AnyNull, Contract, Key, UnitInterval, checked
from cfgjax.paths import as_float
from cfgjax.piecewise import piecewise
from cfgjax.types import Array, Condition, Field, LabelledField, Tree


@piecewise
@checked
def given(field: LabelledField, y: AnyCondition) -> Field:
    """The field at a fixed condition y, as a Field of (x, t)."""
    y = as_condition(y)
    return lambda x, t: evaluated("field", field, x, t, y)


Rates = Annotated[Tree, Contract(require_rates)]
"""A rate in [0, 1], or a tree of them that y's tree begins with, each for what y has in its place."""


def _coins(key: Array, rates: Tree, rate_of_all: Array, y: Condition) -> Tree:
    """A Bernoulli draw for every leaf of y, by the rate over it, or one for all of them together."""
    leaves, structure = jax.tree.flatten(rates)
    keys = jax.random.split(key, 1 + len(leaves))
    together = jax.random.bernoulli(keys[0], rate_of_all)
    coins = [jax.random.bernoulli(own, as_float(rate)) | together for own, rate in zip(keys[1:], leaves, strict=True)]
    try:
        return jax.tree.broadcast(jax.tree.unflatten(structure, coins), y)
    except ValueError:
        wanted = short_repr(jax.tree.map(jnp.shape, y))
        raise ValueError(
            f"rate must be one number, or a tree of them that y's begins with, {wanted}, got {short_repr(rates)}"
        ) from None


@checked
def drop_condition(key: Key, y: AnyCondition, rate: Rates, null: AnyNull, rate_of_all: UnitInterval = 0.0) -> Condition:
    """The condition y, or the null in its place with probability ``rate`` (eta): independent draws for ONE example.

    With one number for ``rate`` all of y is dropped together. With a tree of them there is a draw for each: of
    {"label": 0.1, "text": 0.2} each condition is dropped by itself, and with probability ``rate_of_all`` all of them.
    At rate 0 a network never learns the null, so that only w = 1 means anything; at rate 1 only w = 0.

    Args:
        key: for the draws.
        y: the condition.
        rate: eta, [], or a tree of rates that y's tree begins with; what stands under a rate is dropped together.
        null: what takes y's place: the same object that sampling uses (Y1 of ``conditions``).
        rate_of_all: [], of a further draw that drops all, read with a tree of rates alone.

    Raises:
        TypeError, ValueError: a null that is not like y, or a label that y's type cannot hold; rates that y's tree does
            not begin with.
    """
    y, null = as_condition(y), null_for(null, y)
    if is_number(rate, jnp.floating, jnp.integer):
        coin = jax.random.bernoulli(key, as_float(rate))
        return jax.tree.map(lambda absent, leaf: jnp.where(coin, absent, leaf), null, y)
    return jax.tree.map(jnp.where, _coins(key, rate, as_float(rate_of_all), y), null, y)
