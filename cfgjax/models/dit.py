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
from cfgjax.models.blocks import Context, from_patches, modulate, remat, to_patches
from cfgjax.models.conditioning import Module, embed
from cfgjax.models.dit_block import DiTBlock, token_norm
from cfgjax.models.embeddings import TimeEmbedding, grid_angles, sincos_positions
from cfgjax.models.weakening import UNWEAKENED, Weakening, blur_of, sites_of
from cfgjax.types import Array, Condition, Number

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
    norm_scale: bool = False
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    qk_norm: bool = False
    rotary: bool = False
    bottleneck: NonNegativeInt = 0

    def trunk(
        self,
        patches: Array,
        condition: Array,
        deterministic: bool,
        context: Context | None = None,
        joining: tuple[int, Array] | None = None,
        weakening: Weakening = UNWEAKENED,
        blur_width: Number = jnp.inf,
    ) -> list[Array]:
        """Patches [rows, columns, size] as tokens, the last rows * columns of [T, width], after 0, 1, ... all blocks.

        ``joining``: a block's number, and the tokens that stand before the others from that block on. Nothing is
        weakened where parameters are initialised.
        """
        rows, columns, _ = patches.shape
        sites, blur = sites_of(weakening, self.depth), blur_of(rows, columns, blur_width)
        sites = sites_of(UNWEAKENED, self.depth) if self.is_initializing() else sites
        tokens = self._embedded(patches) + self._positions(rows, columns).astype(self.dtype)
        angles = self._angles(rows, columns)
        start, joined = (self.depth, tokens[:0]) if joining is None else joining
        block, after = remat(DiTBlock) if self.rematerialise else DiTBlock, [tokens]
        for number, site in enumerate(sites):
            if number == start:
                tokens = jnp.concatenate([joined.astype(self.dtype), tokens])
                angles = None if angles is None else jnp.pad(angles, ((len(joined), 0), (0, 0)))
            options = self.norm_scale, self.feed_forward, self.qk_norm, site.is_alone
            apply = block(self.num_heads, self.norm, self.dropout, self.dtype, *options)
            if not site.is_skipped:
                tokens = apply(tokens, condition, deterministic, context, angles, blur if site.is_blurred else None)
            after.append(tokens)
        return after

    def _embedded(self, patches: Array) -> Array:
        dense = linen.Dense(self.width, dtype=self.dtype, kernel_init=_XAVIER)
        tokens = patches.reshape(-1, patches.shape[-1])
        if not self.bottleneck:
            return dense(tokens)
        narrow = linen.Dense(
            self.bottleneck, use_bias=False, dtype=self.dtype, kernel_init=_XAVIER, name="bottleneck_layer"
        )
        return dense(narrow(tokens))

    def _angles(self, rows: int, columns: int) -> Array | None:
        if not self.rotary:
            return None
        if self.width % (4 * self.num_heads):
            raise ValueError(
                f"width must be divisible by 4 * num_heads for rotary positions, got {self.width} and {self.num_heads}"
            )
        return grid_angles(rows, columns, self.width // self.num_heads)

    def _positions(self, rows: int, columns: int) -> Array:
        if self.positions == "sine":
            return sincos_positions(rows, columns, self.width)
        return self.param("positions", linen.initializers.normal(0.02), (rows * columns, self.width))

    def normed(self, tokens: Array, condition: Array, prefix: Literal["", "internal_"] = "") -> Array:
        """The tokens normalised and modulated once more, before a last layer, in float32."""
        name = f"{prefix}modulation" if prefix else None
        gain, shift = jnp.split(linen.Dense(2 * self.width, kernel_init=_ZEROS, name=name)(condition), 2)
        norm = token_norm(self.norm, _FLOAT32, self.norm_scale, f"{prefix or 'last_'}norm")
        return modulate(norm(tokens), gain, shift)

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
        norm_scale: whether the norms of tokens have a learned scale.
        feed_forward: "gelu", or "swiglu", whose inner units are the products of SiLU and linear ones: Shazeer, arXiv
            2002.05202.
        qk_norm: of ``SelfAttention``.
        rotary: turn queries and keys by the angles of their positions, too (``rotate``).
        bottleneck: units of a first layer without bias, before the tokens' width; 0 for none.
        in_context_tokens: tokens, each a learned one plus the condition's vector, that stand before the others from a
            block on: Li & He, arXiv 2511.13720. They are not turned.
        in_context_start: the number of that block, from 0.
        internal_block: the number of blocks after which a norm and a last layer of their own predict the field, too:
            ``sides`` gives both predictions. Zhou et al., arXiv 2512.24176; 0 for none.
        conditioning: a module y -> [width] or ``Embedded`` that makes y any condition; None for a label, 0..K.
    """

    num_classes: PositiveInt = 10
    conditioning: Module | None = None
    in_context_tokens: NonNegativeInt = 0
    in_context_start: NonNegativeInt = 0
    internal_block: NonNegativeInt = 0

    def __call__(
        self,
        x: Array,
        t: Array,
        y: Condition,
        deterministic: bool = True,
        weakening: Weakening = UNWEAKENED,
        blur_width: Number = jnp.inf,
    ) -> Array:
        """The field at x, t and a condition y, float32.

        Args:
            x: [H, W, C], the image.
            t: [], the time.
            y: the condition.
            deterministic: whether no inner units are dropped.
            weakening: what blocks leave out, which is structure; nothing where parameters are initialised.
            blur_width: [], of ``weakening.blurred``, in tokens: traced.

        Raises:
            TypeError, ValueError: an x that is not an image or whose sides the patch does not divide, a width that the
                number of heads does not divide, or for rotary positions four times that number, a t outside [0, 1], a
                label outside 0..K, a y that the conditioning does not take, tokens in context that begin at no block
                or without a vector, an internal block not under the depth, or a weakening of blocks that are not there.
        """
        return self._predictions(x, t, y, deterministic, weakening, blur_width)[1]

    def sides(self, x: Array, t: Array, y: Condition, deterministic: bool = True) -> tuple[Array, Array]:
        """The fields after ``internal_block`` blocks and after all, from one evaluation, float32.

        They are the two sides of internal guidance, the null one first. Arguments as ``__call__``.

        Raises:
            ValueError: no internal block; and as ``__call__``.
        """
        if not self.internal_block:
            raise ValueError("internal_block must be at least 1 for the sides of internal guidance, got 0")
        return self._predictions(x, t, y, deterministic, UNWEAKENED, jnp.inf)

    @linen.compact
    def _predictions(
        self, x: Array, t: Array, y: Condition, deterministic: bool, weakening: Weakening, blur_width: Number
    ) -> tuple[Array, Array]:
        """The fields after the internal block and after all blocks; without an internal block the latter twice."""
        check_fields(self)
        if self.internal_block and self.internal_block >= self.depth:
            raise ValueError(f"internal_block must be under the depth {self.depth}, got {self.internal_block}")
        patches, time = to_patches(x, self.patch), self.time(t)
        given = embed(self.conditioning, y, self.num_classes, self.width, std=0.02)
        condition = linen.silu(given.added_to(time))
        in_context = self._in_context(given.vector)
        trunk_input = given.joined_to(patches, self.patch), condition, deterministic, given.context, in_context
        after = self.trunk(*trunk_input, weakening, blur_width)
        final = self._last(after[-1], condition, patches.shape)
        if not self.internal_block:
            return final, final
        return self._last(after[self.internal_block], condition, patches.shape, "internal_"), final

    def _last(
        self, tokens: Array, condition: Array, shape: tuple[int, ...], prefix: Literal["", "internal_"] = ""
    ) -> Array:
        """The image that norm and last layer of a name make of the tokens of the grid."""
        tokens = self.normed(tokens[len(tokens) - shape[0] * shape[1] :], condition, prefix)
        name = f"{prefix}layer" if prefix else None
        output = linen.Dense(shape[-1], kernel_init=_ZEROS, name=name)(tokens)
        return from_patches(output.reshape(shape), self.patch)

    def _in_context(self, vector: Array | None) -> tuple[int, Array] | None:
        if not self.in_context_tokens:
            return None
        if self.in_context_start >= self.depth:
            raise ValueError(f"in_context_start must be under the depth {self.depth}, got {self.in_context_start}")
        if vector is None:
            raise ValueError("in_context_tokens must be 0 where the conditioning gives no vector")
        shape = self.in_context_tokens, self.width
        return self.in_context_start, vector[None] + self.param("in_context", linen.initializers.normal(0.02), shape)


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
        tokens = self.trunk(to_patches(x, self.patch), condition, deterministic)[-1]
        pooled = jnp.mean(self.normed(tokens, condition), axis=0)
        return jax.nn.log_softmax(linen.Dense(self.num_classes)(pooled))
