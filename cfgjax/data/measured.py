"""What can be measured of a digit's image: stroke weight, width, height and slant, of data and samples alike.

All are of the ink m [H, W] >= 0: how dark each pixel is, less an eighth of the darkest, so that the faint noise of a
sample's background counts nothing. They stay the same where the digit moves inside its image, and where all of its ink
is fainter by one factor. With rows counted downwards and V the covariance of (row, column) under m / sum m,

(M1) weight = area / half the perimeter = 2 sum m / (sum abs(m[r + 1, c] - m[r, c]) + sum abs(m[r, c + 1] - m[r, c])),
     with no ink around the image; of a bar of w x h pixels w h / (w + h), nearly its thickness where it is long.
(M2) slant = -V_rc / V_rr, columns to the right for each row upwards: above 0 the digit leans right.
(M3) height = sqrt(1 + 12 V_rr) and width = sqrt(1 + 12 (V_cc - V_rc^2 / V_rr)), in pixels: the sides of the upright bar
     that has these variances. The width is that of the digit made upright, so leaning makes nothing wider.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_real, require_shape
from cfgjax.contracts import Contract, checked, instance, rows
from cfgjax.data.latents import Spread
from cfgjax.paths import as_float
from cfgjax.types import Array

PROPERTIES = ("weight", "width", "height", "slant")
"""The names of what is measured, in order."""

_FAINT = 1 / 8
"""The part of the darkest pixel's ink that counts as none."""


def _require_gray(name: str, image: Array) -> None:
    require_real(name, image)
    if jnp.ndim(image) != 3 or jnp.shape(image)[2] != 1:
        raise ValueError(f"{name} must be ONE gray image [height, width, 1], got shape {jnp.shape(image)}")


GrayImage = Annotated[Array, Contract(_require_gray)]
"""One image [H, W, 1]."""
Measured = Annotated[Array, Contract(partial(require_shape, shape=(len(PROPERTIES),)))]
"""The properties of one image, [4]."""
KnownSpread = Annotated[Spread, instance(Spread, "a Spread, as measured.spread_of(properties) gives it")]
"""The mean and the standard deviation of each property, [4] each."""


def _ink(image: Array) -> Array:
    """The ink m [H, W] of an image on [-1, 1]; what lies outside counts as -1 or 1."""
    darkness = jnp.clip((as_float(image)[..., 0] + 1) / 2, 0, 1)
    return jnp.maximum(darkness - _FAINT * darkness.max(), 0)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where the denominator is 0."""
    is_zero = denominator == 0
    return jnp.where(is_zero, 0, numerator / jnp.where(is_zero, 1, denominator))


def _weight(ink: Array) -> Array:
    """(M1)."""
    padded = jnp.pad(ink, 1)
    changes = jnp.abs(jnp.diff(padded, axis=0)).sum() + jnp.abs(jnp.diff(padded, axis=1)).sum()
    return _ratio(2 * ink.sum(), changes)


def _covariance(ink: Array) -> tuple[Array, Array, Array]:
    """V_rr, V_rc and V_cc of the rows and columns, counted from the image's middle."""
    of_row, of_column = (jnp.arange(size) - (size - 1) / 2 for size in ink.shape)
    row, column, total = of_row[:, jnp.newaxis], of_column[jnp.newaxis], ink.sum()

    def mean(values: Array) -> Array:
        return _ratio((ink * values).sum(), total)

    row, column = row - mean(row), column - mean(column)
    return mean(row**2), mean(row * column), mean(column**2)


@checked
def properties(image: GrayImage) -> Array:
    """The weight, width, height and slant of a digit (M1-M3), [4].

    Of an image without ink 0, 1, 1, 0; of ink in one row alone the slant is 0.

    Args:
        image: [H, W, 1], a data point or a sample on [-1, 1], ink up to 1 on paper at -1.

    >>> properties(2 * jnp.eye(8)[::-1, :, jnp.newaxis] - 1).round(4)
    Array([0.5, 1. , 8. , 1. ], dtype=float32)
    """
    ink = _ink(image)
    of_rows, of_both, of_columns = _covariance(ink)
    upright = jnp.maximum(of_columns - _ratio(of_both**2, of_rows), 0)
    width, height = jnp.sqrt(1 + 12 * upright), jnp.sqrt(1 + 12 * of_rows)
    return jnp.stack([_weight(ink), width, height, -_ratio(of_both, of_rows)])


@checked
def spread_of(properties: Annotated[np.ndarray, rows(2, ndim=2)]) -> Spread:
    """The mean and the standard deviation of each property over a set, the training images.

    Args:
        properties: of each image, [n, 4].

    Raises:
        ValueError: other than four properties, or one that is the same of all.
    """
    require_shape("properties", properties, (len(properties), len(PROPERTIES)))
    spread = Spread(properties.mean(axis=0), properties.std(axis=0))
    for name, mean, deviation in zip(PROPERTIES, *spread, strict=True):
        if deviation == 0:
            raise ValueError(f"properties must differ between images, got {mean:g} for the {name} of all")
    return spread


@checked
def standardised(properties: Measured, spread: KnownSpread) -> Array:
    """(properties - mean) / deviation, [4]: over the images of the spread of mean 0 and standard deviation 1."""
    properties = as_float(properties)
    mean, deviation = (jnp.asarray(each, properties.dtype) for each in spread)
    return (properties - mean) / deviation


@checked
def from_standardised(standardised: Measured, spread: KnownSpread) -> Array:
    """mean + deviation * standardised, [4]: the properties of which ``standardised`` makes these."""
    standardised = as_float(standardised)
    mean, deviation = (jnp.asarray(each, standardised.dtype) for each in spread)
    return mean + deviation * standardised
