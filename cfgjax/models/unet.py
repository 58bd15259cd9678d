"""A U-Net for one image, and its lower half as a noisy classifier.

Group norm only: no statistics of a batch, so that one example is one example.
Source: Ho et al., arXiv 2006.11239, appendix B; Dhariwal & Nichol (ADM), arXiv 2105.05233, sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.contracts import PositiveFloat, PositiveInt, UnitFloat, check_fields
from cfgjax.models.blocks import (
    Context,
    CrossAttention,
    SelfAttention,
    doubled,
    from_patches,
    modulate,
    remat,
    to_patches,
)
from cfgjax.models.conditioning import Embedded, Module, embed
from cfgjax.models.convolution import Conv
from cfgjax.models.embeddings import TimeEmbedding
from cfgjax.types import Array, Condition

_ZEROS = linen.initializers.zeros
_FLOAT32 = jnp.dtype(jnp.float32)
_NOTHING = Embedded()


UNET_SIZES: dict[str, dict[str, Any]] = {
    "DDPM": {"width": 128, "multipliers": (1, 2, 2, 2), "blocks_per_level": 2, "attention": (16,), "head_width": 256},
    "ADM-64": {"width": 192, "multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "attention": (8, 16, 32)},
}
"""The papers' networks: DDPM's for 32 x 32 pixels, and ADM's for 64 x 64.

They differ from the papers' in this: the condition scales as well as shifts in both, as in ADM; halvings are strided
convolutions and doublings repeat positions in both, as in DDPM, where ADM has residual blocks; time is embedded by
``TimeEmbedding``.
"""


def _group_norm(hidden: Array, dtype: jnp.dtype) -> Array:
    """Normalised over positions and the channels of a group, at most 32 groups; statistics in float32."""
    groups = math.gcd(32, hidden.shape[-1])
    return linen.GroupNorm(groups, dtype=dtype, reduction_axes=(-3, -2, -1))(hidden)


class ResidualBlock(linen.Module):
    """x + conv(drop(silu((1 + a) norm(conv(silu(norm x))) + b))), (a, b) linear in the condition; starts as x."""

    features: int
    dropout: float
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, hidden: Array, condition: Array, deterministic: bool) -> Array:
        """The block at a map [H, W, C] and a condition [E]: [H, W, features]."""
        inner = linen.silu(_group_norm(hidden, self.dtype))
        inner = Conv(self.features, (3, 3), dtype=self.dtype)(inner)
        gain, shift = jnp.split(linen.Dense(2 * self.features, dtype=self.dtype)(condition), 2)
        inner = linen.silu(modulate(_group_norm(inner, self.dtype), gain, shift))
        inner = linen.Dropout(self.dropout, deterministic=deterministic)(inner)
        inner = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=_ZEROS)(inner)
        if hidden.shape[-1] != self.features:
            hidden = linen.Dense(self.features, dtype=self.dtype)(hidden)
        return hidden + inner


class MapAttention(linen.Module):
    """x + attention(norm x) among all positions of a map, and then, with a context, to it likewise; starts as x."""

    head_width: int
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, hidden: Array, context: Context | None = None) -> Array:
        """The block at a map [H, W, C] and a context."""
        channels = hidden.shape[-1]
        tokens = _group_norm(hidden, self.dtype).reshape(-1, channels)
        heads = max(1, channels // self.head_width)
        mixed = SelfAttention(heads, self.dtype, zero_init=True)(tokens)
        hidden = hidden + mixed.reshape(hidden.shape)
        if context is None:
            return hidden
        tokens = _group_norm(hidden, self.dtype).reshape(-1, channels)
        return hidden + CrossAttention(heads, self.dtype)(tokens, context).reshape(hidden.shape)


class _Stage(linen.Module):
    """One residual block, and attention where the map has one of the chosen heights."""

    features: int
    dropout: float
    attention: tuple[int, ...]
    head_width: int
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, hidden: Array, condition: Array, deterministic: bool, context: Context | None = None) -> Array:
        hidden = ResidualBlock(self.features, self.dropout, self.dtype)(hidden, condition, deterministic)
        if hidden.shape[0] in self.attention:
            hidden = MapAttention(self.head_width, self.dtype)(hidden, context)
        return hidden


class _Middle(linen.Module):
    """Residual block, attention, residual block on the smallest map, whatever its height."""

    dropout: float
    head_width: int
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, hidden: Array, condition: Array, deterministic: bool, context: Context | None = None) -> Array:
        features = hidden.shape[-1]
        hidden = ResidualBlock(features, self.dropout, self.dtype)(hidden, condition, deterministic)
        hidden = MapAttention(self.head_width, self.dtype)(hidden, context)
        return ResidualBlock(features, self.dropout, self.dtype)(hidden, condition, deterministic)


class _Levels(linen.Module):
    """What U-Net and classifier share: the settings and the way down."""

    width: PositiveInt = 64
    multipliers: tuple[PositiveInt, ...] = (1, 2, 2)
    blocks_per_level: PositiveInt = 2
    attention: tuple[int, ...] = (7, 8)
    head_width: PositiveInt = 64
    dropout: UnitFloat = 0.0
    patch: PositiveInt = 1
    max_frequency: PositiveFloat = 100.0
    dtype: jnp.dtype = _FLOAT32
    rematerialise: bool = False

    def stage(self, features: int) -> Callable[..., Array]:
        """A stage of so many features, whose inner values are computed again in the backward pass where asked."""
        module: Any = remat(_Stage) if self.rematerialise else _Stage
        return module(features, self.dropout, self.attention, self.head_width, self.dtype)

    def middle(self) -> Callable[..., Array]:
        """The blocks of the smallest map, under remat where set."""
        module: Any = remat(_Middle) if self.rematerialise else _Middle
        return module(self.dropout, self.head_width, self.dtype)

    def way_down(self, x: Array, condition: Array, deterministic: bool, given: Embedded = _NOTHING) -> list[Array]:
        """The maps after the first convolution and after every stage and halving; the last is the smallest."""
        patches = to_patches(x, self.patch)
        halvings = 2 ** (len(self.multipliers) - 1)
        if patches.shape[0] % halvings or patches.shape[1] % halvings:
            raise ValueError(
                f"multipliers halve the map {len(self.multipliers) - 1} times, which {patches.shape[0]} x "
                f"{patches.shape[1]} positions do not allow; image {x.shape}, patch {self.patch}"
            )
        maps = [Conv(self.width, (3, 3), dtype=self.dtype)(given.joined_to(patches, self.patch))]
        for level, multiplier in enumerate(self.multipliers):
            if level:
                maps.append(Conv(maps[-1].shape[-1], (3, 3), (2, 2), dtype=self.dtype)(maps[-1]))
            for _ in range(self.blocks_per_level):
                maps.append(self.stage(multiplier * self.width)(maps[-1], condition, deterministic, given.context))
        return maps

    def time(self, t: Array) -> Array:
        """The time embedding, [4 width]."""
        return TimeEmbedding(4 * self.width, self.max_frequency, num_features=max(self.width, 2))(t)


class UNet(_Levels):
    """A field (x [H, W, C], t [], y) -> [H, W, C] by a U-Net; it starts as the field 0.

    Tokens of a condition are attended to where positions are, after them: Rombach et al., arXiv 2112.10752. Parameters,
    group statistics, the time embedding, the last layer and the output are float32 whatever ``dtype``.

    Args:
        num_classes: K; row K of the label embedding is the null label's. Not read with a ``conditioning``.
        width: channels of the largest map.
        multipliers: of the width, one for each level; the map is halved between levels.
        blocks_per_level: residual blocks on the way down; one more on the way up.
        attention: heights of the maps that attend; the smallest map always does, between its two blocks.
        head_width: channels of an attention head.
        dropout: the rate at which inner units are dropped where ``deterministic`` is False.
        patch: side of the squares of pixels that become one position of the largest map.
        max_frequency: of the time embedding.
        dtype: of the computation.
        rematerialise: compute inner values again in the backward pass, to save memory.
        conditioning: a module y -> [4 width] or ``Embedded`` that makes y any condition; None for a label, 0..K.
    """

    num_classes: PositiveInt = 10
    conditioning: Module | None = None

    @linen.compact
    def __call__(self, x: Array, t: Array, y: Condition, deterministic: bool = True) -> Array:
        """The field at x, t and a condition y, float32.

        Raises:
            TypeError, ValueError: an x that is not an image, or whose sides patch and halvings do not divide; a t
                outside [0, 1], a label outside 0..K, or a y that the conditioning does not take.
        """
        check_fields(self)
        time = self.time(t)
        given = embed(self.conditioning, y, self.num_classes, 4 * self.width)
        condition = linen.silu(given.added_to(time))
        maps = self.way_down(x, condition, deterministic, given)
        hidden = self.middle()(maps[-1], condition, deterministic, given.context)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.blocks_per_level + 1):
                joined = jnp.concatenate([hidden, maps.pop()], axis=-1)
                hidden = self.stage(multiplier * self.width)(joined, condition, deterministic, given.context)
            if level:
                hidden = Conv(hidden.shape[-1], (3, 3), dtype=self.dtype)(doubled(hidden))
        hidden = linen.silu(_group_norm(hidden, self.dtype)).astype(jnp.float32)
        size = self.patch * self.patch * x.shape[-1]
        return from_patches(Conv(size, (3, 3), kernel_init=_ZEROS)(hidden), self.patch)


class UNetClassifier(_Levels):
    """Log-probabilities (x [H, W, C], t []) -> [K] by a U-Net's way down, averaged over positions.

    ADM's classifier has the middle as well, and pools by attention.

    Args: as ``UNet``; ``num_classes`` is K.
    """

    num_classes: PositiveInt = 10

    @linen.compact
    def __call__(self, x: Array, t: Array, deterministic: bool = True) -> Array:
        """log p(y | x, t), [K], float32.

        Raises:
            TypeError, ValueError: an x that is not an image, or whose sides patch and halvings do not divide; a t
                outside [0, 1], a y outside 0..K.
        """
        check_fields(self)
        hidden = self.way_down(x, linen.silu(self.time(t)), deterministic)[-1]
        pooled = jnp.mean(linen.silu(_group_norm(hidden, self.dtype)).astype(jnp.float32), axis=(0, 1))
        return jax.nn.log_softmax(linen.Dense(self.num_classes)(pooled))
