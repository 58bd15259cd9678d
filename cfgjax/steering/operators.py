"""Linear functions of a data point, as pytrees whose numbers may be traced and mapped over."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import of_numpy, require_finite, require_real, require_shape
from cfgjax.contracts import Contract, PositiveInt, checked
from cfgjax.paths import as_float, as_state
from cfgjax.types import Array


def _finite(name: str, value: Any) -> Array:
    value = of_numpy(value)
    require_real(name, value)
    require_finite(name, value)
    return as_float(value)


def _matrix(name: str, value: Any) -> Array:
    value = _finite(name, value)
    if np.ndim(value) != 2 or 0 in np.shape(value):
        raise ValueError(f"{name} must be a matrix [k, D], got the shape {np.shape(value)}")
    return value


Matrix = Annotated[Array, Contract(_matrix)]
"""Finite real numbers [k, D], neither of them 0."""


def _product(matrix: Array, z: Array) -> Array:
    row = as_state(z, "z").reshape(-1)
    require_shape("z, flattened,", row, matrix.shape[1:])
    return jnp.sum(matrix * row[None], axis=-1)


@checked
def matrix(matrix: Matrix) -> jax.tree_util.Partial:
    """The function z [*D] -> A z [k], with z flattened.

    >>> matrix(jnp.ones((1, 2)))(jnp.asarray([1.0, 2.0])).tolist()
    [3.0]
    """
    return jax.tree_util.Partial(_product, matrix)


Mask = Annotated[Array, Contract(_finite)]
"""Finite real numbers of the shape of the data."""


def _masked(mask: Array, z: Array) -> Array:
    require_shape("mask", mask, z.shape)
    return mask * z


@checked
def mask(mask: Mask) -> jax.tree_util.Partial:
    """The function z [*D] -> mask * z [*D]: what is kept has the mask 1, what is missing 0.

    The missing entries of a measurement must be 0, as they come out of this function; noise belongs to the others.
    """
    return jax.tree_util.Partial(_masked, mask)


def _pooled(factor: int, z: Array) -> Array:
    z = as_state(z, "z")
    if z.ndim < 2 or z.shape[0] % factor or z.shape[1] % factor:
        raise ValueError(f"factor must divide both sides of a picture [H, W, ...], got {factor} for {z.shape}")
    parts = z.reshape(z.shape[0] // factor, factor, z.shape[1] // factor, factor, *z.shape[2:])
    return jnp.mean(parts, axis=(1, 3))


@checked
def pooled(factor: PositiveInt) -> jax.tree_util.Partial:
    """The function of a picture [H, W, ...] -> the means over its squares of ``factor`` by ``factor`` pixels."""
    return jax.tree_util.Partial(partial(_pooled, factor))


def _blurred(kernel: Array, z: Array) -> Array:
    z = as_state(z, "z")
    if z.ndim < 2:
        raise ValueError(f"z must be a picture [H, W, ...], got the shape {z.shape}")
    channels = z.reshape(*z.shape[:2], -1)
    sides = [(size // 2, size - 1 - size // 2) for size in kernel.shape]
    spread = jnp.pad(channels, (*sides, (0, 0)))
    rows, columns = np.indices(kernel.shape).reshape(2, -1)
    shifted = [
        kernel[row, column] * spread[row : row + z.shape[0], column : column + z.shape[1]]
        for row, column in zip(rows, columns, strict=True)
    ]
    return sum(shifted[1:], shifted[0]).reshape(z.shape)


@checked
def blurred(kernel: Matrix) -> jax.tree_util.Partial:
    """The function of a picture [H, W, ...] -> its correlation with the kernel, 0 beyond the edges, of the same shape.

    Each pixel of the kernel is one shifted copy: for kernels of few pixels.
    """
    return jax.tree_util.Partial(_blurred, kernel)
