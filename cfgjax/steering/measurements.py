"""What a linear measurement says of a data point: its likelihood, its adjoint, its best correction.

(B1) m = A z + s n,  n normal:   log p(m|z) = -|m - A z|^2 / (2 s^2) - (k / 2) log(2 pi s^2).
(B2) With z normal of mean D and covariance V:  log p(m) = log N(m; A D, s^2 I + A V A^T),  whose gradient in D is
     A^T (s^2 I + A V A^T)^-1 (m - A D).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from cfgjax.checks import require_shape, transpose_of
from cfgjax.contracts import AnyMeasurement as AnyMeasurement
from cfgjax.contracts import Key, NonNegative, RealArray, checked
from cfgjax.contracts import NoisyMeasurement as NoisyMeasurement
from cfgjax.paths import as_float, as_state, noise_like
from cfgjax.types import Array, LinearOperator, LogLikelihoodOfData, Measurement


def apply(measurement: Measurement, z: Array) -> Array:
    """A z [*M], once it is found to be like the measured value."""
    z = as_state(z, "z")
    value = measurement.operator(z)
    require_shape("measurement.value", measurement.value, jnp.shape(value))
    return jnp.asarray(value)


def residual(measurement: Measurement, z: Array) -> Array:
    """m - A z, [*M]."""
    return as_float(measurement.value) - apply(measurement, z)


def adjoint(measurement: Measurement, z: Array) -> Callable[[Array], Array]:
    """A^T as a function [*M] -> like z; ValueError for an operator that is not linear."""

    def operator(z: Array) -> Array:
        return apply(measurement, z)

    return transpose_of("measurement.operator", operator, as_state(z, "z"))


@checked
def log_likelihood(measurement: NoisyMeasurement) -> LogLikelihoodOfData:
    """log p(m|z) of (B1), as a function z [*D] -> []."""

    def of(z: Array) -> Array:
        error, std = residual(measurement, z), as_float(measurement.noise_std)
        return -0.5 * (jnp.sum(jnp.square(error / std)) + error.size * jnp.log(2 * jnp.pi * jnp.square(std)))

    return of


@checked
def measure(operator: LinearOperator, key: Key, z: RealArray, noise_std: NonNegative) -> Measurement:
    """The Measurement A z + s n of a point z, for a linear ``operator`` A.

    >>> import jax
    >>> measure(lambda z: 2 * z, jax.random.key(0), jnp.ones(2), 0.0).value.tolist()
    [2.0, 2.0]
    """
    value = jnp.asarray(operator(as_state(z, "z")))
    return Measurement(operator, value + noise_std * noise_like(key, value), noise_std)
