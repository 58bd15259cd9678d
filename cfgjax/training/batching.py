"""Batches: how many examples, and their share for each device."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from cfgjax.checks import short_repr
from cfgjax.contracts import PositiveInt, checked
from cfgjax.types import Tree


def num_examples(batch: Tree) -> int:
    """The common leading size of the batch's leaves.

    Raises:
        ValueError: no leaves, a leaf without a leading axis or without examples, leaves of different leading sizes.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"batch must be arrays with a common leading axis of at least 1, got the shapes {shapes}")
    return sizes.pop()


def require_divisible(batch: Tree, num_parts: int, name: str) -> None:
    """Raises ValueError for a batch whose examples a number of parts does not divide; ``name`` is what it is called."""
    found = num_examples(batch)
    if found % num_parts:
        raise ValueError(f"batch_size must be divisible by {name}, got {found} on {num_parts}")


def require_sharded(batch: Tree, num_devices: int, what: str, example_axis: int = 0) -> None:
    """Raises ValueError for a batch without so many devices in front, or of examples that are on another axis."""
    made = "training.shard_stacked(batches, " if example_axis else "training.shard(batch, "
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    wrong = [shape for shape in shapes if len(shape) < 2 + example_axis or shape[0] != num_devices]
    if wrong or not shapes:
        found = f"a leaf of shape {wrong[0]}" if wrong else "no leaf"
        wanted = f"batch must have the {num_devices} {what} in front, as of {made}{num_devices}), got {found}"
        raise ValueError(wanted)


@checked
def shard(batch: Tree, num_devices: PositiveInt) -> Tree:
    """The batch with a device axis in front: each leaf [B, ...] becomes [num_devices, B / num_devices, ...].

    Raises:
        ValueError: a number of devices that does not divide the batch; a batch without arrays, or whose leading axes
            differ.
    """
    require_divisible(batch, num_devices, "the number of devices")
    return jax.tree.map(lambda leaf: leaf.reshape((num_devices, -1, *leaf.shape[1:])), batch)


@checked
def shard_stacked(batches: Sequence[Tree], num_devices: PositiveInt) -> Tree:
    """K batches for a ``multi_step``: K leaves [B, ...] become one [num_devices, K, B / num_devices, ...].

    Raises:
        ValueError: no batches, batches that are not alike, and those of ``shard``.
    """
    if not batches:
        raise ValueError("batches must be at least one, got none")
    kinds = [jax.tree.map(np.shape, batch) for batch in batches]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"batches must be alike, got the shapes {short_repr(kinds)}")
    shards = [shard(batch, num_devices) for batch in batches]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves], axis=1), *shards)
