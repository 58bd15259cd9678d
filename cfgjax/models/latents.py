"""Latents of an autoencoder: one draw, the scale in which diffusion is trained, and decoding by tiles.

(D1) A draw is mean + exp(log_variance / 2) noise.
(D2) What is trained on is factor (z - shift) of an encoder's z, and z = x / factor + shift is decoded.
(D3) Tiles along one axis of a latent are [a_i, b_i), all of one length. At position p of it, in [a_i, b_i], tile i has
     the weight h_i(p) / sum_j h_j(p), where h_i(p) = min(1, (p - a_i) / m, (b_i - p) / m) and m is the overlap; pixel k
     of a latent's f lies (k + 1/2) / f behind the latent's beginning. A tile's weight at a pixel is the product of both
     axes' weights, and all tiles' weights sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_like, short_repr
from cfgjax.contracts import Finite, Key, NonNegativeInt, Positive, PositiveInt, RealArray, checked, record
from cfgjax.paths import noise_like
from cfgjax.types import Array


class LatentScaling(NamedTuple):
    """Factor and shift of (D2)."""

    factor: Positive
    shift: Finite = 0.0


Scaling = Annotated[LatentScaling, record(LatentScaling, "a LatentScaling, as LatentScaling(0.18215) is")]
"""The factor and the shift of latents."""

LATENT_SCALINGS: dict[str, LatentScaling] = {
    "SD": LatentScaling(0.18215),
    "SDXL": LatentScaling(0.13025),
    "SD3": LatentScaling(1.5305, 0.0609),
    "FLUX": LatentScaling(0.3611, 0.1159),
}
"""Those with which diffusion was trained on the latents of ``AUTOENCODERS``."""


@checked
def sample_latent(key: Key, mean: RealArray, log_variance: RealArray) -> Array:
    """One draw of the latent that an encoder gives mean and log-variance of (D1).

    Args:
        key: of the noise.
        mean: [h, w, c].
        log_variance: like ``mean``.

    Raises:
        ValueError: two shapes.
    """
    require_like("log_variance", log_variance, mean)
    return mean + jnp.exp(0.5 * jnp.asarray(log_variance)) * noise_like(key, mean)


@checked
def scale_latent(latent: RealArray, scaling: Scaling) -> Array:
    """The encoder's latent in the scale in which diffusion is trained (D2).

    >>> scale_latent(jnp.array([1.0, 2.0]), LatentScaling(0.5, 1.0)).tolist()
    [0.0, 0.5]
    """
    return (jnp.asarray(latent) - scaling.shift) * scaling.factor


@checked
def unscale_latent(latent: RealArray, scaling: Scaling) -> Array:
    """The latent as the decoder takes it, of one in the scale in which diffusion is trained (D2).

    >>> unscale_latent(jnp.array([0.0, 0.5]), LatentScaling(0.5, 1.0)).tolist()
    [1.0, 2.0]
    """
    return jnp.asarray(latent) / scaling.factor + scaling.shift


def _starts(length: int, side: int, overlap: int) -> np.ndarray:
    """Where the tiles of one axis begin, at equal distances, each over the one before it by ``overlap`` or more."""
    count = math.ceil((length - overlap) / (side - overlap)) if length > side else 1
    return np.round(np.linspace(0, length - side, count)).astype(np.int32)


def _weights(length: int, starts: np.ndarray, side: int, overlap: int, times: int) -> np.ndarray:
    """(D3) of one axis at the pixels of each tile, [len(starts), times * side]."""
    inside = (np.arange(times * side) + 0.5) / times
    ramp = np.minimum(1, np.minimum(inside, side - inside) / max(overlap, 1 / times / 2))
    pixels = times * starts[:, None] + np.arange(times * side)[None]
    total = np.bincount(pixels.ravel(), weights=np.tile(ramp, len(starts)), minlength=times * length)
    return (ramp[None] / total[pixels]).astype(np.float32)


def _tiles(shape: tuple[int, ...], sides: list[int], overlap: int, times: int) -> tuple[Array, ...]:
    """For every tile its first row, its rows' weights, its first column and its columns' weights."""
    found = []
    for length, side in zip(shape, sides, strict=True):
        starts = _starts(length, side, overlap)
        found.append((starts, _weights(length, starts, side, overlap, times)))
    rows, columns = (each.ravel() for each in np.indices([len(starts) for starts, _ in found]))
    at = (*(each[rows] for each in found[0]), *(each[columns] for each in found[1]))
    return tuple(jnp.asarray(each) for each in at)


def _upsampling(image: jax.ShapeDtypeStruct, sides: list[int]) -> int:
    """The f of (D3), by which an image is higher and wider than its latent."""
    shape = getattr(image, "shape", ())
    times = shape[0] // sides[0] if len(shape) == 3 else 0
    if times == 0 or shape[:2] != (times * sides[0], times * sides[1]):
        raise ValueError(f"decode must give [f h, f w, C] of a latent {tuple(sides)}, got {short_repr(image)}")
    return times


@checked
def decode_tiled(
    decode: Callable[[Array], Array], latent: RealArray, tile: PositiveInt = 64, overlap: NonNegativeInt = 16
) -> Array:
    """The image of a latent, decoded tile by tile and blended (D3): the memory of one tile, and of the image.

    Equal to ``decode(latent)`` where one tile holds all, and for a decoder whose pixel depends on its own position
    alone. A real one's norms and attention see a tile only: tiles differ in tone from the whole, and from one another.
    All tiles are of one shape, one after the other in one compiled program. diffusers cuts the last ones off instead,
    and blends each with the one above it, then with the one to its left, by 0, 1/n, ..., (n-1)/n over n pixels.

    Args:
        decode: a latent [h, w, c] -> an image [f h, f w, C].
        latent: [h, w, c].
        tile: a tile's height and width; a latent that is smaller is one tile along that axis.
        overlap: m, of neighbouring tiles, less than ``tile``.

    Raises:
        ValueError: what is no latent, an overlap as large as a tile, an image that is no multiple of its tile.
    """
    latent = jnp.asarray(latent)
    if latent.ndim != 3 or 0 in latent.shape:
        raise ValueError(f"latent must be ONE latent [height, width, channels], got shape {latent.shape}")
    if overlap >= tile:
        raise ValueError(f"overlap must be less than tile {tile}, got {overlap}")
    height, width, channels = latent.shape
    sides = [min(tile, height), min(tile, width)]
    shape_of_tile = jax.eval_shape(decode, jax.ShapeDtypeStruct((*sides, channels), latent.dtype))
    times = _upsampling(shape_of_tile, sides)

    def add(image: Array, at: tuple[Array, ...]) -> tuple[Array, None]:
        row, row_weights, column, column_weights = at
        decoded = decode(jax.lax.dynamic_slice(latent, (row, column, 0), (*sides, channels)))
        place = times * row, times * column, 0
        weights = (row_weights[:, None] * column_weights[None])[..., None].astype(decoded.dtype)
        so_far = jax.lax.dynamic_slice(image, place, decoded.shape)
        return jax.lax.dynamic_update_slice(image, so_far + weights * decoded, place), None

    image = jnp.zeros((times * height, times * width, shape_of_tile.shape[2]), shape_of_tile.dtype)
    return jax.lax.scan(add, image, _tiles((height, width), sides, overlap, times))[0]
