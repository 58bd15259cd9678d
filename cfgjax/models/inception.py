"""The Inception-v3 of FID for ONE image: the network of the TensorFlow graph of 2015-12-05, batch norms folded in.

(I1) A unit is relu(convolution + bias); the batch norm that follows the published convolutions, with epsilon 1e-3, is
     part of kernel and bias.
(I2) Average pools 3 x 3 divide by the number of positions inside the image: 4 in a corner, not 9.
(I3) The last block pools by the maximum, where the block before it, otherwise the same, takes the average.
(I4) Two axes of a kernel are height and width, in this order: 1 x 7 reaches along a row.

Blocks and units have the names of the published weights; Mixed_6d is the graph's mixed_6.

Source: Szegedy et al., arXiv 1512.00567, with (I2) and (I3) by pytorch-fid and torch-fidelity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_real
from cfgjax.models.convolution import Conv
from cfgjax.types import Array

NUM_FEATURES, NUM_SPATIAL, NUM_LOGITS = 2048, 7, 1008
"""Of ``InceptionFeatures``."""
LEAST_SIDE = 75
"""Height and width below which the last maps are empty."""
_Size = tuple[int, int, int]
"""Features, height and width of a kernel."""


class InceptionFeatures(NamedTuple):
    """What the network says of an image.

    Attributes:
        pool: [2048], the mean over the positions of the last map: FID's.
        spatial: [h, w, 7], 17 x 17 for 299 x 299 pixels, the first 7 channels of mixed_6: sFID's.
        logits: [1008]; published Inception scores leave their bias out.
    """

    pool: Array
    spatial: Array
    logits: Array


def _mean_pooled(hidden: Array) -> Array:
    """(I2)."""
    return linen.avg_pool(hidden, (3, 3), padding="SAME", count_include_pad=False)


def _max_pooled(hidden: Array) -> Array:
    """(I3)."""
    return linen.max_pool(hidden, (3, 3), padding="SAME")


def _halved(hidden: Array) -> Array:
    """Maxima of 3 x 3 positions, every second one."""
    return linen.max_pool(hidden, (3, 3), strides=(2, 2))


class _Block(linen.Module):
    """Branches side by side, put together along the channels."""

    def unit(self, name: str, hidden: Array, size: _Size, strides: int = 1, padding: str = "SAME") -> Array:
        """(I1)."""
        features, *kernel = size
        layer = Conv(features, tuple(kernel), (strides, strides), padding, name=name)
        return linen.relu(layer(hidden))

    def chain(self, name: str, hidden: Array, *sizes: _Size) -> Array:
        """Units one after the other, with numbers from 1."""
        for number, size in enumerate(sizes, 1):
            hidden = self.unit(f"{name}_{number}", hidden, size)
        return hidden

    def halving(self, name: str, hidden: Array, size: _Size) -> Array:
        """A unit at every second position, without padding."""
        return self.unit(name, hidden, size, 2, "VALID")

    def forked(self, name: str, hidden: Array) -> list[Array]:
        """A unit along rows, and one along columns."""
        return [self.unit(f"{name}a", hidden, (384, 1, 3)), self.unit(f"{name}b", hidden, (384, 3, 1))]


class _BlockA(_Block):
    """Mixed_5b, 5c, 5d."""

    num_pooled: int

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        branches = [
            self.unit("branch1x1", hidden, (64, 1, 1)),
            self.chain("branch5x5", hidden, (48, 1, 1), (64, 5, 5)),
            self.chain("branch3x3dbl", hidden, (64, 1, 1), (96, 3, 3), (96, 3, 3)),
            self.unit("branch_pool", _mean_pooled(hidden), (self.num_pooled, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class _BlockB(_Block):
    """Mixed_6a."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        double = self.chain("branch3x3dbl", hidden, (64, 1, 1), (96, 3, 3))
        branches = [
            self.halving("branch3x3", hidden, (384, 3, 3)),
            self.halving("branch3x3dbl_3", double, (96, 3, 3)),
            _halved(hidden),
        ]
        return jnp.concatenate(branches, -1)


class _BlockC(_Block):
    """Mixed_6b to 6e."""

    width: int

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        along, down = (self.width, 1, 7), (self.width, 7, 1)
        branches = [
            self.unit("branch1x1", hidden, (192, 1, 1)),
            self.chain("branch7x7", hidden, (self.width, 1, 1), along, (192, 7, 1)),
            self.chain("branch7x7dbl", hidden, (self.width, 1, 1), down, along, down, (192, 1, 7)),
            self.unit("branch_pool", _mean_pooled(hidden), (192, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class _BlockD(_Block):
    """Mixed_7a."""

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        wide = self.chain("branch7x7x3", hidden, (192, 1, 1), (192, 1, 7), (192, 7, 1))
        branches = [
            self.halving("branch3x3_2", self.chain("branch3x3", hidden, (192, 1, 1)), (320, 3, 3)),
            self.halving("branch7x7x3_4", wide, (192, 3, 3)),
            _halved(hidden),
        ]
        return jnp.concatenate(branches, -1)


class _BlockE(_Block):
    """Mixed_7b, and with the maximum Mixed_7c (I3)."""

    is_last: bool

    @linen.compact
    def __call__(self, hidden: Array) -> Array:
        double = self.chain("branch3x3dbl", hidden, (448, 1, 1), (384, 3, 3))
        pooled = _max_pooled(hidden) if self.is_last else _mean_pooled(hidden)
        branches = [
            self.unit("branch1x1", hidden, (320, 1, 1)),
            *self.forked("branch3x3_2", self.chain("branch3x3", hidden, (384, 1, 1))),
            *self.forked("branch3x3dbl_3", double),
            self.unit("branch_pool", pooled, (192, 1, 1)),
        ]
        return jnp.concatenate(branches, -1)


class FIDInception(_Block):
    """FID's Inception-v3 for ONE image, as ``inception_inputs`` makes it, float32: ``network.apply(params, image)``."""

    @linen.compact
    def __call__(self, image: Array) -> InceptionFeatures:
        """The features of an image.

        Args:
            image: [H, W, 3], red, green, blue, about on [-1, 1]; 299 x 299 wherever a figure is to be compared.

        Raises:
            TypeError, ValueError: what is not ONE image of 3 channels, or has a side under ``LEAST_SIDE``.
        """
        _require_image(image)
        hidden = self.halving("Conv2d_1a_3x3", jnp.asarray(image, jnp.float32), (32, 3, 3))
        hidden = self.unit("Conv2d_2a_3x3", hidden, (32, 3, 3), padding="VALID")
        hidden = _halved(self.unit("Conv2d_2b_3x3", hidden, (64, 3, 3)))
        hidden = self.unit("Conv2d_3b_1x1", hidden, (80, 1, 1))
        hidden = _halved(self.unit("Conv2d_4a_3x3", hidden, (192, 3, 3), padding="VALID"))
        for letter, num_pooled in zip("bcd", (32, 64, 64), strict=True):
            hidden = _BlockA(num_pooled, name=f"Mixed_5{letter}")(hidden)
        hidden = _BlockB(name="Mixed_6a")(hidden)
        for letter, width in zip("bcd", (128, 160, 160), strict=True):
            hidden = _BlockC(width, name=f"Mixed_6{letter}")(hidden)
        spatial = hidden[..., :NUM_SPATIAL]
        hidden = _BlockD(name="Mixed_7a")(_BlockC(192, name="Mixed_6e")(hidden))
        hidden = _BlockE(is_last=False, name="Mixed_7b")(hidden)
        pool = _BlockE(is_last=True, name="Mixed_7c")(hidden).mean((0, 1))
        return InceptionFeatures(pool, spatial, linen.Dense(NUM_LOGITS, name="fc")(pool))


def _require_image(image: Array) -> None:
    require_real("image", image)
    shape = jnp.shape(image)
    if len(shape) != 3 or shape[-1] != 3 or min(shape[:2]) < LEAST_SIDE:
        least = f"with sides of at least {LEAST_SIDE}"
        raise ValueError(f"image must be ONE image [height, width, 3] {least}, got shape {shape}")
