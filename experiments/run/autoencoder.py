"""An autoencoder's weights as functions of batches: pictures to latents, and what is drawn to pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.models import LatentScaling, pretrained_autoencoder, unscale_latent
from cfgjax.models.pretrained_autoencoder import PretrainedAutoencoder
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.runtime import progress
from experiments.runtime.batching import filled_parts, plan_batching

_SCALE_IS_UNUSED = LatentScaling(1.0)
"""Where an autoencoder encodes: latents are kept in its own scale."""


def weights_file(place: Path) -> Path:
    """The file of the weights: itself, or the one in a folder as diffusers writes it."""
    return place / "diffusion_pytorch_model.safetensors" if place.is_dir() else place


def read_autoencoder(file: Path, scaling: LatentScaling | None = None) -> PretrainedAutoencoder:
    """The autoencoder in a safetensors file, or in a folder as diffusers writes it.

    Args:
        file: the file, or the folder.
        scaling: of its latents, where these are decoded.

    Raises:
        UserError: it does not read as one.
    """
    try:
        return pretrained_autoencoder.read(weights_file(file), scaling or _SCALE_IS_UNUSED)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"autoencoder: {error}") from None


class Decoder(NamedTuple):
    """What turns latents of a run into images.

    Attributes:
        shape: of an image.
        decode: latents [n, h, w, c] in the scale of training -> images [n, H, W, C] about on [-1, 1].
    """

    shape: tuple[int, ...]
    decode: Callable[[np.ndarray], np.ndarray]

    def decode_all(self, latents: np.ndarray) -> np.ndarray:
        """Images [..., H, W, C] of latents [..., h, w, c], with as many axes before them."""
        images = self.decode(latents.reshape(-1, *latents.shape[-3:]))
        return images.reshape(*latents.shape[:-3], *self.shape)


def _mapped(
    one: Callable[[Tree, Array], Array], params: Tree, shape: tuple[int, ...], what: str
) -> Callable[[np.ndarray], np.ndarray]:
    """The function of n arrays of a shape, as many together as the device's memory is quick with, shown on ``what``."""
    plan = plan_batching(one, params, jax.ShapeDtypeStruct(shape, jnp.float32), shared=1)
    program = jax.jit(jax.vmap(one, (None, 0)), compiler_options=plan.compiler_options)

    def run(values: np.ndarray) -> np.ndarray:
        parts = filled_parts(len(values), min(plan.chunk, len(values)))
        found = [np.asarray(program(params, values[part])) for part in progress.each(parts, "batches", what)]
        return np.concatenate(found)[: len(values)]

    return run


def decoder_of(file: Path, shape: tuple[int, ...], scaling: tuple[float, float] | None) -> Decoder:
    """The decoder of what a run of latents draws.

    Args:
        file: as for ``read_autoencoder``.
        shape: of the latents.
        scaling: factor and shift of factor (z - shift), the scale of training of an encoder's z; None of no latents.

    Raises:
        UserError: a run of no latents, latents of other channels, a file that is no autoencoder's.
    """
    if scaling is None:
        raise UserError("autoencoder is for runs of latents; what this one draws needs no decoder")
    as_trained = LatentScaling(*scaling)
    network, params, _ = read_autoencoder(file, as_trained)
    if network.latent_channels != shape[-1]:
        raise UserError(f"autoencoder {file} has latents of {network.latent_channels} channels, the run of {shape[-1]}")

    def decode(params: Tree, latent: Array) -> Array:
        image = network.apply(params, unscale_latent(latent, as_trained), method="decode")
        return jnp.asarray(image)

    height, width = (network.downsampling * side for side in shape[:2])
    return Decoder((height, width, network.image_channels), _mapped(decode, params, shape, "decoding"))
