"""The loss of a variational autoencoder at ONE image, whose latent's Gaussian is N(mean, exp(log_variance)).

(K1) Of that Gaussian from N(0, I), in nats, summed over the latent's numbers:
     KL = sum (mean^2 + exp(log_variance) - 1 - log_variance) / 2, and 0 for N(0, I) alone.
(K2) loss = (|image - decode(z)|^2 / 2 + kl_weight KL) / D, z one draw of it and D the numbers of the image. Where z is
     of N(0, I) and the image of N(decode(z), kl_weight I), the mean over draws is at least
     -kl_weight (log p(image) / D + log(2 pi kl_weight) / 2), in nats, and equal to it where the latent's Gaussian is
     that of z given the image: kl_weight is the variance of what is not reconstructed.

Source: Kingma & Welling, arXiv 1312.6114, equation 3 and appendix B; Rombach et al., arXiv 2112.10752, section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from cfgjax.checks import require_like
from cfgjax.contracts import Key, NonNegative, RealArray, checked
from cfgjax.models.latents import sample_latent
from cfgjax.types import Array

Encoder = Callable[[Array], tuple[Array, Array]]
"""An image -> mean and log-variance of its latent."""
Decoder = Callable[[Array], Array]
"""A latent -> an image."""


@checked
def kl_to_normal(mean: RealArray, log_variance: RealArray) -> Array:
    """The divergence of a latent's Gaussian from N(0, I), in nats (K1), [].

    >>> kl_to_normal(jnp.array([0.0, 3.0]), jnp.zeros(2)).item()
    4.5

    Args:
        mean: [h, w, c].
        log_variance: like ``mean``.

    Raises:
        ValueError: two shapes.
    """
    require_like("log_variance", log_variance, mean)
    log_variance = jnp.asarray(log_variance)
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.expm1(log_variance) - log_variance)


@checked
def autoencoder_loss(
    encode: Encoder,
    decode: Decoder,
    key: Key,
    image: RealArray,
    kl_weight: NonNegative,
) -> Array:
    """The loss of an autoencoder at one image and one draw of its latent, per number of the image (K2), [].

    Args:
        encode: gives the Gaussian of the image's latent.
        decode: gives images like ``image``.
        key: of the draw.
        image: [H, W, C] on [-1, 1].
        kl_weight: of the divergence, beside half of the squared error.

    Raises:
        ValueError: a mean and a log-variance of two shapes, an image that is decoded to another shape.
    """
    image = jnp.asarray(image)
    mean, log_variance = encode(image)
    decoded = decode(sample_latent(key, mean, log_variance))
    require_like("decode(z)", decoded, image)
    error = 0.5 * jnp.sum(jnp.square(image - decoded))
    return (error + kl_weight * kl_to_normal(mean, log_variance)) / image.size
