"""What the image networks share: patches, modulation, and attention of ONE example's tokens to theirs or others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax.checks import require_real
from cfgjax.contracts import PositiveInt, check_fields, checked
from cfgjax.models.attention import attention, project
from cfgjax.models.embeddings import rotate
from cfgjax.models.weakening import Blur, blurred
from cfgjax.types import Array

_XAVIER = linen.initializers.xavier_uniform()

Context = tuple[Array, Array]
"""What tokens attend to beside each other: tokens [n, d] of the condition, and which of them are there, [n]."""


def remat(module: type[linen.Module]) -> type[linen.Module]:
    """The block (hidden, condition, deterministic, ...) whose inner values are computed again in the backward pass.

    It keeps its class's name, so that parameters are called the same either way.
    """
    lifted = linen.remat(module, static_argnums=(3,))
    lifted.__name__ = module.__name__
    return lifted


def require_image(x: Array, patch: int, name: str = "x") -> None:
    """Raises TypeError or ValueError unless x is an image [height, width, channels] whose sides the patch divides."""
    require_real(name, x)
    if jnp.ndim(x) != 3 or 0 in jnp.shape(x):
        raise ValueError(f"{name} must be ONE image [height, width, channels], got shape {jnp.shape(x)}")
    height, width, _ = jnp.shape(x)
    if height % patch or width % patch:
        raise ValueError(f"patch must divide the image's sides, got patch {patch} on {height} x {width}")


@checked
def to_patches(x: Array, patch: PositiveInt) -> Array:
    """The image [H, W, C] as patches [H / patch, W / patch, patch * patch * C]."""
    require_image(x, patch)
    height, width, channels = x.shape
    blocks = x.reshape(height // patch, patch, width // patch, patch, channels).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(height // patch, width // patch, patch * patch * channels)


def from_patches(patches: Array, patch: int) -> Array:
    """The image [H, W, C] of patches [H / patch, W / patch, patch * patch * C]."""
    rows, columns, size = patches.shape
    channels = size // (patch * patch)
    blocks = patches.reshape(rows, columns, patch, patch, channels).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(rows * patch, columns * patch, channels)


def doubled(hidden: Array) -> Array:
    """The map [H, W, C] with every position four times, [2 H, 2 W, C]."""
    return jnp.repeat(jnp.repeat(hidden, 2, axis=0), 2, axis=1)


def modulate(hidden: Array, gain: Array, shift: Array) -> Array:
    """(1 + gain) * hidden + shift at every position: hidden [..., width], gain and shift [width]."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    return jax.vmap(lambda row: (1 + gain) * row + shift)(rows).reshape(hidden.shape)


class _Projection(linen.Module):
    """Query, key and value of tokens [num_tokens, width], by the parameters of ``linen.Dense(3 * width)``."""

    num_heads: int
    dtype: jnp.dtype

    @linen.compact
    def __call__(self, tokens: Array) -> tuple[Array, ...]:
        width = tokens.shape[-1]
        kernel = self.param("kernel", _XAVIER, (width, 3 * width))
        bias = self.param("bias", linen.initializers.zeros, (3 * width,))
        tokens, kernel, bias = linen.dtypes.promote_dtype(tokens, kernel, bias, dtype=self.dtype)
        return project(tokens, kernel, bias, self.num_heads)


def _require_heads(num_heads: int, width: int) -> None:
    if width % num_heads:
        raise ValueError(f"num_heads must divide the width {width}, got {num_heads}")


class SelfAttention(linen.Module):
    """Attention among the tokens of one example, [num_tokens, width] -> the same.

    Args:
        num_heads: which must divide the width.
        dtype: of the computation.
        zero_init: whether the last layer starts at zero.
        qk_norm: whether queries and keys have a root-mean-square norm each, with a learned scale for every number of a
            head: Dehghani et al., arXiv 2302.05442, section 2.1.
        is_alone: whether every token attends to itself alone, for a ``Weakening``.
    """

    num_heads: PositiveInt
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    zero_init: bool = False
    qk_norm: bool = False
    is_alone: bool = False

    @linen.compact
    def __call__(
        self, tokens: Array, mask: Array | None = None, angles: Array | None = None, blur: Blur | None = None
    ) -> Array:
        """The mixture of the values of tokens, of those that are there by a mask [num_tokens].

        Normalised queries and keys are turned by angles [num_tokens, width / num_heads / 2], where there are some, as
        ``embeddings.rotate`` does. Queries on a grid are averaged by a blur, before they are turned.

        Raises:
            ValueError: a width that the number of heads does not divide.
        """
        check_fields(self)
        num_tokens, width = tokens.shape
        _require_heads(self.num_heads, width)
        query, key, value = _Projection(self.num_heads, self.dtype, name="Dense_0")(tokens)
        mixed = value if self.is_alone else self._mixed(query, key, value, mask, angles, blur)
        last_init = linen.initializers.zeros if self.zero_init else _XAVIER
        last = linen.Dense(width, dtype=self.dtype, kernel_init=last_init, name="Dense_1")
        return last(mixed.reshape(num_tokens, width))

    def _mixed(
        self, query: Array, key: Array, value: Array, mask: Array | None, angles: Array | None, blur: Blur | None
    ) -> Array:
        """The values mixed in every head, [num_tokens, num_heads, width / num_heads]."""
        if self.qk_norm:
            query = linen.RMSNorm(epsilon=1e-6, dtype=self.dtype, name="query_norm")(query)
            key = linen.RMSNorm(epsilon=1e-6, dtype=self.dtype, name="key_norm")(key)
        if blur is not None:
            query = blurred(query, blur)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        return attention(query, key, value, mask)


class CrossAttention(linen.Module):
    """Attention of one example's tokens [num_tokens, width] to those of its context, [n, d]; starts as 0.

    Source: Rombach et al., arXiv 2112.10752, section 3.3.

    Args:
        num_heads: which must divide the width.
        dtype: of the computation.
    """

    num_heads: PositiveInt
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @linen.compact
    def __call__(self, tokens: Array, context: Context) -> Array:
        """The mixture of the values of the context's tokens that are there, which must be at least one.

        Raises:
            ValueError: a width that the number of heads does not divide.
        """
        check_fields(self)
        num_tokens, width = tokens.shape
        _require_heads(self.num_heads, width)
        others, mask = context
        query = linen.Dense(width, dtype=self.dtype, kernel_init=_XAVIER)(tokens)
        joint = linen.Dense(2 * width, dtype=self.dtype, kernel_init=_XAVIER)(others)
        key, value = jnp.split(joint.reshape(len(others), 2 * self.num_heads, -1), 2, axis=1)
        mixed = attention(query.reshape(num_tokens, self.num_heads, -1), key, value, mask)
        last = linen.Dense(width, dtype=self.dtype, kernel_init=linen.initializers.zeros)
        return last(mixed.reshape(num_tokens, width))
