"""The autoencoder of latent diffusion for ONE image: AutoencoderKL of Stable Diffusion, of XL, 3 and FLUX.

(A1) An image [H, W, 3] on [-1, 1] becomes the mean and the log-variance of its latent, both [H / f, W / f, c], with
     f = 2^(number of levels - 1); a latent [h, w, c] becomes an image [f h, f w, 3].
(A2) A halving has zeros below and on the right alone: y[p] = sum_{q = 0, 1, 2} x[2 p + q] k[q]; a doubling repeats
     every position, before a convolution.
(A3) Every group norm has epsilon 1e-6.
(A4) Attention, among all positions of the smallest map, has one head as wide as the map.
(A5) An image that is decoded is about on [-1, 1], and not bounded by it.

Layers have the names of diffusers' layout, their numbers behind "_" in the place of ".".

Source: Rombach et al., arXiv 2112.10752, appendix G; diffusers 0.42.1.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_real
from cfgjax.contracts import PositiveInt, check_fields
from cfgjax.models.attention import attention_in_chunks
from cfgjax.models.convolution import Conv
from cfgjax.models.doubling import DoublingConv
from cfgjax.types import Array

EPSILON = 1e-6
"""(A3)."""
LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""To which the encoder's log-variance is clipped."""
_FLOAT32 = jnp.dtype(jnp.float32)
_BELOW = ((0, 1), (0, 1))
"""(A2)'s zeros, before and after each axis."""


class _Block(linen.Module):
    """What all blocks share: groups, type, and their layers by name."""

    num_groups: int
    dtype: jnp.dtype

    def norm(self, name: str, hidden: Array) -> Array:
        """Normalised over positions and the channels of a group; statistics in float32, in two passes."""
        return linen.GroupNorm(
            int(self.num_groups),
            epsilon=EPSILON,
            dtype=self.dtype,
            reduction_axes=(-3, -2, -1),
            use_fast_variance=False,
            name=name,
        )(hidden)

    def conv(self, name: str, features: int, hidden: Array, **further: Any) -> Array:
        """A convolution 3 x 3, in the type of what is given."""
        return Conv(features, (3, 3), dtype=hidden.dtype, name=name, **further)(hidden)

    def of(self, kind: type[_Block], name: str, **further: Any) -> _Block:
        """A block of a kind in this one, with its groups and type."""
        return kind(self.num_groups, self.dtype, name=name, **further)

    def last(self, features: int, hidden: Array) -> Array:
        """The last norm and convolution, which is float32."""
        hidden = linen.silu(self.norm("conv_norm_out", hidden)).astype(jnp.float32)
        return self.conv("conv_out", features, hidden)


class _Residual(_Block):
    """x + conv(silu(norm(conv(silu(norm x))))), x multiplied by a matrix where the number of channels changes."""

    features: int

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        inner = self.conv("conv1", self.features, linen.silu(self.norm("norm1", hidden)))
        inner = self.conv("conv2", self.features, linen.silu(self.norm("norm2", inner)))
        if hidden.shape[-1] != self.features:
            hidden = Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(hidden)
        return hidden + inner


class _Attention(_Block):
    """x + attention(norm x) (A4)."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        channels = hidden.shape[-1]
        tokens = self.norm("group_norm", hidden).reshape(-1, 1, channels)
        query, key, value = (
            linen.Dense(channels, dtype=self.dtype, name=name)(tokens) for name in ("to_q", "to_k", "to_v")
        )
        mixed = attention_in_chunks(query, key, value)
        return hidden + linen.Dense(channels, dtype=self.dtype, name="to_out_0")(mixed).reshape(hidden.shape)


class _Middle(_Block):
    """Residual block, attention, residual block."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        features = hidden.shape[-1]
        hidden = self.of(_Residual, "resnets_0", features=features)(hidden)
        hidden = self.of(_Attention, "attentions_0")(hidden)
        return self.of(_Residual, "resnets_1", features=features)(hidden)


class _Halving(_Block):
    """The map [H, W, C] at half its height and width (A2)."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        return self.conv("conv", hidden.shape[-1], hidden, strides=(2, 2), padding=_BELOW)


class _Doubling(_Block):
    """The map [H, W, C] at twice its height and width (A2)."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        return DoublingConv(hidden.shape[-1], hidden.dtype, name="conv")(hidden)


class _Level(_Block):
    """Residual blocks, and then a halving or a doubling, where there is one."""

    features: int
    num_blocks: int
    after: tuple[str, type[_Block]] | None

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        for index in range(self.num_blocks):
            hidden = self.of(_Residual, f"resnets_{index}", features=self.features)(hidden)
        return hidden if self.after is None else self.of(self.after[1], self.after[0])(hidden)


class _Encoder(_Block):
    """The way down, and the middle: [H, W, C] -> [H / f, W / f, num_outputs]."""

    widths: tuple[int, ...]
    blocks_per_level: int
    num_outputs: int

    @linen.compact
    def __call__(self, image: Array) -> Array:
        hidden = self.conv("conv_in", self.widths[0], jnp.asarray(image, self.dtype))
        for index, features in enumerate(self.widths):
            after = None if index == len(self.widths) - 1 else ("downsamplers_0", _Halving)
            sizes = {"features": features, "num_blocks": self.blocks_per_level, "after": after}
            hidden = self.of(_Level, f"down_blocks_{index}", **sizes)(hidden)
        return self.last(self.num_outputs, self.of(_Middle, "mid_block")(hidden))


class _Decoder(_Block):
    """The middle, and the way up, with one more block a level: [h, w, c] -> [f h, f w, num_outputs]."""

    widths: tuple[int, ...]
    blocks_per_level: int
    num_outputs: int

    @linen.compact
    def __call__(self, latent: Array) -> Array:
        hidden = self.of(_Middle, "mid_block")(self.conv("conv_in", self.widths[-1], latent.astype(self.dtype)))
        for index, features in enumerate(self.widths[::-1]):
            after = None if index == len(self.widths) - 1 else ("upsamplers_0", _Doubling)
            sizes = {"features": features, "num_blocks": self.blocks_per_level + 1, "after": after}
            hidden = self.of(_Level, f"up_blocks_{index}", **sizes)(hidden)
        return self.last(self.num_outputs, hidden)


class AutoencoderKL(linen.Module):
    """An encoder to latents and a decoder of them, for ONE image; a call gives the image of its latent's mean.

    ``network.apply(params, image, method="encode")``, ``network.apply(params, latent, method="decode")``. Parameters,
    group statistics, the last layers and the outputs are float32 whatever ``dtype``.

    Args:
        latent_channels: c of (A1).
        image_channels: of the image.
        widths: channels of the maps, from the largest to the smallest.
        blocks_per_level: residual blocks on the way down; one more on the way up.
        num_groups: of every norm, which must divide every width.
        has_quant_convs: whether a linear layer follows the encoder, and one comes before the decoder.
        dtype: of the computation.
    """

    latent_channels: PositiveInt = 4
    image_channels: PositiveInt = 3
    widths: tuple[PositiveInt, ...] = (128, 256, 512, 512)
    blocks_per_level: PositiveInt = 2
    num_groups: PositiveInt = 32
    has_quant_convs: bool = True
    dtype: jnp.dtype = _FLOAT32

    def setup(self) -> None:
        """The four parts.

        Raises:
            ValueError: a width that ``num_groups`` does not divide.
        """
        check_fields(self)
        if any(width % self.num_groups for width in self.widths):
            raise ValueError(f"num_groups must divide all widths, got {self.num_groups} and {tuple(self.widths)}")
        sizes = tuple(self.widths), self.blocks_per_level
        self.encoder = _Encoder(self.num_groups, self.dtype, *sizes, 2 * self.latent_channels)
        self.decoder = _Decoder(self.num_groups, self.dtype, *sizes, self.image_channels)
        if self.has_quant_convs:
            self.quant_conv = Conv(2 * self.latent_channels, (1, 1))
            self.post_quant_conv = Conv(self.latent_channels, (1, 1))

    @property
    def downsampling(self) -> int:
        """The f of (A1), by which an image is higher and wider than its latent."""
        return 2 ** (len(self.widths) - 1)

    def encode(self, image: Array) -> tuple[Array, Array]:
        """The mean and the log-variance of an image's latent, float32, the latter within ``LOG_VARIANCE_RANGE``.

        Args:
            image: [H, W, C] on [-1, 1].

        Raises:
            TypeError, ValueError: what is not ONE image of these channels, or has sides that the halvings do not allow.
        """
        _require_map("image", image, self.image_channels)
        if image.shape[0] % self.downsampling or image.shape[1] % self.downsampling:
            raise ValueError(f"image must have sides that {self.downsampling} divides, got shape {image.shape}")
        moments = self.encoder(image)
        moments = self.quant_conv(moments) if self.has_quant_convs else moments
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE_RANGE)

    def decode(self, latent: Array) -> Array:
        """The image of a latent, float32 (A5).

        Args:
            latent: [h, w, c] in the encoder's own scale, as ``unscale_latent`` gives it.

        Raises:
            TypeError, ValueError: what is not ONE latent of these channels.
        """
        _require_map("latent", latent, self.latent_channels)
        latent = jnp.asarray(latent, jnp.float32)
        return self.decoder(self.post_quant_conv(latent) if self.has_quant_convs else latent)

    def __call__(self, image: Array) -> Array:
        """The image that the mean of the image's latent is decoded to; both methods' parameters are made by it."""
        return self.decode(self.encode(image)[0])


def _require_map(name: str, value: Array, channels: int) -> None:
    require_real(name, value)
    shape = jnp.shape(value)
    if len(shape) != 3 or 0 in shape or shape[-1] != channels:
        raise ValueError(f"{name} must be ONE {name} [height, width, {channels}], got shape {shape}")


AUTOENCODERS: dict[str, AutoencoderKL] = {
    "SD": AutoencoderKL(),
    "SDXL": AutoencoderKL(),
    "SD3": AutoencoderKL(latent_channels=16, has_quant_convs=False),
    "FLUX": AutoencoderKL(latent_channels=16, has_quant_convs=False),
}
"""The published autoencoders: of Stable Diffusion 1 and 2 (and DiT, SiT), of XL, of 3, and of FLUX.1."""
