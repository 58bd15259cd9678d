"""A residual MLP for one example of any shape."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat, check_fields
from cfgjax.models.embeddings import LabelEmbedding, TimeEmbedding
from cfgjax.paths import as_state
from cfgjax.types import Array


class MLP(linen.Module):
    """A field (x [*D], t [], y []) -> [*D] by residual blocks whose normalised input is scaled and shifted by (t, y).

    Block: h + W2 silu(W1 ((1 + a) norm(h) + b)), with (a, b) linear in silu(time embedding + label embedding).
    The last layer starts at zero, and so does every (a, b): the network starts as the field 0. The first layer's bias
    starts random: without it the normalisation would hide the length of x.

    Args:
        num_classes: K; row K of the label embedding is the null label's.
        width: of all hidden layers.
        embedding_width: of the embeddings of time and label.
        depth: the number of residual blocks.
        dropout: the rate at which hidden units are dropped where ``deterministic`` is False.
        max_frequency: of the time embedding.
    """

    num_classes: PositiveInt
    width: PositiveInt = 256
    embedding_width: PositiveInt = 64
    depth: NonNegativeInt = 4
    dropout: UnitFloat = 0.0
    max_frequency: PositiveFloat = 100.0

    @linen.compact
    def __call__(self, x: Array, t: Array, y: Array, deterministic: bool = True) -> Array:
        """The field at x [*D], t [], y [], in the shape of x and float32.

        Raises:
            TypeError, ValueError: an x that is empty or holds no real numbers, a t outside [0, 1], a y outside 0..K.
        """
        check_fields(self)
        x = as_state(x)
        if x.size == 0:
            raise ValueError(f"x must hold at least one number, got the shape {x.shape}")
        time = TimeEmbedding(self.embedding_width, self.max_frequency)(t)
        condition = linen.silu(time + LabelEmbedding(self.num_classes, self.embedding_width)(y))
        hidden = linen.Dense(self.width, bias_init=linen.initializers.normal(1.0))(x.reshape(-1))
        for _ in range(self.depth):
            hidden = hidden + self._block(hidden, condition, deterministic)
        output = linen.Dense(x.size, kernel_init=linen.initializers.zeros)(self._modulated(hidden, condition))
        return output.astype(jnp.float32).reshape(x.shape)

    def _block(self, hidden: Array, condition: Array, deterministic: bool) -> Array:
        inner = linen.silu(linen.Dense(self.width)(self._modulated(hidden, condition)))
        inner = linen.Dropout(self.dropout, deterministic=deterministic)(inner)
        return linen.Dense(self.width)(inner)

    def _modulated(self, hidden: Array, condition: Array) -> Array:
        modulation = linen.Dense(2 * self.width, kernel_init=linen.initializers.zeros)(condition)
        gain, shift = jnp.split(modulation, 2)
        return (1 + gain) * linen.LayerNorm(use_bias=False, use_scale=False)(hidden) + shift
