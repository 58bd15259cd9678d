"""Embeddings of time, label, guidance scale and position, for one example."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_count, require_label, require_number, require_rank, require_shape, require_time
from cfgjax.contracts import FiniteFloat, PositiveFloat, PositiveInt, RealArray, at_least, check_fields, checked
from cfgjax.types import Array, Interval, Number


def _waves(number: Array, num_features: int, max_frequency: float) -> Array:
    """Cosines and sines of a number [], at angular frequencies from 1 to the last in geometric steps."""
    frequencies = jnp.geomspace(1.0, max_frequency, num_features // 2, dtype=jnp.float32)
    return jnp.concatenate([jnp.cos(frequencies * number), jnp.sin(frequencies * number)])


def _from_zero(features: Array, width: int) -> Array:
    """Two dense layers in float32, the last of which starts at zero: what a network is given that knew nothing of it.

    It is called in the module whose layers they are.
    """
    hidden = linen.silu(linen.Dense(width, dtype=jnp.float32)(features))
    return linen.Dense(width, dtype=jnp.float32, kernel_init=linen.initializers.zeros)(hidden)


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
        features = _waves(t, num_features, self.max_frequency)
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


def _as_interval(y: Number | Interval) -> Interval:
    """The scale as an interval of one number, found to be one; a number acts from 0 to 1."""
    if not isinstance(y, Interval):
        require_number("y", y)
        return Interval(y, 0.0, 1.0)
    require_number("y.scale", y.scale)
    require_time("y.start", y.start)
    require_time("y.stop", y.stop)
    return y


class GuidanceEmbedding(linen.Module):
    """The features of a guidance scale w that a network sees, [width], where guidance is distilled into it; float32.

    They are cosines and sines of asinh(w) and of both edges of its interval, through two dense layers. asinh(w) is w
    next to 0 and log(2w) far from it, for w of either sign: bounded features at any w, that tell 1 from 2 as well as 5
    from 10. The last layer starts at zero, so that a network with the weights of a teacher without it starts as the
    teacher's labelled field at every w.

    Args:
        width: of both dense layers.
        max_frequency: the last angular frequency, the highest where it is above 1.
        num_features: of cosines and sines together, for each of the three numbers.

    Source: Meng et al., arXiv 2210.03142 (Fourier features of w); Geng et al., arXiv 2512.02012 (the interval's edges).
    """

    width: PositiveInt
    max_frequency: PositiveFloat = 16.0
    num_features: Annotated[int, at_least(2)] = 16

    @linen.compact
    def __call__(self, y: Number | Interval) -> Array:
        """The features of a scale y, one number or an ``Interval`` of one; a number is the interval from 0 to 1.

        Raises:
            TypeError, ValueError: a y that is neither, an edge outside [0, 1].
        """
        check_fields(self)
        scale, start, stop = (jnp.asarray(each).astype(jnp.float32) for each in _as_interval(y))
        numbers = (jnp.arcsinh(scale), start, stop)
        features = [_waves(each, self.num_features, self.max_frequency) for each in numbers]
        return _from_zero(jnp.concatenate(features), self.width)


class SpanEmbedding(linen.Module):
    """The features of the span r - t of a flow map that a network sees, [width], as ``TimeEmbedding``'s of t.

    The last layer starts at zero, so that a network with the weights of a field starts as that field at every r.

    Args:
        width: of both dense layers.
        max_frequency: the last angular frequency, the highest where it is above 1.
        num_features: of cosines and sines together.
    """

    width: PositiveInt
    max_frequency: PositiveFloat = 16.0
    num_features: Annotated[int, at_least(2)] = 32

    @linen.compact
    def __call__(self, y: Number) -> Array:
        """The features of a span y [], float32.

        Raises:
            TypeError, ValueError: a y that is not one span in [0, 1].
        """
        require_time("y", y)
        check_fields(self)
        span = jnp.asarray(y).astype(jnp.float32)
        return _from_zero(_waves(span, self.num_features, self.max_frequency), self.width)


@checked
def grid_angles(rows: PositiveInt, columns: PositiveInt, width: PositiveInt) -> Array:
    """Angles that tell positions on a grid, [rows * columns, width / 2]: first the row's, then the column's.

    Angles: p / 10000^(4k/width), k = 0..width/4-1, for p the row's and the column's number.

    Raises:
        ValueError: a width that 4 does not divide.
    """
    if width % 4:
        raise ValueError(f"width must be divisible by 4 for positions on a grid, got {width}")
    frequencies = 10000.0 ** (-jnp.arange(width // 4, dtype=jnp.float32) / (width // 4))

    def angles(position: Array) -> Array:
        row, column = position
        return jnp.concatenate([row * frequencies, column * frequencies])

    grid = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), axis=-1)
    return jax.vmap(angles)(grid.reshape(-1, 2).astype(jnp.float32))


@checked
def sincos_positions(rows: PositiveInt, columns: PositiveInt, width: PositiveInt) -> Array:
    """Fixed positions on a grid, [rows * columns, width]: sines, then cosines, of ``grid_angles``.

    Source: Vaswani et al., arXiv 1706.03762, section 3.5, in two dimensions as Peebles & Xie, arXiv 2212.09748.

    Raises:
        ValueError: a width that 4 does not divide.
    """
    angles = grid_angles(rows, columns, width)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


@checked
def rotate(heads: RealArray, angles: RealArray) -> Array:
    """Heads [num_tokens, num_heads, width] whose pairs (2k, 2k + 1) are turned by angles [num_tokens, width / 2].

    Turned by the ``grid_angles`` of two positions, two heads' inner product depends on the difference of these alone.
    Computed in float32 at least; of the heads' dtype.

    Source: Su et al., arXiv 2104.09864, in two dimensions.

    Raises:
        ValueError: heads that are not such an array, angles of another shape.
    """
    require_rank("heads", heads, 3)
    num_tokens, _, width = heads.shape
    require_shape("angles", angles, (num_tokens, width // 2))
    if width % 2:
        raise ValueError(f"heads must be of an even width, got {width}")
    dtype = jnp.promote_types(heads.dtype, jnp.float32)
    cos, sin = (each.astype(dtype)[:, None, :] for each in (jnp.cos(angles), jnp.sin(angles)))
    first, second = heads[..., ::2].astype(dtype), heads[..., 1::2].astype(dtype)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(heads.shape).astype(heads.dtype)
