"""Lengths and projections of the difference of two sides, and its size in other spaces.

With d = u_y - u_null of vector fields, D_y - D_null = (beta / W) d and E_y - E_null = -(alpha / W) d.
"""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, GaussianPath, Number


def denoiser_slope(path: GaussianPath, t: Number) -> Array:
    """beta / W, the change of the denoiser for a change of the field, []; 1 where W = 0, where it has no value."""
    c = coefficients(path, before_end(t))
    is_zero = c.wronskian == 0
    return jnp.where(is_zero, 1, c.beta / jnp.where(is_zero, 1, c.wronskian))


def noise_slope(path: GaussianPath, t: Number) -> Array:
    """alpha / W, the change of the noise prediction for a change of the field up to its sign, []; 0 where W = 0."""
    c = coefficients(path, before_end(t))
    is_zero = c.wronskian == 0
    return jnp.where(is_zero, 0, c.alpha / jnp.where(is_zero, 1, c.wronskian))


def length(value: Array) -> Array:
    """The Euclidean norm over all axes, [], with gradient 0 at 0."""
    square = jnp.sum(jnp.square(value))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def along(value: Array, direction: Array) -> Array:
    """The part of a value along a direction; 0 for a direction of length 0."""
    size = length(direction)
    unit = direction / jnp.where(size > 0, size, 1)
    return jnp.sum(value * unit) * unit


def shorten(value: Array, max_norm: Number) -> Array:
    """The value, shortened to the length ``max_norm`` where it is longer."""
    size = length(value)
    return value * jnp.where(size > max_norm, max_norm / jnp.where(size > max_norm, size, 1), 1)


def project(value: Array, direction: Array, eta: Number) -> Array:
    """The value with its part along a direction multiplied by ``eta``."""
    return value - (1 - eta) * along(value, direction)
