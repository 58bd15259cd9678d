"""Checks at the door: one clear error for a bad argument, and silence for a traced number.

(K1) Types, shapes and dtypes are known while JAX traces, and are always checked; a number only where it is concrete.
(K2) A wrong type gets a TypeError, a wrong shape or number a ValueError. Either names the argument, what was given and
     what is allowed, in one line.
"""

import math
import operator
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import Array, Pair, Times

_NUMBERS = (jax.Array, np.ndarray, np.generic, int, float, complex)
TINY = float(jnp.finfo(jnp.float32).tiny)
"""The smallest number that counts as positive."""
HUGE = float(jnp.finfo(jnp.float32).max)
"""The largest number that counts as finite."""


def is_traced(value: object) -> bool:
    """Whether some leaf of the value is known only inside a transformation, so that its number cannot be checked."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def shown(value: object) -> str:
    """The value in one short line, for a message."""
    words = " ".join(str(value).split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def _kind(value: object) -> str:
    dtype = getattr(value, "dtype", None)
    return f"{type(value).__name__} {shown(value)}" if dtype is None else f"the type {dtype}"


def _is_number(value: object, *kinds: Any) -> bool:
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
    if not _is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must be an array of real numbers or one number, got {_kind(value)}")


def require_scalar(name: str, value: Any) -> None:
    """Raises TypeError for what is no real number, ValueError for an array of several, also of one in [1]."""
    if not _is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must be one real number, got {_kind(value)}")
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
        raise ValueError(f"{name} must be finite, got {shown(value)}")


def require_number(name: str, value: object) -> None:
    """Raises TypeError or ValueError for what is not one real number, finite where concrete."""
    require_scalar(name, value)
    require_finite(name, value)


def require_between(name: str, value: object, low: float, high: float) -> None:
    """Raises TypeError or ValueError for what is not one real number, in [low, high] where concrete."""
    require_scalar(name, value)
    if is_traced(value):
        return
    if not low <= float(np.asarray(value, dtype=np.float64)) <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {shown(value)}")


def require_positive(name: str, value: object) -> None:
    """Raises TypeError or ValueError for what is not one real number, positive and finite where concrete."""
    require_between(name, value, TINY, HUGE)


def require_time(name: str, t: object) -> None:
    """Raises TypeError or ValueError for what is not one time, in [0, 1] where concrete."""
    require_between(name, t, 0, 1)


def require_whole(name: str, value: object, low: float, high: float = math.inf) -> None:
    """Raises TypeError or ValueError for what is not one number of integer type, in [low, high] where concrete."""
    if not _is_number(value, jnp.integer):
        raise TypeError(f"{name} must be a whole number of integer type, got {_kind(value)}")
    require_between(name, value, low, high)


def require_label(name: str, label: object, last: float = math.inf) -> None:
    """Raises TypeError or ValueError for what is no label: one number of integer type, in 0..last where concrete.

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
    """Raises TypeError for what is no whole number, or a traced one, ValueError for one outside least..most."""
    if is_traced(value) or not _is_number(value, jnp.integer) or np.shape(value) != ():
        raise TypeError(f"{name} must be a whole number that is not traced, got {_kind(value)}")
    if not least <= operator.index(value) <= most:
        allowed = f"at least {least:g}" if math.isinf(most) else f"in {least:g}..{most:g}"
        raise ValueError(f"{name} must be {allowed}, got {value}")


@cache
def _raw_key_shape() -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def require_key(name: str, key: Any) -> None:
    """Raises TypeError for what is no key, of the typed or the raw kind, ValueError for several keys."""
    is_typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32
    if not (is_typed or is_raw):
        raise TypeError(f"{name} must be a key, as jax.random.key(0) is, got {_kind(key)}")
    if key.shape != (() if is_typed else _raw_key_shape()):
        raise ValueError(f"{name} must be ONE key, as jax.random.key(0) is, got the shape {key.shape}: map over it")


def require_function(name: str, value: object) -> None:
    """Raises TypeError for what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {type(value).__name__}")


def require_path(path: object, name: str = "path") -> None:
    """Raises TypeError for what has not the two schedules of a path; a maker that was not called has none."""
    if not (callable(getattr(path, "alpha", None)) and callable(getattr(path, "beta", None))):
        raise TypeError(f"{name} must be a GaussianPath, as paths.linear() is, got {type(path).__name__}")


def require_kind(name: str, value: object, kind: type | tuple[type, ...], example: str) -> None:
    """Raises TypeError for what is not of a class; ``example`` says in words how to make one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {example}, got {type(value).__name__}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ValueError for what is none of the names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {shown(repr(value))}")


def require_pair(pair: object) -> None:
    """Raises ValueError for what is no Pair: a field, or the Piecewise of pairs that a piecewise field makes."""
    if not isinstance(pair, Pair):
        raise ValueError(f"pair must be a Pair, as guidance.pair(field, null_label) of a plain field is, got {pair!r}")


def require_shape(name: str, value: Any, shape: tuple[int, ...], verb: str = "have") -> None:
    """Raises TypeError for what are no real numbers, ValueError for another shape; a function's value it must give."""
    if not _is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must {verb} real numbers of the shape {shape}, got {_kind(value)}")
    try:
        chex.assert_shape(value, shape)
    except AssertionError:
        raise ValueError(f"{name} must {verb} the shape {shape}, got {np.shape(value)}") from None


def require_rank(name: str, value: Any, rank: int) -> None:
    """Raises TypeError or ValueError for a function's value that is no array of so many axes, none of them empty."""
    if not _is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must give an array of real numbers, got {_kind(value)}")
    if np.ndim(value) != rank or 0 in np.shape(value):
        raise ValueError(f"{name} must give an array of rank {rank} that is not empty, got the shape {np.shape(value)}")


def require_like(name: str, value: Any, like: Any) -> Any:
    """The value, once its shape is found to be that of another one: nothing is spread over axes by accident.

    Raises:
        TypeError: what are no real numbers.
        ValueError: another shape, naming the argument.
    """
    require_shape(name, value, np.shape(like), "give")
    return value


def require_point(x: Any, t: Any) -> None:
    """Raises TypeError or ValueError for a state of no real numbers, and for what is not one time in [0, 1]."""
    require_real("x", x)
    require_time("t", t)


def like_state(name: str, field: Callable[..., Any]) -> Callable[..., Array]:
    """The field (x, t, ...) -> like x, whose every value is found to have the shape of x.

    Raises:
        TypeError: what cannot be called, at once; at a call, a state, a time or values that are no real numbers.
        ValueError: at a call, values of another shape, several times, or where concrete a time outside [0, 1].
    """
    require_function(name, field)

    def checked(x: Array, t: Array, *rest: Any) -> Array:
        require_point(x, t)
        return require_like(name, field(x, t, *rest), x)

    return checked


def require_times(ts: Times, is_forward_only: bool = False) -> None:
    """Raises TypeError or ValueError for what is no grid: [n + 1] floating-point times, monotone in [0, 1].

    In the precision that JAX computes in: two times of NumPy may be one there.
    """
    require_real("ts", ts)
    if np.ndim(ts) != 1 or np.shape(ts)[0] < 2:
        raise ValueError(f"ts must be a 1-D grid of at least 2 times, got shape {np.shape(ts)}")
    if not jnp.issubdtype(ts.dtype, jnp.floating):
        raise ValueError(f"ts must be of floating-point type, got {ts.dtype}")
    if is_traced(ts):
        return
    times = np.asarray(ts).astype(jax.dtypes.canonicalize_dtype(ts.dtype)).astype(np.float64)
    if not np.all(np.isfinite(times)):
        raise ValueError(f"ts must be finite, got {shown(times)}")
    if not (np.all(np.diff(times) > 0) or np.all(np.diff(times) < 0)):
        raise ValueError(f"ts must increase (or decrease) at every step, got {shown(times)}")
    if not (min(times) >= 0 and max(times) <= 1):
        raise ValueError(f"ts must be in [0, 1], got {shown(times)}")
    if is_forward_only and times[0] > times[-1]:
        raise ValueError(f"ts must increase for a solver that runs forwards only, got {shown(times)}")


def rows_of(name: str, values: Any, least: int = 1, ndim: int | None = None) -> np.ndarray:
    """The examples of a set on the host, [n, ...] in float64.

    Raises:
        TypeError: what are no real numbers.
        ValueError: fewer than ``least`` examples, another number of axes, or numbers that are not finite.
    """
    values = of_numpy(values)
    require_real(name, values)
    array = np.asarray(values, np.float64)
    if array.ndim == 0 or len(array) < least or (ndim is not None and array.ndim != ndim):
        wanted = {None: "[n, ...]", 1: "[n]", 2: "[n, d]"}[ndim]
        raise ValueError(f"{name} must be {wanted} with n at least {least}, got shape {array.shape}")
    if array.size == 0 or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite and not empty, got {shown(array)}")
    return array


def _is_leaf(leaf: Any, is_shape_enough: bool) -> bool:
    if is_shape_enough:
        return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return isinstance(leaf, jax.Array | bool) or _is_number(leaf, jnp.number, jnp.bool_)


def require_arrays(name: str, tree: Any, is_shape_enough: bool = False) -> None:
    """Raises TypeError for a tree with a leaf that is neither array nor number; the message names the leaf.

    Where ``is_shape_enough`` a leaf may be the shape and type of an array alone, but must have both.
    """
    if all(_is_leaf(leaf, is_shape_enough) for leaf in jax.tree.leaves(tree)):
        return
    allowed = "arrays, or their shapes and types" if is_shape_enough else "arrays or numbers"
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    path, leaf = next((path, leaf) for path, leaf in leaves if not _is_leaf(leaf, is_shape_enough))
    where = jax.tree_util.keystr(path)
    raise TypeError(f"{name}{where} must be of {allowed}, got {type(leaf).__name__} {shown(leaf)}")


def require_integers(name: str, value: object) -> None:
    """Raises TypeError for what is neither an array nor a number of integer type."""
    if not _is_number(value, jnp.integer):
        raise TypeError(f"{name} must be an array of whole numbers, got {_kind(value)}")


def require_floats(name: str, tree: Any) -> None:
    """Raises TypeError for a tree with a leaf of no floating-point numbers, ValueError for one without leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name} must be a tree of at least one array, got {shown(tree)}")
    for path, leaf in leaves:
        if not _is_number(leaf, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"{name}{where} must be an array of floating-point numbers, got {_kind(leaf)}")


def require_devices(devices: object) -> None:
    """Raises TypeError for what are no devices, ValueError for none or one of them twice; None stands for all."""
    if devices is None:
        return
    if not isinstance(devices, list | tuple) or not all(isinstance(device, jax.Device) for device in devices):
        raise TypeError(
            f"devices must be a list of devices, as jax.devices() is, or None for all, got {shown(devices)}"
        )
    if not devices or len(set(devices)) < len(devices):
        raise ValueError(f"devices must be at least one, and differ, got {shown(devices)}")


def require_text(name: str, value: object) -> None:
    """Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {type(value).__name__} {shown(value)}")


def require_place(name: str, path: object) -> None:
    """Raises TypeError for what is no path of a file or a folder."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be a path, as pathlib.Path('folder') is, got {type(path).__name__} {shown(path)}")
