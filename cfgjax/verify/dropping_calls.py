"""What a function that drops conditions is given, and what became of each condition in every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY, condition_like, require_condition, short_repr
from cfgjax.conditions import Known, as_condition, null_for
from cfgjax.types import Array, Condition, Null, Tree
from cfgjax.verify.call_user import mapped, require_tree_like
from cfgjax.verify.draws import CALLS, DRAWS, LOOPED
from cfgjax.verify.dropping_bugs import alike, leaves_of

Drop = Callable[[Array, Condition], Condition]
"""``(key, y) -> y``, as ``guidance.drop_condition`` with its other arguments closed over."""

EXAMPLES = 64
"""Conditions, each given in turn."""
_LEAST, _ELEMENTS, _SHOWN = 256, 2**22, 8
"""Draws in a call at least; numbers in all of its conditions at most, where that leaves so many; values in a cause."""


class Unit(NamedTuple):
    """What is dropped together: the place of its rate, that rate, the one with ``rate_of_all``, and its conditions."""

    where: str
    own: float
    rate: float
    entries: tuple[int, ...]

    @property
    def prefix(self) -> str:
        """The place, to stand before a row's name."""
        return f"{self.where} " if self.where else ""


class Problem(NamedTuple):
    """Examples y and their nulls, as trees of [64, ...], the places of the conditions in them, and their rates.

    A condition is a ``Known`` or else a leaf.
    """

    y: Condition
    null: Condition
    names: tuple[str, ...]
    units: tuple[Unit, ...]
    rate_of_all: float

    def entry(self, tree: Condition, index: int, row: int) -> Condition:
        """One condition of one example."""
        return entries_of(_rows(tree, row))[index]


def _is_known(node: Any) -> bool:
    return isinstance(node, Known)


@jax.jit
def _rows(tree: Tree, rows: Any) -> Tree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def entries_of(y: Condition) -> list[Condition]:
    """The conditions of y in their order."""
    return jax.tree.leaves(y, is_leaf=_is_known)


def problem_of(null: Null, rates: Tree, draw: Callable[[Array], Condition], rate_of_all: float, seed: int) -> Problem:
    """The problem of ``dropping``'s arguments, with its errors."""
    drawn = [draw(key) for key in jax.random.split(jax.random.key(seed, impl=THREEFRY), EXAMPLES)]
    for y in drawn:
        require_condition("draw's y", y)
    drawn = [condition_like("draw's y", y, as_condition(drawn[0]), "the first") for y in drawn]
    nulls = [null_for(null, y) for y in drawn]
    names = tuple(
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(drawn[0], is_leaf=_is_known)
    )
    if jax.tree.structure(rates) == jax.tree.structure(0):
        rate_of_all = 0.0
    units = _units(rates, drawn[0], rate_of_all)
    for unit in units:
        share = np.mean([_is_null(unit, y, absent) for y, absent in zip(drawn, nulls, strict=True)])
        if share > 0.5:
            raise ValueError(f"draw must mostly give what is not the null, got the null at {unit.where or 'y'}")
    y, absent = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows) for rows in (drawn, nulls))
    return Problem(y, absent, names, units, rate_of_all)


def _is_null(unit: Unit, y: Condition, null: Condition) -> bool:
    own, absent = entries_of(y), entries_of(null)
    return all(alike(leaves_of(own[index]), leaves_of(absent[index])) for index in unit.entries)


def _units(rates: Tree, y: Condition, rate_of_all: float) -> tuple[Unit, ...]:
    found, structure = jax.tree_util.tree_flatten_with_path(rates)
    marks = jax.tree.map(lambda _: 0, y, is_leaf=_is_known)
    try:
        places = jax.tree.leaves(jax.tree.broadcast(jax.tree.unflatten(structure, range(len(found))), marks))
    except ValueError:
        wanted = short_repr(jax.tree.map(jnp.shape, y))
        raise ValueError(
            f"rate must be one number, or a tree of them that y's begins with, {wanted}, got {short_repr(rates)}"
        ) from None
    entries = [tuple(np.flatnonzero(np.asarray(places) == place).tolist()) for place in range(len(found))]
    units = tuple(
        Unit(jax.tree_util.keystr(path), float(own), 1 - (1 - float(own)) * (1 - rate_of_all), own_entries)
        for (path, own), own_entries in zip(found, entries, strict=True)
    )
    if not any(unit.rate for unit in units) or any(0 < unit.rate < 0.01 or unit.rate > 0.99 for unit in units):
        raise ValueError(f"rate must drop something, and nothing under 0.01 or over 0.99, got {short_repr(rates)}")
    return units


class Wrong(NamedTuple):
    """Some values of a condition that are neither what was given nor its null."""

    found: list[Condition]
    given: list[Condition]
    nulls: list[Condition]


class Calls(NamedTuple):
    """Every call: the row of each example [calls, n], the keys, and what became of each condition.

    ``is_given`` and ``is_null`` are [calls, n, conditions].
    """

    rows: np.ndarray
    keys: Array
    is_batched: bool
    is_given: np.ndarray
    is_null: np.ndarray

    def is_wrong(self, index: int) -> np.ndarray:
        """Where a condition is neither y's nor the null's, [calls, n]."""
        return ~self.is_given[..., index] & ~self.is_null[..., index]

    def wrong(self, drop: Drop, problem: Problem, index: int) -> Wrong:
        """Some of those values, of the same calls made again."""
        places = np.argwhere(self.is_wrong(index))
        places = places[np.linspace(0, len(places) - 1, min(len(places), _SHOWN)).astype(int)]
        rows = [int(self.rows[call, place]) for call, place in places]
        found = [entries_of(self._again(drop, problem, call, place))[index] for call, place in places]
        given, nulls = ([problem.entry(tree, index, row) for row in rows] for tree in (problem.y, problem.null))
        return Wrong(found, given, nulls)

    def _again(self, drop: Drop, problem: Problem, call: int, place: int) -> Condition:
        if self.is_batched:
            return _rows(drop(self.keys[call], _rows(problem.y, self.rows[call])), place)
        return drop(self.keys[call * self.rows.shape[1] + place], _rows(problem.y, self.rows[call, place]))


@jax.jit
def _compared(found: Condition, y: Condition, null: Condition) -> Array:
    """Of each condition of ONE example, 1 where it is y's and 2 more where it is the null's."""

    def equal(one: Condition, other: Condition) -> Array:
        leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return jnp.stack([jnp.all(left == right) for left, right in leaves]).all()

    rows = zip(*map(entries_of, (found, y, null)), strict=True)
    return jnp.stack([equal(own, given) + 2 * equal(own, absent) for own, given, absent in rows])


def called(drop: Drop, problem: Problem, is_batched: bool, seed: int) -> Calls:
    """All calls, each with one key or with one for each example; in every call each example comes as often."""
    elements = sum(leaf[0].size for leaf in jax.tree.leaves(problem.y))
    size = int(np.clip(_ELEMENTS // max(elements, 1), _LEAST, DRAWS)) // EXAMPLES * EXAMPLES
    turns = np.tile(np.arange(EXAMPLES), (CALLS * size // EXAMPLES, 1))
    rows = np.random.default_rng(seed).permuted(turns, axis=1).reshape(CALLS, size)
    root = jax.random.fold_in(jax.random.key(seed, impl=THREEFRY), 1)

    def compared(key: Array, row: Array) -> Array:
        y, null = _rows(problem.y, row), _rows(problem.null, row)
        found = as_condition(require_tree_like(drop(key, y), y))
        return (jax.vmap(_compared) if is_batched else _compared)(found, y, null)

    if is_batched:
        keys = jax.random.split(root, CALLS)
        codes = mapped(compared, keys, jnp.asarray(rows), batch_size=1)
    else:
        keys = jax.random.split(root, CALLS * size)
        codes = mapped(compared, keys, jnp.asarray(rows.reshape(-1)), most=LOOPED, batch_size=size)
        rows = rows.reshape(-1)[: len(codes)].reshape(CALLS, -1)
    codes = codes.astype(np.uint8).reshape(*rows.shape, len(problem.names))
    return Calls(rows, keys, is_batched, codes % 2 == 1, codes >= 2)
