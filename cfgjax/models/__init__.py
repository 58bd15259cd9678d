"""Linen networks for one example: (x, t, y) -> like x; autoencoders of images. The only package that knows Flax.

Products of matrices are computed in ``dtype``; float32 ones on accelerators at the caller's
``jax.default_matmul_precision``, which narrows them unless it is "highest". The embedding of the time and the last
layer are float32 in bfloat16 networks, too, and so are those of conditions: a network's ``conditioning`` makes y any.
Beside the condition it may be told a guidance scale (``GuidanceEmbedding``) and a flow map's r - t (``SpanEmbedding``).
"""

from __future__ import annotations

from cfgjax.models.autoencoder import AUTOENCODERS as AUTOENCODERS
from cfgjax.models.autoencoder import AutoencoderKL as AutoencoderKL
from cfgjax.models.conditioning import Conditioning as Conditioning
from cfgjax.models.conditioning import Embedded as Embedded
from cfgjax.models.conditioning import ImageEmbedding as ImageEmbedding
from cfgjax.models.conditioning import VectorEmbedding as VectorEmbedding
from cfgjax.models.convnet import ConvNet as ConvNet
from cfgjax.models.dit import SIZES as SIZES
from cfgjax.models.dit import DiT as DiT
from cfgjax.models.dit import DiTClassifier as DiTClassifier
from cfgjax.models.embeddings import GuidanceEmbedding as GuidanceEmbedding
from cfgjax.models.embeddings import LabelEmbedding as LabelEmbedding
from cfgjax.models.embeddings import SpanEmbedding as SpanEmbedding
from cfgjax.models.embeddings import TimeEmbedding as TimeEmbedding
from cfgjax.models.latents import LATENT_SCALINGS as LATENT_SCALINGS
from cfgjax.models.latents import LatentScaling as LatentScaling
from cfgjax.models.latents import decode_tiled as decode_tiled
from cfgjax.models.latents import sample_latent as sample_latent
from cfgjax.models.latents import scale_latent as scale_latent
from cfgjax.models.latents import unscale_latent as unscale_latent
from cfgjax.models.mlp import MLP as MLP
from cfgjax.models.sequences import SequenceEmbedding as SequenceEmbedding
from cfgjax.models.unet import UNET_SIZES as UNET_SIZES
from cfgjax.models.unet import UNet as UNet
from cfgjax.models.unet import UNetClassifier as UNetClassifier
from cfgjax.models.variational import autoencoder_loss as autoencoder_loss
from cfgjax.models.variational import kl_to_normal as kl_to_normal
from cfgjax.models.weakening import Weakening as Weakening
