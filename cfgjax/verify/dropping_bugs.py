"""What became of a condition that is neither itself nor its null, in words."""

from __future__ import annotations

import jax
import numpy as np

from cfgjax.conditions import Known
from cfgjax.types import Condition
from cfgjax.verify.report import UNKNOWN

Leaves = list[np.ndarray]
"""The leaves of ONE condition."""


def at(where: str) -> str:
    """The place of a condition, to stand in a sentence; nothing where it is all of y."""
    return f" at {where}" if where else ""


def leaves_of(entry: Condition) -> Leaves:
    """The leaves as arrays of NumPy."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(entry)]


def alike(first: Leaves, second: Leaves) -> bool:
    """Whether all values are equal; -0 is 0."""
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


def constant(found: list[Condition]) -> Leaves | None:
    """What all of the conditions are, or None."""
    rows = [leaves_of(each) for each in found]
    return rows[0] if rows and all(alike(rows[0], row) for row in rows) else None


def value_cause(where: str, found: list[Condition], given: list[Condition], nulls: list[Condition]) -> str:
    """The words for some conditions, each of which is neither what was given nor its null."""
    if constant(found) is not None:
        return f"what is dropped{at(where)} becomes {_shown(found[0])}, and the null there is {_shown(nulls[0])}"
    rows = [list(map(leaves_of, row)) for row in zip(found, given, nulls, strict=True)]
    parts = {_parts(where, found[0], *row) for row in rows}
    if len(parts) == 1 and None not in parts:
        return str(parts.pop())
    if all(_is_elementwise(*row) for row in rows):
        return f"the elements{at(where)} are dropped one by one, and should be dropped together"
    factor = _factor(rows)
    if factor is not None:
        return f"what is kept{at(where)} is {factor:.3g} times y, as by dropout that scales what it keeps"
    return f"{UNKNOWN}; what comes out{at(where)} is neither y's nor the null's"


def _shown(entry: Condition) -> str:
    """A condition in few words: numbers, or how many there are."""
    if isinstance(entry, Known):
        return f"Known({_shown(entry.value)}, {_shown(entry.is_known)})"
    return ", ".join(map(_number, leaves_of(entry)))


def _number(leaf: np.ndarray) -> str:
    values = np.unique(leaf)
    if len(values) == 1:
        return str(values[0]) if leaf.dtype == bool else f"{values[0]:g}"
    return " ".join(str(np.round(leaf, 4)).split()) if leaf.size <= 4 else f"values of shape {leaf.shape}"


def _parts(where: str, entry: Condition, found: Leaves, given: Leaves, null: Leaves) -> str | None:
    """The words for a leaf that is dropped beside one that is kept; None where one is neither."""
    names = [where + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(entry)]
    kept = [name for name, own, y in zip(names, found, given, strict=True) if np.array_equal(own, y)]
    dropped = [name for name, own, absent in zip(names, found, null, strict=True) if np.array_equal(own, absent)]
    alone = [name for name in dropped if name not in kept], [name for name in kept if name not in dropped]
    if len(set(kept) | set(dropped)) < len(names) or not all(alone):
        return None
    return f"{alone[0][0]} is dropped and {alone[1][0]} is kept"


def _is_elementwise(found: Leaves, given: Leaves, null: Leaves) -> bool:
    return all(np.all((own == y) | (own == absent)) for own, y, absent in zip(found, given, null, strict=True))


def _factor(rows: list[list[Leaves]]) -> float | None:
    """The factor of y that all that is not 0 has; None where there is none."""
    own, y = (
        np.concatenate([np.zeros(0), *(np.ravel(leaf) for row in rows for leaf in row[side] if leaf.dtype.kind == "f")])
        for side in (0, 1)
    )
    own, y = own[own != 0], y[own != 0]
    if not np.any(y):
        return None
    factor = float(np.vdot(y, own) / np.vdot(y, y))
    return factor if np.allclose(own, factor * y, rtol=1e-3, atol=0) else None
