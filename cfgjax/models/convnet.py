"""A small classifier of clean images, whose last hidden layer gives the features that samples are compared by."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import PositiveInt, UnitFloat, check_fields
from cfgjax.models.blocks import require_image
from cfgjax.models.convolution import Conv
from cfgjax.types import Array


class ConvNet(linen.Module):
    """(image [H, W, C]) -> (features [num_features], log-probabilities [K]), both float32.

    Three convolutions, the first two with stride 2, and a dense layer; group norm, no statistics of a batch.

    Args:
        num_classes: K.
        width: channels of the first convolution; the others have twice as many.
        num_features: of the last hidden layer.
        dropout: the rate at which features are dropped before the last layer where ``deterministic`` is False.
    """

    num_classes: PositiveInt
    width: PositiveInt = 32
    num_features: PositiveInt = 128
    dropout: UnitFloat = 0.3

    @linen.compact
    def __call__(self, x: Array, deterministic: bool = True) -> tuple[Array, Array]:
        """Features and log-probabilities of one image.

        Raises:
            TypeError, ValueError: an x that is not an image; a width that 8 does not divide.
        """
        require_image(x, 1)
        check_fields(self)
        if self.width % 8:
            raise ValueError(f"width must be divisible by 8, the groups of its norms, got {self.width}")
        hidden = x
        for size, stride, channels in ((5, 2, self.width), (3, 2, 2 * self.width), (3, 1, 2 * self.width)):
            hidden = Conv(channels, (size, size), (stride, stride))(hidden)
            hidden = linen.silu(linen.GroupNorm(8, reduction_axes=(-3, -2, -1))(hidden))
        features = linen.silu(linen.Dense(self.num_features)(hidden.reshape(-1)))
        kept = linen.Dropout(self.dropout, deterministic=deterministic)(features)
        return features, jax.nn.log_softmax(linen.Dense(self.num_classes)(kept).astype(jnp.float32))
