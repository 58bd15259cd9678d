"""An autoencoder, published weights or a run of one here: pictures to latents, and what is drawn to pictures."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.models import AutoencoderKL, LatentScaling, pretrained_autoencoder, unscale_latent
from cfgjax.models.pretrained_autoencoder import PretrainedAutoencoder
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.run.decoder import Decoder
from experiments.run.restore import restore_without_data
from experiments.runtime import progress
from experiments.runtime.batching import filled_parts, plan_batching

_WEIGHTS = "diffusion_pytorch_model"
"""How diffusers calls the files of weights in a folder, but for what follows."""
_SCALE_IS_UNUSED = LatentScaling(1.0)
"""Where an autoencoder encodes: latents are kept in its own scale."""


def weights_file(place: Path) -> Path:
    """The file of the weights: itself, or the one in a folder as diffusers writes it."""
    return place / f"{_WEIGHTS}.safetensors" if place.is_dir() else place


def _of_run(run_dir: Path, scaling: LatentScaling) -> PretrainedAutoencoder:
    """The autoencoder that a run learned, by the moving average of its parameters.

    Raises:
        UserError: a run of something else.
    """
    run = restore_without_data(run_dir)
    experiment, task = run.experiment, run.task
    if task.objective.kind != "autoencoder":
        raise UserError(f"autoencoder {run_dir} holds a run of objective {experiment.objective!r}, not an autoencoder")
    network = cast(AutoencoderKL, task.objective.network(experiment.network, task))
    return PretrainedAutoencoder(network, run.ema, scaling)


def read_autoencoder(place: Path, scaling: LatentScaling | None = None) -> PretrainedAutoencoder:
    """The autoencoder in a safetensors file, in a folder as diffusers writes it, or in the folder of a run.

    Args:
        place: the file, or the folder.
        scaling: of its latents, where these are decoded.

    Raises:
        UserError: it does not read as one.
        CheckpointError: a run without a checkpoint that reads.
    """
    file, scaling = weights_file(place), scaling or _SCALE_IS_UNUSED
    others = sorted(other.name for other in place.glob(f"{_WEIGHTS}*"))
    if others and not file.exists():
        raise UserError(
            f"autoencoder: {place} holds {', '.join(others)}; name a safetensors file: pickles are not read"
        )
    if not file.exists() and (place / "config.json").exists():
        return _of_run(place, scaling)
    try:
        return pretrained_autoencoder.read(file, scaling)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(f"autoencoder: {error}") from None


def digest_of(autoencoder: PretrainedAutoencoder) -> str:
    """SHA-256 of an autoencoder's network and parameters."""
    found = hashlib.sha256(repr(autoencoder.network).encode())
    for place, leaf in jax.tree_util.tree_leaves_with_path(autoencoder.params):
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(place)} {array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()


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


def decoder_of(place: Path, shape: tuple[int, ...], scaling: tuple[float, float] | None) -> Decoder:
    """The decoder of what a run of latents draws.

    Args:
        place: as for ``read_autoencoder``.
        shape: of the latents.
        scaling: factor and shift of factor (z - shift), the scale of training of an encoder's z; None of no latents.

    Raises:
        UserError: a run of no latents, latents of other channels, what is no autoencoder.
    """
    if scaling is None:
        raise UserError("autoencoder is for runs of latents; what this one draws needs no decoder")
    as_trained = LatentScaling(*scaling)
    autoencoder = read_autoencoder(place, as_trained)
    network, params, _ = autoencoder
    if network.latent_channels != shape[-1]:
        raise UserError(
            f"autoencoder {place} has latents of {network.latent_channels} channels, the run of {shape[-1]}"
        )

    def decode(params: Tree, latent: Array) -> Array:
        image = network.apply(params, unscale_latent(latent, as_trained), method="decode")
        return jnp.asarray(image)

    def reconstruct(params: Tree, image: Array) -> Array:
        return jnp.asarray(network.apply(params, image))

    height, width = (network.downsampling * side for side in shape[:2])
    of_image = (height, width, network.image_channels)
    return Decoder(
        of_image,
        _mapped(decode, params, shape, "decoding"),
        lambda images: _mapped(reconstruct, params, of_image, "reconstructing")(images),
        place,
        digest_of(autoencoder),
    )
