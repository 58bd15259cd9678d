"""Least squares by a linear operator and its adjoint alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from cfgjax.paths import as_float
from cfgjax.steering.measurements import adjoint, apply
from cfgjax.types import Array, Measurement, Number

_MOST_ITERATIONS = 500


def least_squares(measurement: Measurement, value: Array, z: Array, ridge: Number = 0.0) -> Array:
    """(ridge I + A^T A)^+ A^T value, like z: with ridge 0 the pseudo-inverse A^+ value.

    By conjugate gradients from 0, which stay in the range of A^T: as many iterations as A has singular values that
    differ, one for a mask or for means over squares of pixels.
    """
    z = as_float(z)
    transposed = adjoint(measurement, z)

    def normal(w: Array) -> Array:
        return ridge * w + transposed(apply(measurement, w))

    most = min(2 * min(z.size, value.size) + 2, _MOST_ITERATIONS)
    inverted = partial(jax.scipy.sparse.linalg.cg, tol=8 * float(jnp.finfo(z.dtype).eps), maxiter=most)

    def solve(normal: Callable[[Array], Array], right: Array) -> Array:
        return inverted(normal, right)[0]

    def transpose_solve(normal: Callable[[Array], Array], right: Array) -> Array:
        return solve(normal, solve(normal, normal(right)))  # of a cotangent first the part in the range of A^T

    return jax.lax.custom_linear_solve(normal, transposed(value.astype(z.dtype)), solve, transpose_solve)
