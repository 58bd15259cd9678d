"""A block of the diffusion transformer: attention and a two-layer MLP, modulated and gated by the condition.

Source: Peebles & Xie, arXiv 2212.09748, section 3 (adaLN-Zero).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import check_fields
from cfgjax.models.blocks import Context, CrossAttention, SelfAttention, modulate
from cfgjax.models.weakening import Blur
from cfgjax.types import Array

_ZEROS = linen.initializers.zeros
_XAVIER = linen.initializers.xavier_uniform()


class DiTBlock(linen.Module):
    """Attention and a two-layer MLP, each normalised, modulated and gated by the condition; starts as x.

    With a context there is attention to it between them, of normalised tokens, that starts as 0.
    """

    num_heads: int
    norm: Literal["layer", "rms"]
    dropout: float
    dtype: jnp.dtype
    norm_scale: bool = False
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    qk_norm: bool = False
    is_alone: bool = False

    @linen.compact
    def __call__(
        self,
        tokens: Array,
        condition: Array,
        deterministic: bool,
        context: Context | None = None,
        angles: Array | None = None,
        blur: Blur | None = None,
    ) -> Array:
        """The block at tokens [T, width], a condition [width], a context, and angles and blur of ``SelfAttention``."""
        check_fields(self)
        width = tokens.shape[-1]
        modulation = linen.Dense(6 * width, dtype=self.dtype, kernel_init=_ZEROS)(condition)
        gain, shift, gate, inner_gain, inner_shift, inner_gate = jnp.split(modulation, 6)
        normed = modulate(self._norm("norm_1")(tokens), gain, shift)
        attend = SelfAttention(self.num_heads, self.dtype, qk_norm=self.qk_norm, is_alone=self.is_alone)
        mixed = attend(normed, angles=angles, blur=blur)
        tokens = tokens + _gated(mixed, gate)
        if context is not None:
            attend_to_context = CrossAttention(self.num_heads, self.dtype)
            tokens = tokens + attend_to_context(self._norm("context_norm")(tokens), context)
        inner = self._inner(modulate(self._norm("norm_2")(tokens), inner_gain, inner_shift))
        inner = linen.Dropout(self.dropout, deterministic=deterministic)(inner)
        return tokens + _gated(linen.Dense(width, dtype=self.dtype, kernel_init=_XAVIER)(inner), inner_gate)

    def _norm(self, name: str) -> linen.Module:
        return token_norm(self.norm, self.dtype, self.norm_scale, name)

    def _inner(self, tokens: Array) -> Array:
        """The inner units of the MLP; gated ones are two thirds of the others, so that there are as many weights."""
        width = tokens.shape[-1]
        is_gated = self.feed_forward == "swiglu"
        units = linen.Dense(2 * (8 * width // 3) if is_gated else 4 * width, dtype=self.dtype, kernel_init=_XAVIER)(
            tokens
        )
        if not is_gated:
            return linen.gelu(units)
        gate, value = jnp.split(units, 2, axis=-1)
        return linen.silu(gate) * value


def token_norm(kind: Literal["layer", "rms"], dtype: jnp.dtype, has_scale: bool, name: str) -> linen.Module:
    """Layer or root-mean-square norm of each token, with a learned scale or without parameters."""
    if kind == "rms":
        return linen.RMSNorm(use_scale=has_scale, epsilon=1e-6, dtype=dtype, name=name)
    return linen.LayerNorm(use_bias=False, use_scale=has_scale, epsilon=1e-6, dtype=dtype, name=name)


def _gated(tokens: Array, gate: Array) -> Array:
    return jax.vmap(lambda token: gate * token)(tokens)
