"""Checks at the door: one clear error for a bad argument, and silence for a traced one."""

import chex
import jax
import numpy as np

from cfgjax.types import Array, Pair


def is_traced(value: object) -> bool:
    """Whether some leaf of the value is known only inside a transformation, so that its number cannot be checked."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def require_finite(name: str, value: object) -> None:
    """Raises ValueError, naming the argument, where a concrete value holds inf or NaN."""
    if is_traced(value):
        return
    if not np.all(np.isfinite(np.asarray(value, dtype=np.float64))):
        raise ValueError(f"{name} must be finite, got {value}")


def require_between(name: str, value: object, low: float, high: float) -> None:
    """Raises ValueError, naming the argument, where a concrete value is not in [low, high]."""
    if is_traced(value):
        return
    array = np.asarray(value, dtype=np.float64)
    if not np.all((array >= low) & (array <= high)):
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}")


def require_pair(pair: object) -> None:
    """Raises ValueError for what is no Pair: a field, or the Piecewise of pairs that a piecewise field makes."""
    if not isinstance(pair, Pair):
        raise ValueError(f"pair must be a Pair, as guidance.pair(field, null_label) of a plain field is, got {pair!r}")


def require_like(name: str, value: Array, like: Array) -> Array:
    """The value, once its shape is found to be that of another one: nothing is spread over axes by accident.

    Raises:
        ValueError: another shape, naming the argument.
    """
    message = f"{name} must give the shape {like.shape}, got {value.shape}"
    chex.assert_equal_shape(
        [value, like], custom_message=message, include_default_message=False, exception_type=ValueError
    )
    return value
