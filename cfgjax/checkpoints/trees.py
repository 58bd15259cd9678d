"""Trees as they are stored: typed keys as their numbers, leaves by plain names."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cfgjax.checkpoints.errors import CheckpointError
from cfgjax.checks import require_arrays, short_repr
from cfgjax.contracts import Contract
from cfgjax.types import Array, Tree

KeyPath = tuple[Any, ...]
"""A leaf's way from the root, as JAX gives it."""


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


def to_abstract(like: Tree) -> Tree:
    """The shapes, types and shardings with which a tree like this one is read."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, stored(like))


def place_like(found: Tree, like: Tree) -> Tree:
    """The tree read by ``to_abstract``, with its keys typed and its arrays placed like those of ``like``."""

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


def _name(path: KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _place(path: KeyPath) -> str:
    """Where Orbax 0.12 puts a leaf: its keys joined by dots; tensorstore ends that by a slash where none is."""
    return ".".join(ocp.tree.str_keypath(path)).removesuffix("/")


def flatten_with_names(tree: Tree) -> dict[str, Any]:
    """The leaves by their paths, without the brackets that tell a tuple's field from a mapping's key."""
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def places(tree: Tree) -> dict[str, str]:
    """Where each leaf of ``flatten_with_names`` lies in the folder, as of ``save.read_back``."""
    return {_name(path): _place(path) for path, _ in jax.tree.leaves_with_path(tree)}


def _require_keys(argument: str, tree: Tree) -> None:
    """Raises ValueError for containers whose keys Orbax does not know, mixes up, or cannot write as UTF-8."""
    try:
        ocp.tree.serialize_tree(tree, keep_empty_nodes=True)
        for path, _ in jax.tree.leaves_with_path(tree):
            _place(path).encode()
    except (ValueError, AssertionError) as error:
        raise ValueError(
            f"{argument} must have as keys names in UTF-8, or else numbers, got {short_repr(tree)}"
        ) from error


def require_storable(argument: str, tree: Tree) -> None:
    """Raises TypeError for a leaf that is no array, ValueError for one that Orbax refuses or would misplace."""
    require_arrays(argument, tree)
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves or not leaves[0][0]:
        raise ValueError(f"{argument} must be a container of at least one array, got {short_repr(tree)}")
    _require_keys(argument, tree)
    taken: dict[tuple[str, str], str] = {}
    for path, leaf in leaves:
        where = f"{argument}{jax.tree_util.keystr(path)}"
        if 0 in np.shape(leaf):
            raise ValueError(f"{where} must have at least one element to be stored, got the shape {np.shape(leaf)}")
        for kind, name in (("name", _name(path)), ("place", _place(path))):
            first = taken.setdefault((kind, name), where)
            if first != where:
                raise ValueError(f"{where} would have the {kind} {name!r} of {first} in the checkpoint: rename one")


StorableTree = Annotated[Tree, Contract(require_storable)]
"""A container of at least one array, none of them empty, whose keys are names in UTF-8 or numbers.

No two leaves have keys that are the same once joined by dots or slashes.
"""


def holds_parameters_alone(tree: Tree) -> bool:
    """Whether a stored tree is {"params": ...} and nothing beside, with neither optimizer nor averages."""
    return isinstance(tree, dict) and list(tree) == ["params"]


def require_same(where: Any, found: Tree, wanted: Tree) -> None:
    """Compares the names and shapes of two stored trees.

    Raises:
        CheckpointError: they differ; the message names the folder and the leaf.
    """
    found_leaves, wanted_leaves = flatten_with_names(found), flatten_with_names(wanted)
    if found_leaves.keys() != wanted_leaves.keys():
        odd = sorted(found_leaves.keys() ^ wanted_leaves.keys())
        raise CheckpointError(f"checkpoint {where} holds another tree than asked for: {odd[0]} is in one only")
    for name, leaf in wanted_leaves.items():
        shape = tuple(found_leaves[name].shape)
        if shape != tuple(leaf.shape):
            raise CheckpointError(f"checkpoint {where}: {name} has shape {shape}, wanted {tuple(leaf.shape)}")
