"""Checks of numbers and labels, with the lines (K1) and (K2) of ``cfgjax.checks``."""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import Array

_NUMBERS = (jax.Array, np.ndarray, np.generic, int, float, complex)
TINY = float(jnp.finfo(jnp.float32).tiny)
"""The smallest number that counts as positive."""
HUGE = float(jnp.finfo(jnp.float32).max)
"""The largest number that counts as finite."""
BELOW_ONE = 1 - float(jnp.finfo(jnp.float32).epsneg)
"""The largest number that counts as under 1."""
_LEAST = {TINY: "above 0", -BELOW_ONE: "above -1", -HUGE: "", -math.inf: ""}
_MOST = {BELOW_ONE: "under 1", HUGE: "finite", math.inf: ""}


def is_traced(value: object) -> bool:
    """Whether some leaf of the value is known only inside a transformation, so that its number cannot be checked."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def short_repr(value: object) -> str:
    """The value in one short line, for a message."""
    words = " ".join(str(value).split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def kind_of(value: object) -> str:
    """The type of the value, with a number itself, for a message."""
    dtype = getattr(value, "dtype", None)
    return f"{type(value).__name__} {short_repr(value)}" if dtype is None else f"the type {dtype}"


def is_number(value: object, *kinds: Any) -> bool:
    """Whether the value is an array or a number of one of the kinds; True and False are none."""
    if not isinstance(value, _NUMBERS):
        return False
    dtype = getattr(value, "dtype", None)
    return any(jnp.issubdtype(np.asarray(value).dtype if dtype is None else dtype, kind) for kind in kinds)


def of_numpy(value: Any) -> Any:
    """The value, a list or tuple as an array of NumPy."""
    return np.asarray(value) if isinstance(value, list | tuple) and not is_traced(value) else value


def require_real(name: str, value: object) -> None:
    """Raises TypeError for what is neither an array nor a number, or not of real numbers."""
    if not is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must be an array of real numbers or one number, got {kind_of(value)}")


def require_scalar(name: str, value: Any) -> None:
    """Raises TypeError for what is no real number, ValueError for an array of several, also of one in [1]."""
    if not is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must be one real number, got {kind_of(value)}")
    if np.shape(value) != ():
        raise ValueError(f"{name} must be one number for one example, got the shape {np.shape(value)}: map over it")


def require_finite(name: str, value: object) -> None:
    """Raises ValueError, naming the argument, where a concrete value holds inf, NaN, or what becomes inf in JAX.

    Raises TypeError for what are no real numbers; lists are arrays of NumPy.
    """
    value = of_numpy(value)
    require_real(name, value)
    if is_traced(value):
        return
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    if not np.all(np.abs(np.asarray(value, dtype=np.float64)) <= largest):
        raise ValueError(f"{name} must be finite, got {short_repr(value)}")


def require_number(name: str, value: object) -> None:
    """Raises TypeError or ValueError for what is not one real number, finite where concrete."""
    require_scalar(name, value)
    require_finite(name, value)


def _digits(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def between(low: float, high: float) -> str:
    """The numbers from low to high, in the words of a message.

    >>> between(0, 1), between(0, math.inf), between(TINY, HUGE), between(TINY, BELOW_ONE)
    ('in [0, 1]', 'at least 0', 'above 0 and finite', 'above 0 and under 1')
    """
    if low not in _LEAST and high not in _MOST:
        return f"in [{_digits(low)}, {_digits(high)}]"
    ends = _LEAST.get(low, f"at least {_digits(low)}"), _MOST.get(high, f"at most {_digits(high)}")
    return " and ".join(end for end in ends if end)


def require_between(name: str, value: object, low: float, high: float) -> None:
    """Raises TypeError or ValueError for what is not one real number, in [low, high] where concrete."""
    require_scalar(name, value)
    if is_traced(value):
        return
    if not low <= float(np.asarray(value, dtype=np.float64)) <= high:
        raise ValueError(f"{name} must be {between(low, high)}, got {short_repr(value)}")


def require_positive(name: str, value: object) -> None:
    """Raises TypeError or ValueError for what is not one real number, positive and finite where concrete."""
    require_between(name, value, TINY, HUGE)


def is_known_as(value: Any, number: float) -> bool:
    """Whether the value is one number, known because it is not traced, and is this one."""
    is_one = is_number(value, jnp.floating, jnp.integer) and np.shape(value) == ()
    return is_one and not is_traced(value) and float(np.asarray(value, dtype=np.float64)) == number


def require_time(name: str, t: object) -> None:
    """Raises TypeError or ValueError for what is not one time, in [0, 1] where concrete."""
    require_between(name, t, 0, 1)


def require_whole(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Raises TypeError or ValueError for what is not one integer, in [low, high] where concrete."""
    if not is_number(value, jnp.integer):
        raise TypeError(f"{name} must be an integer, got {kind_of(value)}")
    require_between(name, value, low, high)


def require_label(name: str, label: object, last: float = math.inf) -> None:
    """Raises TypeError or ValueError for what is no label: one integer, in 0..last where concrete.

    An index of JAX would take row -1 for the last one, and a label beyond the last for the last, without a word.
    """
    require_whole(name, label, 0, last)


def label_like(name: str, label: Any, like: Any) -> Array:
    """The label in the integer type of another one, [].

    Raises:
        TypeError: not of integer type.
        ValueError: an array of several; where concrete, a negative label or one that the type cannot hold.
    """
    dtype = jnp.result_type(like)
    require_label(name, label, float(jnp.iinfo(dtype).max))
    return jnp.asarray(label, dtype)


def require_count(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Raises TypeError for what is no integer, or a traced one, ValueError for one outside least..most."""
    if is_traced(value) or not is_number(value, jnp.integer) or np.shape(value) != ():
        raise TypeError(f"{name} must be an integer that is not traced, got {kind_of(value)}")
    if not least <= operator.index(value) <= most:
        allowed = between(least, most) if math.isinf(most) else f"in {_digits(least)}..{_digits(most)}"
        raise ValueError(f"{name} must be {allowed}, got {value}")
