"""What an autoencoder keeps of real images: the floor that it sets to all that is measured of what it decodes."""

from dataclasses import replace
from typing import Any

import numpy as np

from cfgjax import data
from experiments.evaluation.autoencoder import errors
from experiments.evaluation.fidelity import Reference, halves, real_vs_real
from experiments.run.decoder import Decoder

LEAST = 1024
"""Held-out images that are reconstructed, where there are as many, for few samples, too."""


def reconstructions(decoder: Decoder, reference: Reference, test: data.Images, num_samples: int) -> dict[str, Any]:
    """The error of reconstructed images within [-1, 1], and the numbers that a perfect model of latents would get.

    They are of the held-out images that are not among the reference; the distances of as many as there are samples.

    Args:
        decoder: the autoencoder.
        reference: what samples are compared with.
        test: the held-out images.
        num_samples: of a rule at one scale.
    """
    _, rest = halves(len(test.label))
    rest = rest[: max(num_samples, LEAST)]
    images = data.Images(test.pixels[rest], test.label[rest], test.num_classes).image
    found = decoder.reconstruct(images)
    measured: dict[str, Any] = {"num_images": len(rest)} | errors(images, np.clip(found, -1, 1))
    if reference.classifier is not None:
        likeliest = np.argmax(reference.classifier.log_probs(found), axis=1)
        measured["recognised"] = float(np.mean(likeliest == test.label[rest]))
    if reference.features is None:
        return measured
    of_reconstructions = real_vs_real(replace(reference, other=reference.features(found)), num_samples)
    return measured | of_reconstructions
