"""A checksum for each array of a tree, the same wherever and however the array lies.

(K1) An array's words w_i are its bits as 32-bit words, i its flat index, numbers of fewer bits widened.
(K2) Its checksum is the pair (sum_i w_i a_i, sum_i w_i b_i) modulo 2^32, a_i and b_i being odd numbers mixed from i.
     A sum has no order: a cut array's is the sum over its pieces, on whatever devices they lie.
(K3) A word that changes by d changes the first sum by d a_i. As a_i is odd this is not 0 modulo 2^32: a change of one
     word is always seen. Changes of several words are missed with probability about 2^-64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_kind, short_repr
from cfgjax.contracts import Contract, checked
from cfgjax.types import Array

Checksums = dict[str, str]
"""A leaf's name -> its checksum, 16 hexadecimal digits."""

_SEEDS = np.uint32(0x9E3779B9), np.uint32(0x7F4A7C15)
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint32}
_PIECE = 2**22
"""Words that are summed at a time on the host."""
_LARGE = 2**20
"""Numbers of the smallest array that is summed by itself: a program of many large ones holds the words of all."""


def _odd(index: Any, seed: np.uint32) -> Any:
    """(K2)'s factors of indices: the finaliser of MurmurHash3, with its last bit set."""
    mixed = index ^ seed
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (mixed ^ (mixed >> np.uint32(16))) | np.uint32(1)


def _words(leaf: Array) -> Array:
    """(K1)'s words, [*D], or [*D, 2] of numbers of 64 bits."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)


def _flat_index(shape: tuple[int, ...]) -> Array:
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return index


def _checksum(leaf: Array) -> list[Array]:
    words = _words(leaf)
    index = _flat_index(words.shape)
    return [jnp.sum(words * _odd(index, seed), dtype=jnp.uint32) for seed in _SEEDS]


@jax.jit
def _on_devices(leaves: list[Array]) -> list[list[Array]]:
    return [_checksum(leaf) for leaf in leaves]


def _pair_alone(leaf: list[Array]) -> list[np.ndarray]:
    """The checksum of one array, waited for."""
    return jax.device_get(_on_devices(leaf))[0]


def _hexadecimal(pair: Sequence[Any]) -> str:
    return "".join(f"{int(number):08x}" for number in pair)


def _require_words(name: str, leaf: Any) -> None:
    """Raises TypeError for what has no words (K1)."""
    dtype = getattr(leaf, "dtype", None)
    is_number = dtype is not None and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)
    )
    if not (is_number and dtype.itemsize in _UNSIGNED):
        found = f"{type(leaf).__name__} {short_repr(leaf)}" if dtype is None else f"the type {dtype}"
        raise TypeError(f"{name} must be an array of real numbers of 8 to 64 bits, got {found}")


def _require_all_words(name: str, leaves: Any) -> None:
    require_kind(name, leaves, Mapping, "a mapping of names to arrays")
    for leaf_name, leaf in leaves.items():
        _require_words(f"{name}[{leaf_name!r}]", leaf)


@checked
def checksums(leaves: Annotated[Mapping[str, Array], Contract(_require_all_words)]) -> Checksums:
    """The checksum (K2) of each named array, computed where the arrays lie.

    Args:
        leaves: name -> an array of any shape, of 8 to 64 bits a number, and no typed key.
    """
    large = {name: [leaf] for name, leaf in leaves.items() if leaf.size >= _LARGE}
    small = [leaf for name, leaf in leaves.items() if name not in large]
    pairs = iter(jax.device_get(_on_devices(small)))
    return {name: _hexadecimal(_pair_alone(large[name]) if name in large else next(pairs)) for name in leaves}


@checked
def host_checksum(leaf: Annotated[np.ndarray, Contract(_require_words)]) -> str:
    """The checksum (K2) of an array in the host's memory, computed there."""
    flat = np.ascontiguousarray(leaf).reshape(-1)
    words = flat.view(_UNSIGNED[flat.dtype.itemsize])
    sums = [0, 0]
    for start in range(0, len(words), _PIECE):
        piece = words[start : start + _PIECE].astype(np.uint32)
        index = np.arange(start, start + len(piece)).astype(np.uint32)
        sums = [
            total + int(np.sum(piece * _odd(index, seed), dtype=np.uint32))
            for total, seed in zip(sums, _SEEDS, strict=True)
        ]
    return _hexadecimal([total % 2**32 for total in sums])
