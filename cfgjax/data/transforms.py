"""Pixels, for ONE image: integers 0..255 to the data point that a model learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_finite, require_key, require_real
from cfgjax.types import Array


def normalize(pixels: Array | np.ndarray) -> Array:
    """The pixels 0..255 on [-1, 1], float32: z = pixels / 127.5 - 1.

    Raises:
        TypeError, ValueError: what are no real numbers, or where concrete not in 0..255.

    >>> scale(jnp.array([0, 255], jnp.uint8)).tolist()
    [-1.0, 1.0]
    """
    _require_pixels(pixels)
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1


def _require_pixels(pixels: Array | np.ndarray) -> None:
    """Raises for what are no numbers in 0..255; bytes are, and are not looked at."""
    require_real("pixels", pixels)
    if is_traced(pixels) or getattr(pixels, "dtype", None) == np.uint8:
        return
    values = np.asarray(pixels, np.float64)
    if not np.all((values >= 0) & (values <= 255)):
        raise ValueError(f"pixels must be in 0..255, got {values.min():g} to {values.max():g}")


def dequantise(key: Array, pixels: Array | np.ndarray) -> Array:
    """The pixels with uniform noise of one level, on [-1, 1): z = (pixels + uniform[0, 1)) / 128 - 1.

    With it a density of z bounds the probability of the integers: log P(pixels) >= E log p(z) - D log 128.
    Source: Theis et al., arXiv 1511.01844, section 3.1.

    Raises:
        TypeError, ValueError: not ONE key; what are no real numbers, or where concrete not in 0..255.
    """
    require_key("key", key)
    _require_pixels(pixels)
    pixels = jnp.asarray(pixels, jnp.float32)
    return (pixels + jax.random.uniform(key, pixels.shape)) / 128 - 1


def random_flip(key: Array, image: Array) -> Array:
    """The image [H, W, C], mirrored left to right with probability one half.

    Raises:
        TypeError, ValueError: not ONE key, not ONE image.
    """
    require_key("key", key)
    require_real("image", image)
    if jnp.ndim(image) != 3:
        raise ValueError(f"image must be ONE image [height, width, channels], got shape {jnp.shape(image)}")
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def to_pixels(image: Array | np.ndarray) -> np.ndarray:
    """The image on [-1, 1] as integers 0..255, clipped, on the host.

    Raises:
        TypeError, ValueError: numbers that are not real and finite.

    >>> to_pixels(np.array([-1.2, 0.0, 1.0])).tolist()
    [0, 128, 255]
    """
    require_finite("image", image)
    return np.clip(np.round((np.asarray(image) + 1) * 127.5), 0, 255).astype(np.uint8)
