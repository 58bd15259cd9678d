"""Embeddings of a sequence or a set, of which some tokens may be padding: a text, or points."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax.checks import is_number, is_traced, short_repr
from cfgjax.conditions import Tokens
from cfgjax.contracts import NonNegativeInt, PositiveInt, check_fields
from cfgjax.models.blocks import SelfAttention
from cfgjax.models.conditioning import NULL_INIT, Embedded, value_of
from cfgjax.models.embeddings import sincos_positions
from cfgjax.types import Array, Condition


class _Block(linen.Module):
    """Attention among the tokens that are there and a two-layer MLP, both normalised and added to the tokens."""

    num_heads: int

    @linen.compact
    def __call__(self, tokens: Array, mask: Array) -> Array:
        width = tokens.shape[-1]
        tokens = tokens + SelfAttention(self.num_heads)(_norm(tokens), mask)
        inner = linen.gelu(linen.Dense(4 * width, dtype=jnp.float32)(_norm(tokens)))
        return tokens + linen.Dense(width, dtype=jnp.float32)(inner)


def _norm(tokens: Array) -> Array:
    return linen.LayerNorm(dtype=jnp.float32)(tokens)


class SequenceEmbedding(linen.Module):
    """Tokens [1 + n, width] of a sequence or a set, and a vector [width] of all of them; float32.

    The tokens are rows of a table or a dense layer's, with positions, through ``depth`` blocks of a transformer and a
    norm; the vector is a dense layer of the mean over those that are there. Padding changes nothing, bitwise. The first
    token is a learned null: it is there where no other is, because the sequence is not known (E2 of ``conditioning``)
    or all of it is padding; then the vector is a learned null, too.

    Source: Vaswani et al., arXiv 1706.03762; attention to such tokens: Rombach et al., arXiv 2112.10752.

    Args:
        width: of tokens and vector.
        vocabulary_size: the number of integers that y may hold; None where y holds vectors.
        positions: "sine", fixed; "learned", which binds the parameters to one n; "none" for a set.
        depth: the number of blocks.
        num_heads: of their attention, which must divide the width.
    """

    width: PositiveInt
    vocabulary_size: PositiveInt | None = None
    positions: Literal["sine", "learned", "none"] = "sine"
    depth: NonNegativeInt = 0
    num_heads: PositiveInt = 4

    @linen.compact
    def __call__(self, y: Condition) -> Embedded:
        """The embedding of y: ``conditions.Tokens``, their values alone, or a ``Known`` of either.

        Raises:
            TypeError, ValueError: a y that is none; values of another kind than ``vocabulary_size`` wants, where
                concrete outside 0..vocabulary_size - 1 (an integer that only a trace holds has NaN); a mask that is
                not [n] booleans, or where concrete leaves out all that is known; a width that the number of heads, or
                for sines 4, does not divide.
        """
        check_fields(self)
        name, value, is_known = value_of(y)
        values, mask = self._checked(name, value, is_known)
        mask = jnp.logical_and(mask, is_known)
        has_none = jnp.logical_not(jnp.any(mask))
        null = self.param("null_token", NULL_INIT, (self.width,))
        tokens = jnp.concatenate([null[None], self._rows(values, mask)])
        is_there = jnp.concatenate([has_none[None], mask])
        for _ in range(self.depth):
            tokens = _Block(self.num_heads)(tokens, is_there)
        tokens = jnp.where(is_there[:, None], _norm(tokens), 0)
        mean = jnp.sum(tokens[1:], axis=0) / jnp.maximum(jnp.sum(mask), 1)
        pooled = linen.Dense(self.width, dtype=jnp.float32)(mean)
        return Embedded(jnp.where(has_none, self.param("null", NULL_INIT, (self.width,)), pooled), tokens, is_there)

    def _rows(self, values: Array, mask: Array) -> Array:
        """A token for each value, [n, width]; padding is as good as 0."""
        if self.vocabulary_size is None:
            rows = linen.Dense(self.width, dtype=jnp.float32)(jnp.where(mask[:, None], values, 0))
        else:
            table = linen.Embed(self.vocabulary_size, self.width, embedding_init=linen.initializers.normal(1.0))
            rows = table(jnp.where(mask, values, 0))
        if self.positions == "none":
            return rows
        if self.positions == "sine":
            return rows + sincos_positions(len(rows), 1, self.width)
        return rows + self.param("positions", NULL_INIT, rows.shape)

    def _checked(self, name: str, value: Any, is_known: Any) -> tuple[Array, Any]:
        """The values and the mask of a sequence, found to be such."""
        is_plain = not isinstance(value, Tokens)
        tokens = Tokens(value) if is_plain else value
        self._require_values(name if is_plain else f"{name}.values", tokens.values)
        size = len(tokens.values)
        mask: Any = np.ones(size, bool) if tokens.mask is None else tokens.mask
        if np.shape(mask) != (size,) or getattr(mask, "dtype", None) != jnp.bool_:
            raise ValueError(f"{name}.mask must be {size} booleans beside {size} tokens, got {short_repr(mask)}")
        if not is_traced((mask, is_known)) and is_known and not np.any(np.asarray(mask)):
            raise ValueError(f"{name}.mask must leave a token of what is known; without one it is conditions.unknown")
        self._require_words(f"{name}.values", tokens.values, mask, is_known)
        return jnp.asarray(tokens.values), mask

    def _require_values(self, name: str, values: Any) -> None:
        """Raises TypeError or ValueError for values that are not of the kind or the rank that is due."""
        kind, rank, words = jnp.floating, 2, "floating-point numbers [n, d]"
        if self.vocabulary_size is not None:
            kind, rank, words = jnp.integer, 1, f"integers [n] under vocabulary_size {self.vocabulary_size}"
        if not is_number(values, kind):
            raise TypeError(f"{name} must be {words}, got {type(values).__name__} {short_repr(values)}")
        if np.ndim(values) != rank or 0 in np.shape(values):
            raise ValueError(f"{name} must be {words}, got the shape {np.shape(values)}")

    def _require_words(self, name: str, values: Any, mask: Any, is_known: Any) -> None:
        """Raises ValueError for integers that are there and outside the vocabulary."""
        if self.vocabulary_size is None or is_traced((values, mask, is_known)) or not is_known:
            return
        there = np.asarray(values)[np.asarray(mask)]
        if np.any((there < 0) | (there >= self.vocabulary_size)):
            raise ValueError(f"{name} must be in 0..{self.vocabulary_size - 1}, got {short_repr(there)}")
