"""Conditions: several at once, what takes their place on the null side, and those that may be left out.

A condition y of ONE example is a label, or any pytree of arrays. Of a dict, a tuple or a NamedTuple the entries are
conditions of their own, each with a name: its key, its number or its field.

(Y1) A null is a condition like y, or a function y -> condition. ONE value of it, made once, serves training
     (``guidance.drop_condition``), sampling (``guidance.pair``) and ``verify.dropping``.
(Y2) ``without(null, "text")`` is the null that drops the text alone and keeps the rest of y.
(Y3) A label has a null of its own, K. For other conditions ``Known`` says beside the value whether there is one, so
     that a network learns a null and the oracle (``mixtures.JointMixture``) leaves the condition out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.checks import condition_like, entries, require_entries
from cfgjax.contracts import AnyCondition, AnyNull, checked
from cfgjax.types import Array, Condition, Null, Tree


class Known(NamedTuple):
    """A condition that may be left out: its value, and whether it is known, [] of booleans.

    Where ``is_known`` is False the value is not looked at, and 0 by convention.
    """

    value: Tree
    is_known: Array


class Tokens(NamedTuple):
    """A sequence or a set: values [n, d], or integers [n] of a vocabulary, and which of the n are there, [n] booleans.

    Without a mask all are. What a mask leaves out is padding, and not looked at.
    """

    values: Array
    mask: Array | None = None


@checked
def as_condition(y: AnyCondition) -> Condition:
    """The condition with arrays of JAX for leaves."""
    return jax.tree.map(jnp.asarray, y)


@checked
def known(value: AnyCondition) -> Known:
    """The value as a condition that is known."""
    return Known(as_condition(value), jnp.asarray(True))


@checked
def unknown(like: AnyCondition) -> Known:
    """The null of a ``Known``: no condition, in the place of a value like this one; zeros and False.

    >>> unknown(jnp.ones(2))
    Known(value=Array([0., 0.], dtype=float32), is_known=Array(False, dtype=bool))
    """
    return Known(jax.tree.map(jnp.zeros_like, as_condition(like)), jnp.asarray(False))


@checked
def null_for(null: AnyNull, y: AnyCondition) -> Condition:
    """The null in the place of y, in y's types (Y1).

    Raises:
        TypeError, ValueError: a null of another structure than y, or with a leaf of another shape or kind, named.
    """
    return condition_like("null", null(y) if callable(null) else null, y)


def _with_entries(y: Any, new: Mapping[Hashable, Condition]) -> Condition:
    """y with new conditions under their names."""
    merged = entries(y) | dict(new)
    if isinstance(y, Mapping):
        return merged
    return type(y)(*merged.values()) if hasattr(y, "_fields") else tuple(merged.values())


@checked
def without(null: AnyNull, *names: Hashable) -> Callable[[Condition], Null]:
    """The null that drops the named conditions alone (Y2), as a function of y.

    ``guidance.pair(field, without(null, "text"))`` leads away from what y is without its text.

    Args:
        null: the null of all of y.
        names: of the conditions that are dropped; at least one.

    Raises:
        ValueError: no names; at a call, a name that none of y's conditions has.

    >>> without({"label": 10, "text": 0}, "text")({"label": 3, "text": 7})
    {'label': 3, 'text': 0}
    """
    if not names:
        raise ValueError("names must be at least one, got none")

    def dropped(y: Condition) -> Condition:
        require_entries("names", names, y)
        nulls = entries(null(y) if callable(null) else null)
        absent = [name for name in names if name not in nulls]
        if absent:
            raise ValueError(f"null must have y's conditions, got none for {absent[0]!r}")
        return _with_entries(y, {name: nulls[name] for name in names})

    return dropped
