"""Whole sweeps in one compiled call: every combination of scales, intervals, diffusions, keys and labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_own_draws
from cfgjax.contracts import PositiveInt, checked
from cfgjax.types import Tree


@checked
def sweep(draw: Callable[..., Tree], *axes: Tree, chunk: PositiveInt = 8192) -> Tree:
    """``draw(a_i, b_j, ...)`` for every point of the product of the axes, with one leading axis for each of them.

    Everything that is swept is traced, so that under ``jax.jit`` one trace and one compilation serve the whole sweep,
    and another sweep of the same sizes. An interval's ``start`` and ``stop`` are then traced as well, and both sides
    of guidance are evaluated at all times.

    Args:
        draw: a function of one point, for example (key, label, scale, interval's ends) -> one sample.
        axes: for each argument of ``draw`` a tree of arrays with one common leading axis: a tuple of arrays is swept
            in step, as (keys, labels) for sample i with its own label.
        chunk: how many points are computed together at most, to bound the memory. All chunks are of one size, and the
            last is filled up with its last point.

    Returns:
        The tree of results, each leaf [n_1, n_2, ..., *its shape].

    Raises:
        TypeError, ValueError: no axes, an axis without or with different leading sizes, of what are no arrays or of
            keys that are not threefry's.

    >>> sweep(lambda a, b: 10 * a + b, jnp.arange(3), jnp.arange(2)).tolist()
    [[0, 1], [10, 11], [20, 21]]
    """
    if not axes:
        raise ValueError("axes must be at least one")
    sizes = tuple(_size(number, axis) for number, axis in enumerate(axes))
    count = math.prod(sizes)
    axes = tuple(jax.tree.map(jnp.asarray, axis) for axis in axes)

    def at(index: jax.Array) -> Tree:
        places = jnp.unravel_index(index, sizes)
        point = (jax.tree.map(lambda leaf, i=i: leaf[i], axis) for i, axis in zip(places, axes, strict=True))
        return draw(*point)

    num_calls = math.ceil(count / chunk)
    size = math.ceil(count / num_calls)
    indices = jnp.minimum(jnp.arange(num_calls * size), count - 1)
    flat = jax.lax.map(at, indices, batch_size=size)
    return jax.tree.map(lambda leaf: leaf[:count].reshape(*sizes, *leaf.shape[1:]), flat)


def _size(number: int, axis: Tree) -> int:
    """The common leading size of an axis."""
    for leaf in jax.tree.leaves(axis):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            raise TypeError(f"axis {number} must be arrays, got {type(leaf).__name__}")
        require_own_draws(f"axis {number}", leaf)
    sizes = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(axis)}
    size = sizes.pop() if len(sizes) == 1 else 0
    if size == 0:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(axis)]
        raise ValueError(f"axis {number} must be arrays with a common leading axis of at least 1, got shapes {shapes}")
    return size
