"""Calling what a user wrote: compiled and mapped where that works, one example at a time where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import short_repr
from cfgjax.piecewise import Piecewise
from cfgjax.solvers import integrate
from cfgjax.types import Array, Solver, Tree
from cfgjax.verify.report import CallError

Run = Callable[[Array, Array, Array], Array]
"""``(key, x [*D], ts [n + 1]) -> x [*D]``: a solver that repeats its own steps."""

MAX_LOOPED = 200
"""Examples that are called, at most, where a function can be called only one at a time."""


def format_error(error: Exception) -> str:
    """An exception in one line: its type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"raised {type(error).__name__}" + (f": {lines[0][:160]}" if lines else "")


def mapped(
    function: Callable[..., Any], *arrays: Any, most: int = MAX_LOOPED, batch_size: int | None = None
) -> np.ndarray:
    """The function's values over the leading axis of the arrays, or of trees of them, as float64 of NumPy.

    A function that cannot be traced is called in a loop, for the first ``most`` rows only; one that can, on
    ``batch_size`` rows at once, None for all.

    Raises:
        CallError: the function raises for one example, too, or gives no array; it cannot be traced and ``most`` is 0.
    """
    try:
        return _array(jax.jit(_over_rows(function, batch_size))(*arrays))
    except Exception as error:
        values = _looped(function, arrays, max(most, 1))
        if most == 0:
            raise CallError(f"cannot be traced by jax.jit and jax.vmap: {format_error(error)}") from None
        return values


def _over_rows(function: Callable[..., Any], batch_size: int | None) -> Callable[..., Any]:
    if batch_size is None:
        return jax.vmap(function)
    return lambda *arrays: jax.lax.map(lambda row: function(*row), arrays, batch_size=batch_size)


def swept(function: Callable[..., Any], numbers: Sequence[float], *arrays: Any, most: int = MAX_LOOPED) -> np.ndarray:
    """``mapped`` for each value of the first argument, stacked: [numbers, rows, ...].

    The number is traced; where that fails it is given as a Python scalar.
    """
    by_row = jax.vmap(function, in_axes=(None, *(0 for _ in arrays)))
    by_number = jax.vmap(by_row, in_axes=(0, *(None for _ in arrays)))
    try:
        return _array(jax.jit(by_number)(jnp.asarray(numbers, jnp.result_type(float)), *arrays))
    except Exception:
        return _swept_by_numbers(function, numbers, arrays, most)


def _swept_by_numbers(
    function: Callable[..., Any], numbers: Sequence[float], arrays: tuple[Any, ...], most: int
) -> np.ndarray:
    def every(*arrays: Any) -> Array:
        return jnp.stack([jax.vmap(partial(function, number))(*arrays) for number in numbers])

    try:
        return _array(jax.jit(every)(*arrays))
    except Exception:
        values = [_mapped_at(function, number, arrays, most) for number in numbers]
    shortest = min(len(value) for value in values)
    return np.stack([value[:shortest] for value in values])


def _mapped_at(function: Callable[..., Any], number: float, arrays: tuple[Any, ...], most: int) -> np.ndarray:
    try:
        return mapped(partial(function, number), *arrays, most=most)
    except CallError as error:
        raise CallError(f"at {number:g}: {error}") from None


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
        raise CallError(f"gives {type(value).__name__}, not an array")
    return np.asarray(value, np.float64)


def _looped(function: Callable[..., Any], arrays: tuple[Any, ...], most: int) -> np.ndarray:
    num_rows = min(jnp.shape(jax.tree.leaves(arrays)[0])[0], most)
    try:
        values = [_array(function(*_at(arrays, row))) for row in range(num_rows)]
    except CallError:
        raise
    except Exception as error:
        raise CallError(format_error(error) + _batch_hint(function, arrays)) from None
    shapes = sorted({value.shape for value in values})
    if len(shapes) > 1:
        raise CallError(f"gives different shapes for alike examples, {shapes[0]} and {shapes[-1]}")
    return np.stack(values)


def _at(arrays: tuple[Any, ...], rows: int | slice) -> tuple[Any, ...]:
    return jax.tree.map(lambda array: array[rows], arrays)


def _batch_hint(function: Callable[..., Any], arrays: tuple[Any, ...]) -> str:
    """Words for a function that fails for one example and takes a batch of one."""
    try:
        is_batched = _array(function(*_at(arrays, slice(1)))).shape[:1] == (1,)
    except Exception:
        return ""
    return "; it takes a batch, and is to be written for ONE example" if is_batched else ""


def require_shape(found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The values, once each has the shape of one example.

    Raises:
        CallError: another shape.
    """
    given = found.shape[1:]
    if given == shape:
        return found
    hint = "; is it written for a batch?" if math.prod(given) == math.prod(shape) else ""
    raise CallError(f"gives the shape {given} for ONE example of shape {shape}{hint}")


def require_tree_like(found: Tree, y: Tree) -> Tree:
    """What was found, once it has the structure, shapes and types of y.

    Raises:
        CallError: another one, with its place.
    """
    if jax.tree.structure(found) != jax.tree.structure(y):
        raise CallError(f"gives the structure {_shapes(found)}, where y has {_shapes(y)}")
    for (path, own), like in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(y), strict=True):
        name = jax.tree_util.keystr(path)
        at = f" at {name}" if name else ""
        if not isinstance(own, jax.Array | np.ndarray | np.generic | float | int):
            raise CallError(f"gives {type(own).__name__}{at}, not an array")
        if np.shape(own) != np.shape(like):
            raise CallError(f"gives the shape {np.shape(own)}{at}, where y has {np.shape(like)}")
        if jnp.result_type(own) != jnp.result_type(like):
            raise CallError(f"gives {jnp.result_type(own)}{at}, where y has {jnp.result_type(like)}")
    return found


def _shapes(tree: Tree) -> str:
    return short_repr(jax.tree.map(np.shape, tree))


def require_finite(found: np.ndarray) -> np.ndarray:
    """The values, once all of them are finite.

    Raises:
        CallError: NaN or inf.
    """
    is_bad = ~np.isfinite(found.reshape(len(found), -1)).all(axis=1)
    if is_bad.any():
        raise CallError(f"gives NaN or inf for {is_bad.sum()} of {len(found)} examples")
    return found


def running(built: Any) -> Run:
    """One function (key, x, ts) -> x of what a maker of solvers gave: a Solver, or such a function already.

    Raises:
        CallError: neither of them.
    """
    if isinstance(built, Solver | Piecewise):
        return lambda key, x, ts: integrate(built, key, x, ts)
    if not callable(built):
        raise CallError(f"makes {type(built).__name__}, neither a Solver nor a function (key, x, ts) -> x")
    return built
