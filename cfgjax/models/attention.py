"""Attention among the tokens of ONE example, or to others, by the kernel that is best where the program will run.

Which one is chosen when a program is LOWERED: a program that is compiled for GPUs on a machine without any has the
kernels of GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from cfgjax import kernels
from cfgjax.types import Array


def _is_cudnn_found() -> bool:
    """Whether JAX's CUDA plugin with its cuDNN is installed, without which no program can be lowered to use it."""
    one = jax.ShapeDtypeStruct((8, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(lambda x: _flash(x, x, x), one)
    except RuntimeError:
        return False
    return True


def _is_fit_for_flash(query: Array, key: Array) -> bool:
    """Whether cuDNN takes heads like these, in their precision; its gradient wants even numbers of tokens."""
    is_half = query.dtype in (jnp.bfloat16, jnp.float16)
    is_even = len(query) % 2 == len(key) % 2 == 0
    return is_half and is_even and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128


def _flash(query: Array, key: Array, value: Array) -> Array:
    mixed = jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return _with_slope_batched_as(query, mixed)


@jax.custom_vjp
def _with_slope_batched_as(other: Array, value: Array) -> Array:
    """The value; ``jax.vmap`` batches its cotangent wherever it does the other array: cuDNN's gradient wants it so."""
    return value


def _slope_batched_as(other: Array, slope: Array) -> tuple[None, Array]:
    return None, jnp.where(other == other, slope, slope)


_with_slope_batched_as.defvjp(lambda other, value: (value, other), _slope_batched_as)


def _masked(scores: Array, mask: Array | None) -> Array:
    """The scores [num_heads, num_queries, num_keys] in float32, -inf where the mask [num_keys] is False."""
    scores = scores.astype(jnp.float32)
    return scores if mask is None else jnp.where(mask[None, None], scores, -jnp.inf)


def plain_attention(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """``attention`` by products of matrices, one for each head.

    On CPUs they are faster than products that keep the heads inside.
    """
    query, key, value = (jnp.swapaxes(each, 0, 1) for each in (query * query.shape[-1] ** -0.5, key, value))
    weights = jax.nn.softmax(_masked(query @ jnp.swapaxes(key, 1, 2), mask))
    return jnp.swapaxes(weights.astype(value.dtype) @ value, 0, 1)


def inner_heads_attention(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """``attention`` by products that keep the heads inside, for TPUs.

    There XLA puts a flash kernel of its own in the place of ``plain_attention``'s products, and the transposes around
    it alone take twice the estimated cycles of all of this.
    """
    scores = jnp.einsum("qhd,khd->hqk", query * query.shape[-1] ** -0.5, key)
    weights = jax.nn.softmax(_masked(scores, mask))
    return jnp.einsum("hqk,khd->qhd", weights.astype(value.dtype), value)


def _project(tokens: Array, kernel: Array, bias: Array, num_heads: int) -> tuple[Array, ...]:
    projected = tokens @ kernel + bias[None]
    heads = projected.reshape(len(tokens), 3 * num_heads, -1)
    query, key, value = jnp.split(heads, 3, axis=1)
    return query, key, value


def _project_to_heads(tokens: Array, kernel: Array, bias: Array, num_heads: int) -> tuple[Array, ...]:
    """A product for each of the three, whose value has its heads' axis from the start: no copy splits it."""
    kernels, biases = (each.reshape(*each.shape[:-1], 3, num_heads, -1) for each in (kernel, bias))
    return tuple(jnp.einsum("td,dhc->thc", tokens, kernels[:, i]) + biases[None, i] for i in range(3))


def project(tokens: Array, kernel: Array, bias: Array, num_heads: int) -> tuple[Array, ...]:
    """Query, key and value of the tokens, each [num_tokens, num_heads, width / num_heads].

    Args:
        tokens: [num_tokens, width].
        kernel: [width, 3 * width].
        bias: [3 * width].
        num_heads: of each.
    """
    ways = {"tpu": partial(_project_to_heads, num_heads=num_heads), "default": partial(_project, num_heads=num_heads)}
    return jax.lax.platform_dependent(tokens, kernel, bias, **ways)


def attention(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """softmax(query . key / sqrt(width)) value in every head, all [num_tokens, num_heads, width]; softmax in float32.

    In a program for NVIDIA's GPUs in half precision it is cuDNN's flash attention, but within ``kernels.plain`` and for
    odd numbers of tokens; for TPUs ``inner_heads_attention``, elsewhere ``plain_attention``.

    Args:
        query: [num_queries, num_heads, width].
        key: [num_keys, num_heads, width].
        value: as ``key``.
        mask: [num_keys] booleans, which keys are there: the others have no weight. At least one must be, or all is NaN.
            With a mask it is the plain products on GPUs, too: there are few keys where conditions are attended to.
    """
    by_platform: dict[str, Callable[..., Array]] = {"tpu": inner_heads_attention}
    if mask is not None:
        return jax.lax.platform_dependent(query, key, value, mask, **by_platform, default=plain_attention)
    if not kernels.are_plain() and _is_fit_for_flash(query, key) and _is_cudnn_found():
        by_platform["cuda"] = _flash
    return jax.lax.platform_dependent(query, key, value, **by_platform, default=plain_attention)


QUERIES_AT_ONCE = 1024
"""Of ``attention_in_chunks``."""


def attention_in_chunks(query: Array, key: Array, value: Array) -> Array:
    """``attention``, in the memory of ``QUERIES_AT_ONCE`` rows of scores: 64 MiB for 128 x 128 positions in float32.

    Each row is softmaxed over all keys, so that chunks change no more than the order of sums; a gradient computes the
    scores again.
    """
    if len(query) <= QUERIES_AT_ONCE:
        return attention(query, key, value)
    one = jax.checkpoint(lambda each: attention(each[None], key, value)[0])
    return jax.lax.map(one, query, batch_size=QUERIES_AT_ONCE)
