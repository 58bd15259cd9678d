"""A U-Net for one image, and its lower half as a noisy classifier.

Group norm only: no statistics of a batch, so that one example is one example.
Source: Ho et al., arXiv 2006.11239, appendix B; Dhariwal & Nichol (ADM), arXiv 2105.05233, sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_between
from cfgjax.contracts import PositiveFloat, PositiveInt, UnitFloat, check_fields
from cfgjax.models.blocks import Context, doubled, from_patches, remat, require_image, to_patches
from cfgjax.models.conditioning import Embedded, Module, embed
from cfgjax.models.convolution import Conv
from cfgjax.models.embeddings import TimeEmbedding
from cfgjax.models.unet_blocks import MapAttention, ResidualBlock, group_norm
from cfgjax.models.weakening import UNWEAKENED, Site, Weakening, sites_of
from cfgjax.types import Array, Condition, Number

_ZEROS = linen.initializers.zeros
_FLOAT32 = jnp.dtype(jnp.float32)
_NOTHING = Embedded()
_LEARNED = Site()


UNET_SIZES: dict[str, dict[str, Any]] = {
    "DDPM": {"width": 128, "multipliers": (1, 2, 2, 2), "blocks_per_level": 2, "attention": (16,), "head_width": 256},
    "ADM-64": {"width": 192, "multipliers": (1, 2, 3, 4), "blocks_per_level": 3, "attention": (8, 16, 32)},
}
"""The papers' networks: DDPM's for 32 x 32 pixels, and ADM's for 64 x 64.

They differ from the papers' in this: the condition scales as well as shifts in both, as in ADM; halvings are strided
convolutions and doublings repeat positions in both, as in DDPM, where ADM has residual blocks; time is embedded by
``TimeEmbedding``.
"""


class _Stage(linen.Module):
    """One residual block, and attention where the map has one of the chosen heights."""

    features: int
    dropout: float
    attention: tuple[int, ...]
    head_width: int
    dtype: jnp.dtype
    is_skipped: bool = False
    is_alone: bool = False

    @linen.compact
    def __call__(
        self,
        hidden: Array,
        condition: Array,
        deterministic: bool,
        context: Context | None = None,
        blur_width: Number | None = None,
    ) -> Array:
        block = ResidualBlock(self.features, self.dropout, self.dtype, self.is_skipped)
        hidden = block(hidden, condition, deterministic)
        if hidden.shape[0] in self.attention and not self.is_skipped:
            hidden = MapAttention(self.head_width, self.dtype, self.is_alone)(hidden, context, blur_width)
        return hidden


class _Middle(linen.Module):
    """Residual block, attention, residual block on the smallest map, whatever its height."""

    dropout: float
    head_width: int
    dtype: jnp.dtype
    is_skipped: bool = False
    is_alone: bool = False

    @linen.compact
    def __call__(
        self,
        hidden: Array,
        condition: Array,
        deterministic: bool,
        context: Context | None = None,
        blur_width: Number | None = None,
    ) -> Array:
        if self.is_skipped:
            return hidden
        features = hidden.shape[-1]
        hidden = ResidualBlock(features, self.dropout, self.dtype)(hidden, condition, deterministic)
        hidden = MapAttention(self.head_width, self.dtype, self.is_alone)(hidden, context, blur_width)
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

    @property
    def middle_block(self) -> int:
        """The number of the middle for a ``Weakening``, the block that the papers weaken in a U-Net."""
        return len(self.multipliers) * self.blocks_per_level

    def stage(self, features: int, site: Site = _LEARNED) -> Callable[..., Array]:
        """A stage of so many features, whose inner values are computed again in the backward pass where asked."""
        module: Any = remat(_Stage) if self.rematerialise else _Stage
        options = self.dropout, self.attention, self.head_width, self.dtype
        return module(features, *options, site.is_skipped, site.is_alone)

    def middle(self, site: Site) -> Callable[..., Array]:
        """The blocks of the smallest map, under remat where set."""
        module: Any = remat(_Middle) if self.rematerialise else _Middle
        return module(self.dropout, self.head_width, self.dtype, site.is_skipped, site.is_alone)

    def way_down(
        self,
        x: Array,
        condition: Array,
        deterministic: bool,
        given: Embedded = _NOTHING,
        sites: Sequence[Site] = (),
        blur_width: Number = jnp.inf,
    ) -> list[Array]:
        """The maps after the first convolution and after every stage and halving; the last is the smallest."""
        patches = to_patches(x, self.patch)
        halvings = 2 ** (len(self.multipliers) - 1)
        if patches.shape[0] % halvings or patches.shape[1] % halvings:
            raise ValueError(
                f"multipliers halve the map {len(self.multipliers) - 1} times, which {patches.shape[0]} x "
                f"{patches.shape[1]} positions do not allow; image {x.shape}, patch {self.patch}"
            )
        maps = [Conv(self.width, (3, 3), dtype=self.dtype)(given.joined_to(patches, self.patch))]
        remaining = iter(sites or [_LEARNED] * self.middle_block)
        for level, multiplier in enumerate(self.multipliers):
            if level:
                maps.append(Conv(maps[-1].shape[-1], (3, 3), (2, 2), dtype=self.dtype)(maps[-1]))
            for _ in range(self.blocks_per_level):
                site = next(remaining)
                stage = self.stage(multiplier * self.width, site)
                blur = blur_width if site.is_blurred else None
                maps.append(stage(maps[-1], condition, deterministic, given.context, blur))
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
            weakening: what blocks leave out, which is structure; nothing where parameters are initialised. A block is a
                residual block with its attention, numbered on the way down, the middle (``middle_block``, two of them
                about an attention), and the way up; skipped it is its shortcut.
            blur_width: [], of ``weakening.blurred``, in positions of the block's map: traced.

        Raises:
            TypeError, ValueError: an x that is not an image, or whose sides patch and halvings do not divide; a t
                outside [0, 1], a label outside 0..K, a y that the conditioning does not take, or a weakening of blocks
                that are not there or attend to nothing.
        """
        check_fields(self)
        require_image(x, self.patch)
        height, time = len(x) // self.patch, self.time(t)
        given = embed(self.conditioning, y, self.num_classes, 4 * self.width)
        condition = linen.silu(given.added_to(time))
        sites = self._sites(weakening, blur_width, height)
        down, middle, up = sites[: self.middle_block], sites[self.middle_block], iter(sites[self.middle_block + 1 :])
        told = condition, deterministic, given.context
        maps = self.way_down(x, condition, deterministic, given, down, blur_width)
        hidden = self.middle(middle)(maps[-1], *told, blur_width if middle.is_blurred else None)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.blocks_per_level + 1):
                site = next(up)
                joined = jnp.concatenate([hidden, maps.pop()], axis=-1)
                stage = self.stage(multiplier * self.width, site)
                hidden = stage(joined, *told, blur_width if site.is_blurred else None)
            if level:
                hidden = Conv(hidden.shape[-1], (3, 3), dtype=self.dtype)(doubled(hidden))
        hidden = linen.silu(group_norm(hidden, self.dtype)).astype(jnp.float32)
        size = self.patch * self.patch * x.shape[-1]
        return from_patches(Conv(size, (3, 3), kernel_init=_ZEROS)(hidden), self.patch)

    def _sites(self, weakening: Weakening, blur_width: Number, height: int) -> list[Site]:
        """What the weakening says of each block, once those whose attention it changes are found to attend."""
        require_between("blur_width", blur_width, 0, math.inf)
        levels = [level for level in range(len(self.multipliers)) for _ in range(self.blocks_per_level)]
        up = [level for level in reversed(range(len(self.multipliers))) for _ in range(self.blocks_per_level + 1)]
        attending = [height // 2**level in self.attention for level in levels + up]
        attending.insert(self.middle_block, True)
        sites = sites_of(weakening, len(attending))
        for number, (site, is_attending) in enumerate(zip(sites, attending, strict=True)):
            if (site.is_alone or site.is_blurred) and not is_attending:
                there = ", ".join(str(each) for each, attends in enumerate(attending) if attends)
                name = "alone" if site.is_alone else "blurred"
                raise ValueError(f"weakening.{name} must be of blocks that attend, {there}, got {number}")
        return sites_of(UNWEAKENED, len(sites)) if self.is_initializing() else sites


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
        pooled = jnp.mean(linen.silu(group_norm(hidden, self.dtype)).astype(jnp.float32), axis=(0, 1))
        return jax.nn.log_softmax(linen.Dense(self.num_classes)(pooled))
