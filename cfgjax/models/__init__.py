"""Linen networks for one example: (x, t, y) -> like x. The only floor that knows Flax."""

from __future__ import annotations

from cfgjax.models.convnet import ConvNet
from cfgjax.models.dit import SIZES, DiT, DiTClassifier
from cfgjax.models.embeddings import LabelEmbedding, TimeEmbedding
from cfgjax.models.mlp import MLP
from cfgjax.models.unet import UNET_SIZES, UNet, UNetClassifier

__all__ = [
    "MLP",
    "SIZES",
    "UNET_SIZES",
    "ConvNet",
    "DiT",
    "DiTClassifier",
    "LabelEmbedding",
    "TimeEmbedding",
    "UNet",
    "UNetClassifier",
]
