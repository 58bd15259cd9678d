"""The blocks of a U-Net's map [H, W, C]: residual convolutions told the condition, and attention among positions.

Source: Ho et al., arXiv 2006.11239, appendix B; Dhariwal & Nichol (ADM), arXiv 2105.05233, sections 3 and 4.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import linen

from cfgjax.models.blocks import Context, CrossAttention, SelfAttention, modulate
from cfgjax.models.convolution import Conv
from cfgjax.models.weakening import blur_of
from cfgjax.types import Array, Number

_ZEROS = linen.initializers.zeros


def group_norm(hidden: Array, dtype: jnp.dtype) -> Array:
    """Normalised over positions and the channels of a group, at most 32 groups; statistics in float32."""
    groups = math.gcd(32, hidden.shape[-1])
    return linen.GroupNorm(groups, dtype=dtype, reduction_axes=(-3, -2, -1))(hidden)


class ResidualBlock(linen.Module):
    """x + conv(drop(silu((1 + a) norm(conv(silu(norm x))) + b))), (a, b) linear in the condition; starts as x."""

    features: int
    dropout: float
    dtype: jnp.dtype
    is_skipped: bool = False

    @linen.compact
    def __call__(self, hidden: Array, condition: Array, deterministic: bool) -> Array:
        """The block at a map [H, W, C] and a condition [E]: [H, W, features]; where skipped x alone."""
        shortcut = hidden
        if hidden.shape[-1] != self.features:
            shortcut = linen.Dense(self.features, dtype=self.dtype, name="Dense_1")(hidden)
        return shortcut if self.is_skipped else shortcut + self._inner(hidden, condition, deterministic)

    def _inner(self, hidden: Array, condition: Array, deterministic: bool) -> Array:
        inner = linen.silu(group_norm(hidden, self.dtype))
        inner = Conv(self.features, (3, 3), dtype=self.dtype)(inner)
        gain, shift = jnp.split(linen.Dense(2 * self.features, dtype=self.dtype)(condition), 2)
        inner = linen.silu(modulate(group_norm(inner, self.dtype), gain, shift))
        inner = linen.Dropout(self.dropout, deterministic=deterministic)(inner)
        return Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=_ZEROS)(inner)


class MapAttention(linen.Module):
    """x + attention(norm x) among all positions of a map, and then, with a context, to it likewise; starts as x."""

    head_width: int
    dtype: jnp.dtype
    is_alone: bool = False

    @linen.compact
    def __call__(self, hidden: Array, context: Context | None = None, blur_width: Number | None = None) -> Array:
        """The block at a map [H, W, C], a context, and the width of a blur of queries or None."""
        rows, columns, channels = hidden.shape
        tokens = group_norm(hidden, self.dtype).reshape(-1, channels)
        heads = max(1, channels // self.head_width)
        blur = None if blur_width is None else blur_of(rows, columns, blur_width)
        mixed = SelfAttention(heads, self.dtype, zero_init=True, is_alone=self.is_alone)(tokens, blur=blur)
        hidden = hidden + mixed.reshape(hidden.shape)
        if context is None:
            return hidden
        tokens = group_norm(hidden, self.dtype).reshape(-1, channels)
        return hidden + CrossAttention(heads, self.dtype)(tokens, context).reshape(hidden.shape)
