"""What is stored of ONE image, as pixels or latents, to the data point that a model learns."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_finite, require_real
from cfgjax.contracts import Contract, Key, checked, instance
from cfgjax.data.latents import Views
from cfgjax.types import Array


def _require_pixels(name: str, pixels: Array | np.ndarray) -> None:
    """Raises for what are no numbers in 0..255; bytes are, and are not looked at."""
    require_real(name, pixels)
    if is_traced(pixels) or getattr(pixels, "dtype", None) == np.uint8:
        return
    values = np.asarray(pixels, np.float64)
    if not np.all((values >= 0) & (values <= 255)):
        raise ValueError(f"{name} must be in 0..255, got {values.min():g} to {values.max():g}")


def _require_image(name: str, image: Array) -> None:
    require_real(name, image)
    if jnp.ndim(image) != 3:
        raise ValueError(f"{name} must be ONE image [height, width, channels], got shape {jnp.shape(image)}")


Pixels = Annotated[Array | np.ndarray, Contract(_require_pixels)]
"""Real numbers, in 0..255 where concrete."""


@checked
def normalize(pixels: Pixels) -> Array:
    """The pixels 0..255 on [-1, 1], float32: z = pixels / 127.5 - 1.

    >>> normalize(jnp.array([0, 255], jnp.uint8)).tolist()
    [-1.0, 1.0]
    """
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1


@checked
def dequantise(key: Key, pixels: Pixels) -> Array:
    """The pixels with uniform noise of one level, on [-1, 1): z = (pixels + uniform[0, 1)) / 128 - 1.

    With it a density of z bounds the probability of the integers: log P(pixels) >= E log p(z) - D log 128.
    Source: Theis et al., arXiv 1511.01844, section 3.1.
    """
    pixels = jnp.asarray(pixels, jnp.float32)
    return (pixels + jax.random.uniform(key, pixels.shape)) / 128 - 1


@checked
def random_flip(key: Key, image: Annotated[Array, Contract(_require_image)]) -> Array:
    """The image [H, W, C], mirrored left to right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


@checked
def draw_latent(
    key: Key, views: Annotated[Views, instance(Views, "Views of one picture, as Latents.views gives them of many")]
) -> Array:
    """One latent of a picture: of its two views one with probability one half, and mean + deviation * noise.

    What is not stored changes nothing: without deviations it is the mean, without the mirrored picture the first view.
    """
    flip_key, noise_key = jax.random.split(key)
    mean, deviation, flipped, flipped_deviation = views
    is_flipped = jax.random.bernoulli(flip_key)
    if flipped is not None:
        mean = jnp.where(is_flipped, flipped, mean)
    if deviation is None:
        return jnp.asarray(mean)
    if flipped_deviation is not None:
        deviation = jnp.where(is_flipped, flipped_deviation, deviation)
    return mean + deviation * jax.random.normal(noise_key, jnp.shape(mean))


@checked
def to_pixels(image: Annotated[Array | np.ndarray, Contract(require_finite)]) -> np.ndarray:
    """The image on [-1, 1] as integers 0..255, clipped, on the host.

    >>> to_pixels(np.array([-1.2, 0.0, 1.0])).tolist()
    [0, 128, 255]
    """
    return np.clip(np.round((np.asarray(image) + 1) * 127.5), 0, 255).astype(np.uint8)
