"""Embeddings of time, label and position, for one example."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_count, require_label, require_time
from cfgjax.contracts import FiniteFloat, PositiveFloat, PositiveInt, at_least, check_fields, checked
from cfgjax.types import Array


class TimeEmbedding(linen.Module):
    """The features of t that a network sees, [width]: sines and cosines, through two dense layers, in float32.

    The angular frequencies run from 1 to ``max_frequency`` in geometric steps, so that t in [0, 1] is resolved to
    about 1/max_frequency; t is never cast below float32.

    Args:
        width: of both dense layers.
        max_frequency: the last angular frequency, the highest where it is above 1.
        num_features: of sines and cosines together; by default ``width``.
        ends: the numbers that are embedded at t = 0 and t = 1, and between them in proportion.
    """

    width: PositiveInt
    max_frequency: PositiveFloat = 100.0
    num_features: Annotated[int, at_least(2)] | None = None
    ends: tuple[FiniteFloat, FiniteFloat] = (0.0, 1.0)

    @linen.compact
    def __call__(self, t: Array) -> Array:
        """The features of t [], float32.

        Raises:
            TypeError, ValueError: a t that is not one time in [0, 1]; a width of 1 without ``num_features``.
        """
        require_time("t", t)
        check_fields(self)
        first, last = self.ends
        t = first + (last - first) * jnp.asarray(t).astype(jnp.float32)
        num_features = self.width if self.num_features is None else self.num_features
        require_count("width", num_features, 2)
        frequencies = jnp.geomspace(1.0, self.max_frequency, num_features // 2, dtype=jnp.float32)
        features = jnp.concatenate([jnp.cos(frequencies * t), jnp.sin(frequencies * t)])
        hidden = linen.silu(linen.Dense(self.width, dtype=jnp.float32)(features))
        return linen.Dense(self.width, dtype=jnp.float32)(hidden)


class LabelEmbedding(linen.Module):
    """A learned row for each of the labels 0..K-1 and for the null label K, [width]."""

    num_classes: PositiveInt
    width: PositiveInt
    std: float = 1.0

    @linen.compact
    def __call__(self, y: Array) -> Array:
        """Row y [] of the table.

        Raises:
            TypeError, ValueError: a y that is not one integer, or where concrete not in 0..K. Where a label that only
                a trace holds is none of the table, its row is NaN, or for a negative one counted from the end.
        """
        check_fields(self)
        require_label("y", y, self.num_classes)
        rows = linen.Embed(self.num_classes + 1, self.width, embedding_init=linen.initializers.normal(self.std))
        return rows(jnp.asarray(y))


@checked
def sincos_positions(rows: PositiveInt, columns: PositiveInt, width: PositiveInt) -> Array:
    """Fixed positions on a grid, [rows * columns, width]: half of the features tell the row, half the column.

    Features: sin(p / 10000^(4k/width)) and the cosine, k = 0..width/4-1, for p the row's and the column's number.
    Source: Vaswani et al., arXiv 1706.03762, section 3.5, in two dimensions as Peebles & Xie, arXiv 2212.09748.

    Raises:
        ValueError: a width that 4 does not divide.
    """
    if width % 4:
        raise ValueError(f"width must be divisible by 4 for positions on a grid, got {width}")
    frequencies = 10000.0 ** (-jnp.arange(width // 4, dtype=jnp.float32) / (width // 4))

    def features(position: Array) -> Array:
        row, column = position
        angles = jnp.concatenate([row * frequencies, column * frequencies])
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])

    grid = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), axis=-1)
    return jax.vmap(features)(grid.reshape(-1, 2).astype(jnp.float32))
