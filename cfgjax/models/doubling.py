"""A convolution of a map whose height and width were doubled, by convolutions of the map itself.

(L1) y[2 p + a] = sum_q x[floor((2 p + a + q - 1) / 2)] k[q], q = 0, 1, 2, is x[p - 1] k[0] + x[p] (k[1] + k[2]) for
     a = 0, and x[p] (k[0] + k[1]) + x[p + 1] k[2] for a = 1. In two dimensions that is 4/9 of the products.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen

from cfgjax.models.convolution import convolve
from cfgjax.types import Array

_ORDER = ("NHWC", "HWIO", "NHWC")


def _two_sums(kernel: Array, axis: int) -> list[Array]:
    """The kernels of (L1) for even and for odd positions, which are 2 long on the axis."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return [jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)]


class DoublingConv(linen.Module):
    """The convolution 3 x 3 of x [H, W, C] doubled in height and width: [2 H, 2 W, features], by (L1).

    Parameters are those of ``linen.Conv(features, (3, 3))``.
    """

    features: int
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        """The map at twice its height and width, in ``dtype``."""
        rows, columns, channels = hidden.shape
        kernel = self.param("kernel", linen.initializers.lecun_normal(), (3, 3, channels, self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        hidden = hidden.astype(self.dtype)
        parts = [
            convolve(hidden[None], each.astype(self.dtype), (1, 1), ((1 - a, a), (1 - b, b)), dimension_numbers=_ORDER)[
                0
            ]
            for a, half in enumerate(_two_sums(kernel, 0))
            for b, each in enumerate(_two_sums(half, 1))
        ]
        grid = jnp.stack(parts).reshape(2, 2, rows, columns, self.features)
        image = grid.transpose(2, 0, 3, 1, 4).reshape(2 * rows, 2 * columns, self.features)
        return image + bias.astype(self.dtype)[None, None]
