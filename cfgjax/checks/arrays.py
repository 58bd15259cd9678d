"""Checks of arrays, grids, trees and fields, with the lines (K1) and (K2) of ``cfgjax.checks``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks.kinds import require_function
from cfgjax.checks.numbers import is_number, is_traced, kind_of, of_numpy, require_real, require_time, short_repr
from cfgjax.types import Array, Times

_POINT = "x", "t", "y", "w"


def require_shape(name: str, value: Any, shape: tuple[int, ...], verb: str = "have") -> None:
    """Raises TypeError for what are no real numbers, ValueError for another shape; a function's value it must give."""
    if not is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must {verb} real numbers of the shape {shape}, got {kind_of(value)}")
    try:
        chex.assert_shape(value, shape)
    except AssertionError:
        raise ValueError(f"{name} must {verb} the shape {shape}, got {np.shape(value)}") from None


def require_rank(name: str, value: Any, rank: int) -> None:
    """Raises TypeError or ValueError for a function's value that is no array of so many axes, none of them empty."""
    if not is_number(value, jnp.floating, jnp.integer):
        raise TypeError(f"{name} must give an array of real numbers, got {kind_of(value)}")
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


def _accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _require_arguments(name: str, field: Callable[..., Any], count: int) -> None:
    """Raises TypeError for a field that does not take so many arguments: of (x, t), (x, t, y) or (x, t, y, w)."""
    try:
        signature = inspect.signature(field)
    except (TypeError, ValueError):
        return
    if _accepts(signature, count):
        return
    hints = {2: ", which wants a label: guidance.given(field, y) fixes it", 3: ", whose label is fixed already"}
    is_other = count in hints and _accepts(signature, 5 - count)
    wanted, given = _POINT[:count], _POINT[: 5 - count] if is_other else signature.parameters
    hint = hints[count] if is_other else ""
    raise TypeError(
        f"{name} must be a function of ({', '.join(wanted)}), got one of ({', '.join(given)}){hint}"
    ) from None


def evaluated(name: str, field: Callable[..., Any], x: Any, t: Any, *y: Any) -> Any:
    """The value of a field at (x, t), at (x, t, y) or at (x, t, y, w).

    Raises:
        TypeError: a field that wants a label where none is given, or takes none where one is; errors of its own.
    """
    try:
        return field(x, t, *y)
    except TypeError:
        for each in getattr(field, "pieces", (field,)):
            _require_arguments(name, each, 2 + len(y))
        raise


def output_like_x(name: str, field: Callable[..., Any]) -> Callable[..., Array]:
    """The field (x, t, ...) -> like x, whose every value is found to have the shape of x.

    Raises:
        TypeError: what cannot be called, at once; at a call, a state, a time or values that are no real numbers, and
            a field that wants a label, or none.
        ValueError: at a call, values of another shape, several times, or where concrete a time outside [0, 1].
    """
    require_function(name, field)

    def checked(x: Array, t: Array, *rest: Any) -> Array:
        require_point(x, t)
        return require_like(name, evaluated(name, field, x, t, *rest), x)

    return checked


def flow_map_like_x(name: str, flow_map: Callable[..., Any]) -> Callable[..., Array]:
    """The flow map (x, t, r, ...) -> like x, whose every value is found to have the shape of x.

    Raises:
        TypeError: what cannot be called, at once; at a call, a state, times or values that are no real numbers.
        ValueError: at a call, values of another shape, several times, or where concrete a time outside [0, 1].
    """
    require_function(name, flow_map)

    def checked(x: Array, t: Array, r: Array, *rest: Any) -> Array:
        require_point(x, t)
        require_time("r", r)
        return require_like(name, flow_map(x, t, r, *rest), x)

    return checked


def require_grid(name: str, ts: Times, is_forward_only: bool = False) -> None:
    """Raises TypeError or ValueError for what is no grid: [n + 1] floating-point times, monotone in [0, 1].

    In the precision that JAX computes in: two times of NumPy may be one there.
    """
    require_real(name, ts)
    if np.ndim(ts) != 1 or np.shape(ts)[0] < 2:
        raise ValueError(f"{name} must be a 1-D grid of at least 2 times, got shape {np.shape(ts)}")
    if not jnp.issubdtype(ts.dtype, jnp.floating):
        raise ValueError(f"{name} must be of floating-point type, got {ts.dtype}")
    if is_traced(ts):
        return
    times = np.asarray(ts).astype(jax.dtypes.canonicalize_dtype(ts.dtype)).astype(np.float64)
    if not np.all(np.isfinite(times)):
        raise ValueError(f"{name} must be finite, got {short_repr(times)}")
    if not (np.all(np.diff(times) > 0) or np.all(np.diff(times) < 0)):
        raise ValueError(f"{name} must increase (or decrease) at every step, got {short_repr(times)}")
    if not (min(times) >= 0 and max(times) <= 1):
        raise ValueError(f"{name} must be in [0, 1], got {short_repr(times)}")
    if is_forward_only and times[0] > times[-1]:
        raise ValueError(f"{name} must increase for a solver that runs forwards only, got {short_repr(times)}")


def _require_no_offset(name: str, operator: Callable[[Any], Any], like: Any) -> None:
    """Raises ValueError for a function of what is like an array whose value at 0 is concrete, and not 0.

    Within a program, too, unless the function holds its arguments: what is affine is not found out by its transpose.
    """
    with jax.ensure_compile_time_eval():
        at_zero = operator(jnp.zeros(np.shape(like), jnp.result_type(like)))
    if not is_traced(at_zero) and np.any(np.asarray(at_zero, np.float64)):
        raise ValueError(f"{name} must be linear, got one that is {short_repr(at_zero)} at 0")


def transpose_of(name: str, operator: Callable[[Any], Any], like: Any) -> Callable[[Any], Any]:
    """The transpose of a linear function of what is like an array, as a function of the function's values.

    Raises:
        ValueError: a function that is not linear, or, where that is concrete, has an offset.
    """
    _require_no_offset(name, operator, like)
    transpose = jax.linear_transpose(operator, like)
    try:
        jax.eval_shape(transpose, jax.eval_shape(operator, like))
    except (NotImplementedError, RuntimeError, AssertionError) as error:  # what JAX raises, by the kind of function
        raise ValueError(f"{name} must be linear in z, got one that is not") from error
    return lambda value: transpose(value)[0]


def require_direction(name: str, ts: Times, is_to_data: bool) -> None:
    """Raises ValueError for a concrete grid that goes the other way."""
    if not is_traced(ts) and bool(np.asarray(ts)[-1] > np.asarray(ts)[0]) != is_to_data:
        way = "increase, from noise to data" if is_to_data else "decrease, from data to noise"
        raise ValueError(f"{name} must {way}, got {ts}")


def as_float64_rows(name: str, values: Any, least: int = 1, ndim: int | None = None) -> np.ndarray:
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
        raise ValueError(f"{name} must be finite and not empty, got {short_repr(array)}")
    return array


def _is_leaf(leaf: Any, is_shape_enough: bool) -> bool:
    if is_shape_enough:
        return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    return isinstance(leaf, jax.Array | bool) or is_number(leaf, jnp.number, jnp.bool_)


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
    raise TypeError(f"{name}{where} must be of {allowed}, got {type(leaf).__name__} {short_repr(leaf)}")


def require_integers(name: str, value: object) -> None:
    """Raises TypeError for what is neither an array nor an integer."""
    if not is_number(value, jnp.integer):
        raise TypeError(f"{name} must be an array of integers, got {kind_of(value)}")


def require_floats(name: str, tree: Any) -> None:
    """Raises TypeError for a tree with a leaf of no floating-point numbers, ValueError for one without leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise ValueError(f"{name} must be a tree of at least one array, got {short_repr(tree)}")
    for path, leaf in leaves:
        if not is_number(leaf, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"{name}{where} must be an array of floating-point numbers, got {kind_of(leaf)}")
