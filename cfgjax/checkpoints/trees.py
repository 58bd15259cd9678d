"""Trees as they are stored: typed keys as their numbers, leaves by plain names."""

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from cfgjax.checkpoints.errors import CheckpointError
from cfgjax.types import Array, Tree


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _global(leaf: Array) -> Array:
    """The array as one of all processes, where it is one that each of them holds whole."""
    if jax.process_count() > 1 and leaf.is_fully_addressable:
        return ocp.utils.fully_replicated_host_local_array_to_global_array(leaf)
    return leaf


def stored(tree: Tree) -> Tree:
    """The tree as it is written: typed keys by their numbers, arrays that each process holds whole as common ones."""
    return jax.tree.map(lambda leaf: _global(jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)), tree)


def asked_for(like: Tree) -> Tree:
    """The shapes, types and shardings with which a tree like this one is read."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, stored(like))


def as_before(found: Tree, like: Tree) -> Tree:
    """The tree read by ``asked_for``, with its keys typed and its arrays placed like those of ``like``."""

    def placed(found_leaf: Array, like_leaf: Array) -> Array:
        if _is_key(like_leaf):
            found_leaf = jax.random.wrap_key_data(_local(found_leaf, like_leaf), impl=jax.random.key_impl(like_leaf))
            return jax.device_put(found_leaf, like_leaf.sharding)
        return _local(found_leaf, like_leaf)

    return jax.tree.map(placed, found, like)


def _local(found: Array, like: Array) -> Array:
    """An array of all processes as one of this process alone, where ``like`` is one."""
    if found.is_fully_addressable or not like.is_fully_addressable:
        return found
    return jax.device_put(found.addressable_data(0), like.sharding)


def named(tree: Tree) -> dict[str, Any]:
    """The leaves by their paths, without the brackets that tell a tuple's field from a mapping's key."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def require_same(where: Any, found: Tree, wanted: Tree) -> None:
    """Compares the names and shapes of two stored trees.

    Raises:
        CheckpointError: they differ; the message names the folder and the leaf.
    """
    found_leaves, wanted_leaves = named(found), named(wanted)
    if found_leaves.keys() != wanted_leaves.keys():
        odd = sorted(found_leaves.keys() ^ wanted_leaves.keys())
        raise CheckpointError(f"checkpoint {where} holds another tree than asked for: {odd[0]} is in one only")
    for name, leaf in wanted_leaves.items():
        shape = tuple(found_leaves[name].shape)
        if shape != tuple(leaf.shape):
            raise CheckpointError(f"checkpoint {where}: {name} has shape {shape}, wanted {tuple(leaf.shape)}")
