"""Pixels, for ONE image: whole numbers 0..255 to the data point that a model learns."""

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import Array


def scale(pixels: Array | np.ndarray) -> Array:
    """The pixels 0..255 on [-1, 1], float32: z = pixels / 127.5 - 1.

    >>> scale(jnp.array([0, 255], jnp.uint8)).tolist()
    [-1.0, 1.0]
    """
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1


def dequantise(key: Array, pixels: Array | np.ndarray) -> Array:
    """The pixels with uniform noise of one level, on [-1, 1): z = (pixels + uniform[0, 1)) / 128 - 1.

    With it a density of z bounds the probability of the whole numbers: log P(pixels) >= E log p(z) - D log 128.
    Source: Theis et al., arXiv 1511.01844, section 3.1.
    """
    pixels = jnp.asarray(pixels, jnp.float32)
    return (pixels + jax.random.uniform(key, pixels.shape)) / 128 - 1


def flip(key: Array, image: Array) -> Array:
    """The image [H, W, C], mirrored left to right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def to_pixels(image: Array | np.ndarray) -> np.ndarray:
    """The image on [-1, 1] as whole numbers 0..255, clipped, on the host.

    >>> to_pixels(np.array([-1.2, 0.0, 1.0])).tolist()
    [0, 128, 255]
    """
    return np.clip(np.round((np.asarray(image) + 1) * 127.5), 0, 255).astype(np.uint8)
