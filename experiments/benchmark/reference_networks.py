"""The networks of ``reference``: the library's, by hand, on whole batches of the same weights."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cfgjax.models import MLP, DiT, UNet
from cfgjax.models.embeddings import sincos_positions
from cfgjax.types import Array, Tree
from experiments.benchmark.workloads import Workload

Network = Callable[[Tree, Array, Array, Array], Array]
"""(weights, x [B, *D], t [] or [B], y [B]) -> [B, *D]."""


def _dense(weights: Tree, x: Array, dtype: Any = jnp.float32) -> Array:
    return x.astype(dtype) @ weights["kernel"].astype(dtype) + weights["bias"].astype(dtype)


def _condition(weights: Tree, t: Array, y: Array, num_features: int) -> Array:
    frequencies = jnp.geomspace(1.0, 100.0, num_features // 2, dtype=jnp.float32)
    angles = t[..., None] * frequencies
    features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    embedding = weights["TimeEmbedding_0"]
    time = _dense(embedding["Dense_1"], jax.nn.silu(_dense(embedding["Dense_0"], features)))
    return jax.nn.silu(time + weights["LabelEmbedding_0"]["Embed_0"]["embedding"][y])


def _normed(x: Array, axes: tuple[int, ...] = (-1,)) -> Array:
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axes, keepdims=True)
    variance = jnp.maximum(jnp.mean(jnp.square(x32), axes, keepdims=True) - jnp.square(mean), 0)
    return (x32 - mean) * lax.rsqrt(variance + 1e-6)


def mlp(network: MLP) -> Network:
    """The residual MLP."""

    def apply(weights: Tree, x: Array, t: Array, y: Array) -> Array:
        layers = weights["params"]
        condition = _condition(layers, t, y, network.embedding_width)

        def modulated(hidden: Array, number: int) -> Array:
            gain, shift = jnp.split(_dense(layers[f"Dense_{number}"], condition), 2, axis=-1)
            return (1 + gain) * _normed(hidden) + shift

        hidden = _dense(layers["Dense_0"], x)
        for block in range(network.depth):
            # Flax numbers a block's layers in the order of their creation: outer, modulation, outer's second.
            first, modulation, second = 3 * block + 1, 3 * block + 2, 3 * block + 3
            inner = jax.nn.silu(_dense(layers[f"Dense_{first}"], modulated(hidden, modulation)))
            hidden = hidden + _dense(layers[f"Dense_{second}"], inner)
        last = 3 * network.depth + 1
        return _dense(layers[f"Dense_{last}"], modulated(hidden, last + 1))

    return apply


def _attention(weights: Tree, rows: Array, batch: int, num_heads: int, dtype: Any) -> Array:
    """Attention within each example, of all examples' tokens in rows [B * N, width]."""
    count, width = rows.shape
    projected = _dense(weights["Dense_0"], rows, dtype).reshape(batch, count // batch, 3, num_heads, -1)
    query, key, value = projected.transpose(2, 0, 3, 1, 4)
    if jax.default_backend() == "gpu" and dtype == jnp.bfloat16:
        inputs = (each.swapaxes(1, 2) for each in (query, key, value))
        mixed = jax.nn.dot_product_attention(*inputs, implementation="cudnn")
        return _dense(weights["Dense_1"], mixed.reshape(count, width), dtype)
    logits = (query * (query.shape[-1] ** -0.5)) @ key.swapaxes(-1, -2)
    mixed = (jax.nn.softmax(logits.astype(jnp.float32)).astype(dtype) @ value).swapaxes(1, 2)
    return _dense(weights["Dense_1"], mixed.reshape(count, width), dtype)


def transformer(network: DiT) -> Network:
    """The diffusion transformer, with layer norm and sine positions.

    All tokens are rows of one matrix: with a batch axis of its own, the gradients of the weights copy their inputs.
    """
    patch, dtype = network.patch, network.dtype

    def modulations(weights: Tree, condition: Array, parts: int, num_tokens: int, dtype: Any) -> list[Array]:
        each = jnp.split(_dense(weights, condition, dtype), parts, axis=-1)
        return [jnp.repeat(part, num_tokens, axis=0) for part in each]

    def block(weights: Tree, rows: Array, condition: Array) -> Array:
        batch = len(condition)
        gain, shift, gate, inner_gain, inner_shift, inner_gate = modulations(
            weights["Dense_0"], condition, 6, len(rows) // batch, dtype
        )
        normed = (1 + gain) * _normed(rows).astype(dtype) + shift
        rows = rows + gate * _attention(weights["SelfAttention_0"], normed, batch, network.num_heads, dtype)
        normed = (1 + inner_gain) * _normed(rows).astype(dtype) + inner_shift
        inner = jax.nn.gelu(_dense(weights["Dense_1"], normed, dtype))
        return rows + inner_gate * _dense(weights["Dense_2"], inner, dtype)

    def apply(weights: Tree, x: Array, t: Array, y: Array) -> Array:
        layers = weights["params"]
        batch, height, width, channels = x.shape
        down, across = height // patch, width // patch
        condition = _condition(layers, t, y, 256)
        patches = x.reshape(batch, down, patch, across, patch, channels).transpose(0, 1, 3, 2, 4, 5)
        tokens = _dense(layers["Dense_0"], patches.reshape(batch, down * across, -1), dtype)
        rows = (tokens + sincos_positions(down, across, network.width).astype(dtype)).reshape(-1, network.width)
        for number in range(network.depth):
            rows = block(layers[f"DiTBlock_{number}"], rows, condition)
        gain, shift = modulations(layers["Dense_1"], condition, 2, down * across, jnp.float32)
        output = _dense(layers["Dense_2"], (1 + gain) * _normed(rows) + shift)
        patches = output.reshape(batch, down, across, patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(x.shape)

    return apply


def _group_norm(weights: Tree, hidden: Array) -> Array:
    groups = math.gcd(32, hidden.shape[-1])
    split = hidden.reshape(*hidden.shape[:-1], groups, -1)
    normed = _normed(split, (-4, -3, -1)).reshape(hidden.shape)
    return normed * weights["scale"] + weights["bias"]


def _conv(weights: Tree, hidden: Array, stride: int = 1) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return (
        lax.conv_general_dilated(hidden, weights["kernel"], strides, "SAME", dimension_numbers=layout) + weights["bias"]
    )


def _residual(weights: Tree, hidden: Array, condition: Array) -> Array:
    inner = _conv(weights["Conv_0"], jax.nn.silu(_group_norm(weights["GroupNorm_0"], hidden)))
    gain, shift = jnp.split(_dense(weights["Dense_0"], condition)[:, None, None], 2, axis=-1)
    inner = jax.nn.silu((1 + gain) * _group_norm(weights["GroupNorm_1"], inner) + shift)
    skip = _dense(weights["Dense_1"], hidden) if "Dense_1" in weights else hidden
    return skip + _conv(weights["Conv_1"], inner)


def _map_attention(weights: Tree, hidden: Array, head_width: int) -> Array:
    batch, _, _, channels = hidden.shape
    rows = _group_norm(weights["GroupNorm_0"], hidden).reshape(-1, channels)
    heads = max(1, channels // head_width)
    return hidden + _attention(weights["SelfAttention_0"], rows, batch, heads, jnp.float32).reshape(hidden.shape)


def _stage(network: UNet, weights: Tree, hidden: Array, condition: Array) -> Array:
    hidden = _residual(weights["ResidualBlock_0"], hidden, condition)
    if "MapAttention_0" in weights:
        hidden = _map_attention(weights["MapAttention_0"], hidden, network.head_width)
    return hidden


def _down(network: UNet, convolutions: Iterator, stages: Iterator, x: Array, condition: Array) -> list[Array]:
    maps = [_conv(next(convolutions), x)]
    for level in range(len(network.multipliers)):
        if level:
            maps.append(_conv(next(convolutions), maps[-1], stride=2))
        for _ in range(network.blocks_per_level):
            maps.append(_stage(network, next(stages), maps[-1], condition))
    return maps


def _middle(network: UNet, weights: Tree, hidden: Array, condition: Array) -> Array:
    hidden = _residual(weights["ResidualBlock_0"], hidden, condition)
    hidden = _map_attention(weights["MapAttention_0"], hidden, network.head_width)
    return _residual(weights["ResidualBlock_1"], hidden, condition)


def _up(
    network: UNet, convolutions: Iterator, stages: Iterator, hidden: Array, maps: list[Array], condition: Array
) -> Array:
    for level in reversed(range(len(network.multipliers))):
        for _ in range(network.blocks_per_level + 1):
            hidden = jnp.concatenate([hidden, maps.pop()], axis=-1)
            hidden = _stage(network, next(stages), hidden, condition)
        if level:
            hidden = _conv(next(convolutions), jnp.repeat(jnp.repeat(hidden, 2, axis=1), 2, axis=2))
    return hidden


def unet(network: UNet) -> Network:
    """The U-Net, float32 and without patches."""

    def apply(weights: Tree, x: Array, t: Array, y: Array) -> Array:
        layers = weights["params"]
        stages = (layers[f"_Stage_{number}"] for number in range(len(layers)))
        convolutions = (layers[f"Conv_{number}"] for number in range(len(layers)))
        condition = _condition(layers, t, y, max(network.width, 2))
        maps = _down(network, convolutions, stages, x, condition)
        hidden = _middle(network, layers["_Middle_0"], maps[-1], condition)
        hidden = _up(network, convolutions, stages, hidden, maps, condition)
        return _conv(next(convolutions), jax.nn.silu(_group_norm(layers["GroupNorm_0"], hidden)))

    return apply


def network_of(work: Workload) -> Network:
    """The work's network by hand."""
    match work.network:
        case MLP():
            return mlp(work.network)
        case DiT():
            return transformer(work.network)
        case UNet():
            return unet(work.network)
    raise ValueError(f"no reference for {type(work.network).__name__}")
