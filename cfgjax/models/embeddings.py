"""Embeddings of time and label, for one example."""

import jax.numpy as jnp
from flax import linen

from cfgjax.types import Array


class TimeEmbedding(linen.Module):
    """The features of t that a network sees, [width]: sines and cosines, through two dense layers, in float32.

    The angular frequencies run from 1 to ``max_frequency`` in geometric steps, so that t in [0, 1] is resolved to
    about 1/max_frequency; t is never cast below float32.
    """

    width: int
    max_frequency: float = 100.0

    @linen.compact
    def __call__(self, t: Array) -> Array:
        """The features of t [], float32."""
        t = jnp.asarray(t).astype(jnp.float32)
        frequencies = jnp.geomspace(1.0, self.max_frequency, self.width // 2, dtype=jnp.float32)
        features = jnp.concatenate([jnp.cos(frequencies * t), jnp.sin(frequencies * t)])
        hidden = linen.silu(linen.Dense(self.width, dtype=jnp.float32)(features))
        return linen.Dense(self.width, dtype=jnp.float32)(hidden)


class LabelEmbedding(linen.Module):
    """A learned row for each of the labels 0..K-1 and for the null label K, [width]."""

    num_labels: int
    width: int

    @linen.compact
    def __call__(self, y: Array) -> Array:
        """Row y [] of the table."""
        rows = linen.Embed(self.num_labels + 1, self.width, embedding_init=linen.initializers.normal(1.0))
        return rows(jnp.asarray(y))
