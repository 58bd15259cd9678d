"""A diffusion transformer for one image, and its trunk as a noisy classifier.

Source: Peebles & Xie, arXiv 2212.09748, section 3 (adaLN-Zero) and table 1 (sizes). Unlike theirs it predicts the field
alone, without a variance, and embeds t in [0, 1] by ``TimeEmbedding``; ``pretrained`` has the settings and the map by
which it computes what theirs does.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat, check_fields
from cfgjax.models.blocks import Context, CrossAttention, SelfAttention, from_patches, modulate, remat, to_patches
from cfgjax.models.conditioning import Module, embed
from cfgjax.models.embeddings import TimeEmbedding, sincos_positions
from cfgjax.types import Array, Condition

_ZEROS = linen.initializers.zeros
_XAVIER = linen.initializers.xavier_uniform()
_FLOAT32 = jnp.dtype(jnp.float32)


class Size(NamedTuple):
    """The three numbers behind a letter of the paper."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "Ti": Size(192, 6, 3),
    "S": Size(384, 12, 6),
    "B": Size(768, 12, 12),
    "L": Size(1024, 24, 16),
    "XL": Size(1152, 28, 16),
}
"""The paper's sizes S, B, L, XL, and Ti, a smaller one."""


class _Norm(linen.Module):
    """Layer or root-mean-square norm of each token, without parameters of its own."""

    kind: Literal["layer", "rms"]
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, tokens: Array) -> Array:
        if self.kind == "rms":
            return linen.RMSNorm(use_scale=False, epsilon=1e-6, dtype=self.dtype)(tokens)
        return linen.LayerNorm(use_bias=False, use_scale=False, epsilon=1e-6, dtype=self.dtype)(tokens)


class DiTBlock(linen.Module):
    """Attention and a two-layer MLP, each normalised, modulated and gated by the condition; starts as x.

    With a context there is attention to it between them, of normalised tokens, that starts as 0.
    """

    num_heads: int
    norm: Literal["layer", "rms"]
    dropout: float
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, tokens: Array, condition: Array, deterministic: bool, context: Context | None = None) -> Array:
        """The block at tokens [T, width], a condition [width] and a context."""
        check_fields(self)
        width = tokens.shape[-1]
        modulation = linen.Dense(6 * width, dtype=self.dtype, kernel_init=_ZEROS)(condition)
        gain, shift, gate, inner_gain, inner_shift, inner_gate = jnp.split(modulation, 6)
        normed = modulate(_Norm(self.norm, self.dtype)(tokens), gain, shift)
        mixed = SelfAttention(self.num_heads, self.dtype)(normed)
        tokens = tokens + _gated(mixed, gate)
        if context is not None:
            attend = CrossAttention(self.num_heads, self.dtype)
            tokens = tokens + attend(_Norm(self.norm, self.dtype)(tokens), context)
        normed = modulate(_Norm(self.norm, self.dtype)(tokens), inner_gain, inner_shift)
        inner = linen.gelu(linen.Dense(4 * width, dtype=self.dtype, kernel_init=_XAVIER)(normed))
        inner = linen.Dropout(self.dropout, deterministic=deterministic)(inner)
        return tokens + _gated(linen.Dense(width, dtype=self.dtype, kernel_init=_XAVIER)(inner), inner_gate)


def _gated(tokens: Array, gate: Array) -> Array:
    return jax.vmap(lambda token: gate * token)(tokens)


class _Trunk(linen.Module):
    """What transformer and classifier share: the settings and the blocks."""

    width: PositiveInt = 384
    depth: NonNegativeInt = 12
    num_heads: PositiveInt = 6
    patch: PositiveInt = 2
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["sine", "learned"] = "sine"
    dropout: UnitFloat = 0.0
    max_frequency: PositiveFloat = 100.0
    time_range: tuple[FiniteFloat, FiniteFloat] = (0.0, 1.0)
    dtype: jnp.dtype = _FLOAT32
    rematerialise: bool = False

    def trunk(self, patches: Array, condition: Array, deterministic: bool, context: Context | None = None) -> Array:
        """Patches [rows, columns, size] as tokens [rows * columns, width], after all blocks."""
        rows, columns, size = patches.shape
        dense = linen.Dense(self.width, dtype=self.dtype, kernel_init=_XAVIER)
        tokens = dense(patches.reshape(-1, size)) + self._positions(rows, columns).astype(self.dtype)
        block = remat(DiTBlock) if self.rematerialise else DiTBlock
        for _ in range(self.depth):
            apply = block(self.num_heads, self.norm, self.dropout, self.dtype)
            tokens = apply(tokens, condition, deterministic, context)
        return tokens

    def _positions(self, rows: int, columns: int) -> Array:
        if self.positions == "sine":
            return sincos_positions(rows, columns, self.width)
        return self.param("positions", linen.initializers.normal(0.02), (rows * columns, self.width))

    def normed(self, tokens: Array, condition: Array) -> Array:
        """The tokens normalised and modulated once more, before a last layer, in float32."""
        gain, shift = jnp.split(linen.Dense(2 * self.width, kernel_init=_ZEROS)(condition), 2)
        return modulate(_Norm(self.norm, _FLOAT32)(tokens), gain, shift)

    def time(self, t: Array) -> Array:
        """The time embedding, [width]."""
        return TimeEmbedding(self.width, self.max_frequency, num_features=256, ends=self.time_range)(t)


class DiT(_Trunk):
    """A field (x [H, W, C], t [], y) -> [H, W, C] by a diffusion transformer; it starts as the field 0.

    Tokens of a condition are attended to in every block: Chen et al., arXiv 2310.00426, section 2.3. Parameters, the
    time embedding, the last norm and layer and the output are float32 whatever ``dtype``.

    Args:
        num_classes: K; row K of the label embedding is the null label's. Not read with a ``conditioning``.
        width: of the tokens.
        depth: number of blocks.
        num_heads: of attention.
        patch: side of the squares of pixels that become one token.
        norm: "layer" or "rms".
        positions: "sine", fixed, or "learned", which binds the parameters to one image size.
        dropout: the rate at which inner units are dropped where ``deterministic`` is False.
        max_frequency: of the time embedding.
        time_range: the numbers that it embeds at t = 0 and t = 1.
        dtype: of the computation.
        rematerialise: compute a block's inner values again in the backward pass, to save memory.
        conditioning: a module y -> [width] or ``Embedded`` that makes y any condition; None for a label, 0..K.
    """

    num_classes: PositiveInt = 10
    conditioning: Module | None = None

    @linen.compact
    def __call__(self, x: Array, t: Array, y: Condition, deterministic: bool = True) -> Array:
        """The field at x, t and a condition y, float32.

        Raises:
            TypeError, ValueError: an x that is not an image or whose sides the patch does not divide, a width that the
                number of heads does not divide, a t outside [0, 1], a label outside 0..K, or a y that the conditioning
                does not take.
        """
        check_fields(self)
        patches, time = to_patches(x, self.patch), self.time(t)
        given = embed(self.conditioning, y, self.num_classes, self.width, std=0.02)
        condition = linen.silu(given.added_to(time))
        joined = given.joined_to(patches, self.patch)
        tokens = self.normed(self.trunk(joined, condition, deterministic, given.context), condition)
        output = linen.Dense(patches.shape[-1], kernel_init=_ZEROS)(tokens)
        return from_patches(output.reshape(patches.shape), self.patch)


class DiTClassifier(_Trunk):
    """Log-probabilities (x [H, W, C], t []) -> [K] by a transformer, averaged over its tokens.

    Args: as ``DiT``; ``num_classes`` is K.
    """

    num_classes: PositiveInt = 10

    @linen.compact
    def __call__(self, x: Array, t: Array, deterministic: bool = True) -> Array:
        """log p(y | x, t), [K], float32; errors as ``DiT``."""
        check_fields(self)
        condition = linen.silu(self.time(t))
        tokens = self.trunk(to_patches(x, self.patch), condition, deterministic)
        pooled = jnp.mean(self.normed(tokens, condition), axis=0)
        return jax.nn.log_softmax(linen.Dense(self.num_classes)(pooled))
