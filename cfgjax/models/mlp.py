"""A residual MLP for one example of any shape."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat, check_fields
from cfgjax.models.conditioning import Module, embed
from cfgjax.models.embeddings import TimeEmbedding
from cfgjax.paths import as_state
from cfgjax.types import Array, Condition


class MLP(linen.Module):
    """A field (x [*D], t [], y) -> [*D] by residual blocks whose normalised input is scaled and shifted by (t, y).

    Block: h + W2 silu(W1 ((1 + a) norm(h) + b)), with (a, b) linear in silu(time embedding + embedding of y).
    The last layer starts at zero, and so does every (a, b): the network starts as the field 0. The first layer's bias
    starts random: without it the normalisation would hide the length of x.

    Args:
        num_classes: K; row K of the label embedding is the null label's. Not read with a ``conditioning``.
        width: of all hidden layers.
        embedding_width: of the embeddings of time and y.
        depth: the number of residual blocks.
        dropout: the rate at which hidden units are dropped where ``deterministic`` is False.
        max_frequency: of the time embedding.
        conditioning: a module y -> [embedding_width] or ``Embedded`` that makes y any condition; None for a label,
            0..K. An image is joined to x; of a sequence the vector is all that is seen.
    """

    num_classes: PositiveInt = 10
    width: PositiveInt = 256
    embedding_width: PositiveInt = 64
    depth: NonNegativeInt = 4
    dropout: UnitFloat = 0.0
    max_frequency: PositiveFloat = 100.0
    conditioning: Module | None = None

    @linen.compact
    def __call__(self, x: Array, t: Array, y: Condition, deterministic: bool = True) -> Array:
        """The field at x [*D], t [] and a condition y, in the shape of x and float32.

        Raises:
            TypeError, ValueError: an x that is empty or holds no real numbers, a t outside [0, 1], a label outside
                0..K, or a y that the conditioning does not take; a conditioning of tokens without a vector.
        """
        check_fields(self)
        x = as_state(x)
        if x.size == 0:
            raise ValueError(f"x must hold at least one number, got the shape {x.shape}")
        time = TimeEmbedding(self.embedding_width, self.max_frequency)(t)
        given = embed(self.conditioning, y, self.num_classes, self.embedding_width)
        if given.tokens is not None and given.vector is None:
            raise ValueError("conditioning must give a vector beside tokens: an MLP has no attention")
        condition = linen.silu(given.added_to(time))
        coordinates = x.reshape(-1)
        if given.image is not None:
            coordinates = jnp.concatenate([coordinates, given.image.reshape(-1)])
        hidden = linen.Dense(self.width, bias_init=linen.initializers.normal(1.0))(coordinates)
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
