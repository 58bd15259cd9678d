"""Checks of conditions and of what takes their place, with the lines (K1) and (K2) of ``cfgjax.checks``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks.numbers import (
    is_number,
    is_traced,
    kind_of,
    label_like,
    require_between,
    require_finite,
    require_label,
    short_repr,
)
from cfgjax.types import Array, Condition

_LEAF = jax.tree.structure(0)
_KINDS = {jnp.bool_: "booleans", jnp.integer: "integers", jnp.floating: "floating-point numbers"}


def is_label(y: Any) -> bool:
    """Whether a condition is a label: ONE integer, in no container."""
    return is_number(y, jnp.integer) and np.shape(y) == ()


def _where(name: str, path: tuple[Any, ...]) -> str:
    return f"{name}{jax.tree_util.keystr(path)}"


def _require_leaf(name: str, leaf: Any) -> None:
    if not is_number(leaf, jnp.floating, jnp.integer, jnp.bool_):
        raise TypeError(f"{name} must be an array of real numbers or booleans, got {kind_of(leaf)}")
    if is_number(leaf, jnp.floating):
        require_finite(name, leaf)


def require_condition(name: str, y: Any) -> None:
    """Raises TypeError or ValueError for what is no condition: neither a label nor a tree of at least one array.

    A label is no boolean, and where concrete not negative; floating-point numbers are finite where concrete.
    """
    if jax.tree.structure(y) == _LEAF and np.shape(y) == () and not is_number(y, jnp.floating):
        require_label(name, y)
        return
    leaves = jax.tree_util.tree_leaves_with_path(y)
    if not leaves:
        raise TypeError(f"{name} must be a label or a tree of arrays, got {type(y).__name__} {short_repr(y)}")
    for path, leaf in leaves:
        _require_leaf(_where(name, path), leaf)


def require_null(name: str, null: Any) -> None:
    """Raises TypeError or ValueError for what is no null: no condition, and no function of one."""
    if not callable(null):
        require_condition(name, null)


def _kind(dtype: Any) -> str:
    return next(words for kind, words in _KINDS.items() if jnp.issubdtype(dtype, kind))


def _leaf_like(name: str, leaf: Any, like: Any, of: str) -> Array:
    if np.shape(leaf) != np.shape(like):
        raise ValueError(f"{name} must have the shape that {of} has there, {np.shape(like)}, got {np.shape(leaf)}")
    given, wanted = (_kind(jnp.result_type(each)) for each in (leaf, like))
    if given != wanted:
        raise TypeError(f"{name} must be of {wanted}, as {of} is there, got {kind_of(leaf)}")
    dtype = jnp.result_type(like)
    if wanted == "integers" and not is_traced(leaf):
        least, most = int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
        if not (np.all(np.asarray(leaf) >= least) and np.all(np.asarray(leaf) <= most)):
            raise ValueError(f"{name} must be in [{least}, {most}], as {of} is {dtype} there, got {short_repr(leaf)}")
    return jnp.asarray(leaf, dtype)


def condition_like(name: str, condition: Condition, y: Condition, of: str = "y") -> Condition:
    """The condition in the types of y, found to be of its structure, shapes and kinds; of a label as ``label_like``.

    Raises:
        TypeError, ValueError: a label beside a y (called ``of``) that is none, a y that is a label beside what is none;
            another structure; a leaf of another shape or kind, named; an integer that y's type cannot hold.
    """
    if is_label(condition) and jax.tree.structure(y) != _LEAF:
        raise TypeError(f"{name} must have the structure of {of}, {_shapes(y)}, got the label {short_repr(condition)}")
    if is_label(condition):
        require_label(of, y)
    if is_label(y):
        return label_like(name, condition, y)
    if jax.tree.structure(condition) != jax.tree.structure(y):
        raise ValueError(f"{name} must have the structure of {of}, {_shapes(y)}, got {_shapes(condition)}")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, like: _leaf_like(_where(name, path), leaf, like, of), condition, y
    )


def _shapes(tree: Any) -> str:
    return short_repr(jax.tree.map(np.shape, tree))


def entries(y: Condition) -> dict[Hashable, Condition]:
    """The conditions that y holds, by their names.

    Raises:
        TypeError: a y that is neither a dict nor a tuple.
    """
    if isinstance(y, Mapping):
        return dict(y)
    if isinstance(y, tuple):
        return dict(zip(getattr(y, "_fields", range(len(y))), y, strict=True))
    raise TypeError(f"y must be a dict or a tuple of conditions here, got {type(y).__name__} {short_repr(y)}")


def require_entries(name: str, names: tuple[Hashable, ...], y: Condition) -> None:
    """Raises ValueError for names that y's conditions do not have, TypeError for a y that has none."""
    there = entries(y)
    missing = [each for each in names if each not in there]
    if missing:
        raise ValueError(f"{name} must be of y's conditions, {', '.join(map(repr, there))}; got {missing[0]!r}")


def require_rates(name: str, rates: Any, most: float = 1) -> None:
    """Raises TypeError or ValueError for what is neither one number nor a tree of them, in [0, most] where concrete."""
    leaves = jax.tree_util.tree_leaves_with_path(rates)
    if not leaves:
        raise TypeError(f"{name} must be one number or a tree of them, got {type(rates).__name__} {short_repr(rates)}")
    for path, rate in leaves:
        require_between(_where(name, path), rate, 0, most)
