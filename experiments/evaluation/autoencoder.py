"""The report on an autoencoder: what is lost of held-out images, and what their latents are like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.models import kl_to_normal
from cfgjax.types import Array
from experiments.evaluation.measurable import RECONSTRUCTION, Need
from experiments.evaluation.options import EvaluationOptions
from experiments.figures import reconstructions
from experiments.tasks.task import Autoencoder, Learned

MOST_IMAGES = 10_000
"""How many held-out images are reconstructed at most."""
_TOGETHER = 64


class Seen(NamedTuple):
    """What an autoencoder makes of n images.

    Attributes:
        reconstructed: [n, H, W, C], what the mean of each latent is decoded to, within [-1, 1].
        mean: [n, h, w, c], of the latents.
        log_variance: like ``mean``.
        kl: [n, c], the divergence of each channel from N(0, I), in nats.
    """

    reconstructed: np.ndarray
    mean: np.ndarray
    log_variance: np.ndarray
    kl: np.ndarray


def seen(autoencoder: Autoencoder, images: np.ndarray) -> Seen:
    """What an autoencoder makes of images [n, H, W, C] in [-1, 1]."""

    def one(image: Array) -> tuple[Array, ...]:
        mean, log_variance = autoencoder.encode(image)
        by_channel = jax.vmap(kl_to_normal, (-1, -1))(mean, log_variance)
        return jnp.clip(autoencoder.decode(mean), -1, 1), mean, log_variance, by_channel

    found = jax.jit(lambda images: jax.lax.map(one, images, batch_size=_TOGETHER))(images)
    return Seen(*map(np.asarray, found))


def errors(images: np.ndarray, reconstructed: np.ndarray) -> dict[str, float]:
    """Root mean square of the error over all numbers of all images, and its ratio to their range, 2, in decibels."""
    rms = float(np.sqrt(np.mean(np.square(reconstructed - images, dtype=np.float64))))
    return {"rms": rms, "psnr": float(20 * np.log10(2 / rms)) if rms else float("inf")}


def by_channel(found: Seen) -> list[dict[str, float]]:
    """Of every channel of the latents mean and deviation of the means, the root mean variance, and nats an image."""
    axes = 0, 1, 2
    columns: dict[str, Any] = {
        "mean": np.mean(found.mean, axes, np.float64),
        "deviation": np.std(found.mean, axes, np.float64),
        "noise": np.sqrt(np.mean(np.exp(found.log_variance), axes, np.float64)),
        "kl": np.mean(found.kl, 0, np.float64),
    }
    count = found.mean.shape[-1]
    return [{"channel": c} | {name: float(values[c]) for name, values in columns.items()} for c in range(count)]


def needs(options: EvaluationOptions) -> list[Need]:
    """The numbers of the report."""
    return [RECONSTRUCTION]


def evaluate(run: Learned, test: data.Images, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of held-out images, unless they are missing; writes samples.png, some beside what becomes of them."""
    if RECONSTRUCTION.numbers in missing:
        return {}
    images = test.image[:MOST_IMAGES]
    found = seen(run.autoencoder, images)
    shown = slice(reconstructions.MOST)
    figure = reconstructions.figure(images[shown], found.reconstructed[shown], reconstructions.TITLE)
    figure.savefig(out_dir / "samples.png", dpi=100)
    nats = {"kl": float(np.mean(np.sum(found.kl, 1), dtype=np.float64))}
    return {
        "num_images": len(images),
        "latent_shape": list(found.mean.shape[1:]),
        "reconstruction": errors(images, found.reconstructed) | nats,
        "latents": by_channel(found),
    }
