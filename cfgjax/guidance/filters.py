"""Linear low passes of a value, for rules that guide its frequencies apart: what they keep is low, the rest high.

(F1) ``laplacian_low`` is U^n B^n: B blurs by (1, 4, 6, 4, 1) / 16 along rows and columns and keeps every second one, U
     doubles by linear interpolation and blurs. It keeps constants, and nothing of what alternates from pixel to pixel.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from cfgjax.checks import require_rank
from cfgjax.contracts import PositiveInt, RealArray, checked
from cfgjax.types import Array, LinearOperator

WEIGHTS = (0.0625, 0.25, 0.375, 0.25, 0.0625)


def _blurred(image: Array, axis: int) -> Array:
    """The blur along an axis, mirrored at its edges."""
    widths = [(2, 2) if each == axis else (0, 0) for each in range(image.ndim)]
    padded, size = jnp.pad(image, widths, mode="reflect"), image.shape[axis]
    parts = [weight * lax.slice_in_dim(padded, shift, shift + size, axis=axis) for shift, weight in enumerate(WEIGHTS)]
    return (parts[0] + parts[4]) + (parts[1] + parts[3]) + parts[2]


def _doubled(image: Array, axis: int) -> Array:
    """Twice as many places along an axis, by linear interpolation between the old ones' middles."""
    size = image.shape[axis]
    before = lax.concatenate(
        [lax.slice_in_dim(image, 0, 1, axis=axis), lax.slice_in_dim(image, 0, size - 1, axis=axis)], axis
    )
    after = lax.concatenate(
        [lax.slice_in_dim(image, 1, size, axis=axis), lax.slice_in_dim(image, size - 1, size, axis=axis)], axis
    )
    both = jnp.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * after], axis=axis + 1)
    return both.reshape(*image.shape[:axis], 2 * size, *image.shape[axis + 1 :])


@checked
def laplacian_low(levels: PositiveInt = 1) -> LinearOperator:
    """The low pass of a Laplacian pyramid (F1): what is left of an image [H, W, C] after so many halvings.

    More levels need no other rule: for scales a_0, a_1, a_2 from high to low the low pass of ``frequency_decoupled``
    is a weighted sum of the passes of 1 and of 2 levels.

    Args:
        levels: n of (F1); height and width must be multiples of 2^n.

    Source: Burt & Adelson, IEEE Transactions on Communications 31 (1983).

    >>> image = jnp.ones((4, 4, 1))
    >>> float(jnp.max(jnp.abs(laplacian_low()(image) - image)))
    0.0
    """

    def low(value: Array) -> Array:
        require_rank("value", value, 3)
        height, width, _ = value.shape
        if height % 2**levels or width % 2**levels:
            raise ValueError(f"value must have sides that are multiples of {2**levels}, got {height} x {width}")
        for _ in range(levels):
            value = _blurred(_blurred(value, 0), 1)[::2, ::2]
        for _ in range(levels):
            value = _blurred(_blurred(_doubled(_doubled(value, 0), 1), 0), 1)
        return value

    return low


@checked
def mean_low(value: RealArray) -> Array:
    """The mean over all axes, in every place: the lowest pass of a value of any shape, a projection."""
    value = jnp.asarray(value)
    return jnp.broadcast_to(jnp.mean(value), value.shape)
