"""Linen networks for one example: (x, t, y) -> like x. The only floor that knows Flax."""

from cfgjax.models.embeddings import LabelEmbedding, TimeEmbedding
from cfgjax.models.mlp import MLP

__all__ = ["MLP", "LabelEmbedding", "TimeEmbedding"]
