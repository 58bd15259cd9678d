"""LightningDiT and JiT by their papers in NumPy, in float64, from tensors under their published names."""

import math

import numpy as np

from tests.models.test_networks_by_hand import dense, mixture, silu


def _linear(tensors, name):
    weight = np.float64(tensors[f"{name}.weight"])
    return {"kernel": weight.reshape(len(weight), -1).T, "bias": tensors.get(f"{name}.bias", 0)}


def _rms(tensors, name, tokens):
    return tokens / np.sqrt(np.mean(tokens**2, axis=-1, keepdims=True) + 1e-6) * tensors[f"{name}.weight"]


def rotations(side, head, columns_first=False):
    """Cosines and sines [side^2, head] of every position's angles, each twice: the row's half, then the column's."""
    frequencies = 1 / 10000 ** (np.arange(0, head // 2, 2) / (head // 2))
    angles = np.repeat(np.outer(np.arange(side), frequencies), 2, axis=1)
    rows, columns = np.repeat(angles, side, axis=0), np.tile(angles, (side, 1))
    both = np.concatenate([columns, rows] if columns_first else [rows, columns], axis=1)
    return np.cos(both), np.sin(both)


def _rotated(heads, cosines, sines):
    """x cos + (-x_1, x_0, -x_3, x_2, ..) sin, for heads [num_heads, T, head]."""
    half = np.empty_like(heads)
    half[..., ::2], half[..., 1::2] = -heads[..., 1::2], heads[..., ::2]
    return heads * cosines + half * sines


def _attention(tensors, name, tokens, num_heads, waves):
    split = dense(_linear(tensors, f"{name}.qkv"), tokens).reshape(len(tokens), 3, num_heads, -1)
    query, key, value = split.transpose(1, 2, 0, 3)
    if f"{name}.q_norm.weight" in tensors:
        query, key = _rms(tensors, f"{name}.q_norm", query), _rms(tensors, f"{name}.k_norm", key)
    mixed = mixture(_rotated(query, *waves), _rotated(key, *waves), value)
    return dense(_linear(tensors, f"{name}.proj"), mixed)


def _block(tensors, name, tokens, condition, num_heads, waves):
    parts = np.split(dense(_linear(tensors, f"{name}.adaLN_modulation.1"), silu(condition)), 6)
    mixed = _rms(tensors, f"{name}.norm1", tokens) * (1 + parts[1]) + parts[0]
    tokens = tokens + parts[2] * _attention(tensors, f"{name}.attn", mixed, num_heads, waves)
    inner = _rms(tensors, f"{name}.norm2", tokens) * (1 + parts[4]) + parts[3]
    gate, value = np.split(dense(_linear(tensors, f"{name}.mlp.w12"), inner), 2, axis=1)
    return tokens + parts[5] * dense(_linear(tensors, f"{name}.mlp.w3"), silu(gate) * value)


def _condition(tensors, t, label):
    angles = t * 10000 ** (-np.arange(128) / 128)
    hidden = silu(dense(_linear(tensors, "t_embedder.mlp.0"), np.concatenate([np.cos(angles), np.sin(angles)])))
    return dense(_linear(tensors, "t_embedder.mlp.2"), hidden) + label


def _tokens(tensors, x, patch, side):
    squares = x.transpose(2, 0, 1).reshape(-1, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
    tokens = squares.reshape(side * side, -1)
    for name in ("x_embedder.proj", "x_embedder.proj1", "x_embedder.proj2"):
        tokens = dense(_linear(tensors, name), tokens) if f"{name}.weight" in tensors else tokens
    return tokens + tensors["pos_embed"][0]


def predict(tensors, x, t, y, num_heads, start=None, columns_first=False, cut=slice(None)):
    """What the network of these tensors gives at an image [H, W, C], a time and a label.

    Args:
        start: the block before which JiT's tokens of the label join the others, in front.
        columns_first: a mistake in the rotary positions.
        cut: the tokens kept at the end, by default those that did not join.
    """
    tensors = {name: np.float64(tensor) for name, tensor in tensors.items()}
    side = math.isqrt(tensors["pos_embed"].shape[1])
    patch, label = len(x) // side, tensors["y_embedder.embedding_table.weight"][y]
    condition, tokens = _condition(tensors, t, label), _tokens(tensors, x, patch, side)
    waves = rotations(side, tokens.shape[1] // num_heads, columns_first)
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    for number in range(depth):
        if number == start:
            joining = label + tensors["in_context_posemb"][0]
            tokens = np.concatenate([joining, tokens])
            waves = tuple(
                np.pad(wave, ((len(joining), 0), (0, 0)), constant_values=value)
                for wave, value in zip(waves, (1, 0), strict=True)
            )
        tokens = _block(tensors, f"blocks.{number}", tokens, condition, num_heads, waves)
    tokens = tokens[cut][-(side * side) :] if cut == slice(None) else tokens[cut]
    shift, scale = np.split(dense(_linear(tensors, "final_layer.adaLN_modulation.1"), silu(condition)), 2)
    last = _rms(tensors, "final_layer.norm_final", tokens) * (1 + scale) + shift
    squares = dense(_linear(tensors, "final_layer.linear"), last).reshape(side, side, patch, patch, -1)
    return squares.transpose(0, 2, 1, 3, 4).reshape(x.shape)


def swapped(name, count, order):
    """Tensors by name -> the same, with the chunks of the rows of one in another order."""

    def change(tensors):
        chunks = np.split(tensors[name], count)
        return tensors | {name: np.concatenate([chunks[index] for index in order])}

    return change


def changed(name, value):
    """Tensors by name -> the same, with a function of one in its place."""
    return lambda tensors: tensors | {name: value(tensors[name])}
