"""The networks against NumPy's: every layer by its formula in float64, at random parameters and an oblong image."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from cfgjax.models import MLP, ConvNet, DiT, DiTClassifier, Embedded, UNet, UNetClassifier

NUM_CLASSES = 3
TIME, LABEL = 0.3, 2
UNET = {"width": 6, "multipliers": (1, 2), "blocks_per_level": 2, "attention": (4,), "head_width": 3}
DIT = {"width": 8, "depth": 2, "num_heads": 2, "patch": 2}


class Given(NamedTuple):
    """What a conditioning gives: a vector, tokens without those that are not there, an image."""

    vector: np.ndarray
    tokens: np.ndarray
    image: np.ndarray


class Layers:
    """Parameters by the names that Linen gives, in the order in which layers of a kind are made."""

    def __init__(self, params, given=None):
        self.params, self.counts, self.given = params, {}, given

    def __call__(self, kind):
        number = self.counts[kind] = self.counts.get(kind, -1) + 1
        inner = self.params[f"{kind}_{number}"]
        return inner if kind in ("Dense", "Conv", "GroupNorm", "LayerNorm") else Layers(inner, self.given)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normed(x, axes, mean=None):
    mean = np.mean(x, axes, keepdims=True) if mean is None else mean
    return (x - mean) / np.sqrt(np.mean((x - mean) ** 2, axes, keepdims=True) + 1e-6)


def group_norm(params, x, groups):
    grouped = x.reshape(*x.shape[:2], groups, -1)
    return normed(grouped, (0, 1, 3)).reshape(x.shape) * params["scale"] + params["bias"]


def conv(params, x, stride=1):
    """Zeros around, as many before as after, or one fewer before."""
    size, sides = len(params["kernel"]), [-(-side // stride) for side in x.shape[:2]]
    missing = [max((out - 1) * stride + size - side, 0) for out, side in zip(sides, x.shape[:2], strict=True)]
    padded = np.pad(x, [*((total // 2, total - total // 2) for total in missing), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (0, 1))[::stride, ::stride]
    return np.einsum("hwcij,ijco->hwo", windows, params["kernel"]) + params["bias"]


def heads_of(params, tokens, number, heads):
    return dense(params, tokens).reshape(len(tokens), number, heads, -1).transpose(1, 2, 0, 3)


def mixture(query, key, value):
    weights = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]))
    mixed = (weights / weights.sum(axis=-1, keepdims=True)) @ value
    return mixed.transpose(1, 0, 2).reshape(query.shape[1], -1)


def attention(layers, tokens, heads):
    mixed = mixture(*heads_of(layers("Dense"), tokens, 3, heads))
    return dense(layers("Dense"), mixed)


def cross_attention(layers, tokens, heads):
    (query,) = heads_of(layers("Dense"), tokens, 1, heads)
    mixed = mixture(query, *heads_of(layers("Dense"), layers.given.tokens, 2, heads))
    return dense(layers("Dense"), mixed)


def time_embedding(layers, num_features):
    angles = np.geomspace(1, 100, num_features // 2) * TIME
    hidden = silu(dense(layers("Dense"), np.concatenate([np.cos(angles), np.sin(angles)])))
    return dense(layers("Dense"), hidden)


def condition(layers, num_features, has_label):
    time = time_embedding(layers("TimeEmbedding"), num_features)
    if layers.given is not None:
        return silu(time + layers.given.vector)
    return silu(time + layers("LabelEmbedding").params["Embed_0"]["embedding"][LABEL] if has_label else time)


def patched(x, patch):
    rows, columns = x.shape[0] // patch, x.shape[1] // patch
    split = [np.split(row, columns, axis=1) for row in np.split(x, rows, axis=0)]
    return np.array([[square.ravel() for square in row] for row in split])


def joined(layers, x, patch):
    images = [x] if layers.given is None else [x, layers.given.image]
    return np.concatenate([patched(image, patch) for image in images], axis=-1)


def unpatched(patches, patch):
    squares = patches.reshape(*patches.shape[:2], patch, patch, -1)
    return np.concatenate([np.concatenate(list(row), axis=1) for row in squares], axis=0)


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x)))


def residual_block(layers, x, given):
    features = layers.params["Conv_1"]["bias"].size
    inner = conv(layers("Conv"), silu(group_norm(layers("GroupNorm"), x, math.gcd(32, x.shape[-1]))))
    gain, shift = np.split(dense(layers("Dense"), given), 2)
    inner = silu((1 + gain) * group_norm(layers("GroupNorm"), inner, math.gcd(32, features)) + shift)
    skipped = x if x.shape[-1] == features else dense(layers("Dense"), x)
    return skipped + conv(layers("Conv"), inner)


def map_attention(layers, x):
    heads = x.shape[-1] // 3
    for kind, mix in (("SelfAttention", attention), ("CrossAttention", cross_attention))[: 1 + bool(layers.given)]:
        tokens = group_norm(layers("GroupNorm"), x, math.gcd(32, x.shape[-1])).reshape(-1, x.shape[-1])
        x = x + mix(layers(kind), tokens, heads).reshape(x.shape)
    return x


def stage(layers, x, given):
    x = residual_block(layers("ResidualBlock"), x, given)
    return map_attention(layers("MapAttention"), x) if len(x) == 4 else x


def way_down(layers, x, given):
    maps = [conv(layers("Conv"), x)]
    for halves in (False, False, True, False, False):
        last = maps[-1]
        maps.append(conv(layers("Conv"), last, 2) if halves else stage(layers("_Stage"), last, given))
    return maps


def unet(layers, x, patch=1):
    given = condition(layers, 6, True)
    maps = way_down(layers, joined(layers, x, patch), given)
    middle = layers("_Middle")
    hidden = residual_block(middle("ResidualBlock"), maps[-1], given)
    hidden = residual_block(middle("ResidualBlock"), map_attention(middle("MapAttention"), hidden), given)
    for number in range(6):
        if number == 3:
            hidden = conv(layers("Conv"), hidden.repeat(2, axis=0).repeat(2, axis=1))
        hidden = stage(layers("_Stage"), np.concatenate([hidden, maps.pop()], axis=-1), given)
    return unpatched(conv(layers("Conv"), silu(group_norm(layers("GroupNorm"), hidden, 2))), patch)


def unet_classifier(layers, x):
    hidden = way_down(layers, x, condition(layers, 6, False))[-1]
    pooled = silu(group_norm(layers("GroupNorm"), hidden, 4)).mean(axis=(0, 1))
    return log_softmax(dense(layers("Dense"), pooled))


def positions(rows, columns, width):
    frequencies = 10000.0 ** (-4 * np.arange(width // 4) / width)
    angles = np.array(
        [[*(row * frequencies), *(column * frequencies)] for row in range(rows) for column in range(columns)]
    )
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def token_norm(x, norm):
    return normed(x, -1, 0 if norm == "rms" else None)


def dit_block(layers, x, given, norm):
    gain, shift, gate, inner_gain, inner_shift, inner_gate = np.split(dense(layers("Dense"), given), 6)
    x = x + gate * attention(layers("SelfAttention"), (1 + gain) * token_norm(x, norm) + shift, 2)
    if layers.given is not None:
        x = x + cross_attention(layers("CrossAttention"), token_norm(x, norm), 2)
    inner = gelu(dense(layers("Dense"), (1 + inner_gain) * token_norm(x, norm) + inner_shift))
    return x + inner_gate * dense(layers("Dense"), inner)


def dit_tokens(layers, x, given, norm="layer"):
    patches = joined(layers, x, 2)
    tokens = dense(layers("Dense"), patches.reshape(-1, patches.shape[-1]))
    tokens = tokens + layers.params.get("positions", positions(*patches.shape[:2], 8))
    for _ in range(2):
        tokens = dit_block(layers("DiTBlock"), tokens, given, norm)
    gain, shift = np.split(dense(layers("Dense"), given), 2)
    return (1 + gain) * token_norm(tokens, norm) + shift


def dit(layers, x, norm="layer"):
    tokens = dit_tokens(layers, x, condition(layers, 256, True), norm)
    return unpatched(dense(layers("Dense"), tokens).reshape(len(x) // 2, x.shape[1] // 2, -1), 2)


def dit_classifier(layers, x):
    tokens = dit_tokens(layers, x, condition(layers, 256, False))
    return log_softmax(dense(layers("Dense"), tokens.mean(axis=0)))


def mlp(layers, x):
    given = condition(layers, 8, True)

    def modulated(hidden):
        gain, shift = np.split(dense(layers("Dense"), given), 2)
        return (1 + gain) * normed(hidden, -1) + shift

    seen = x if layers.given is None else np.concatenate([x.ravel(), layers.given.image.ravel()])
    hidden = dense(layers("Dense"), seen.ravel())
    for _ in range(2):
        inner = silu(dense(layers("Dense"), modulated(hidden)))
        hidden = hidden + dense(layers("Dense"), inner)
    return dense(layers("Dense"), modulated(hidden)).reshape(x.shape)


def convnet(layers, x):
    for stride in (2, 2, 1):
        x = silu(group_norm(layers("GroupNorm"), conv(layers("Conv"), x, stride), 8))
    features = silu(dense(layers("Dense"), x.ravel()))
    return features, log_softmax(dense(layers("Dense"), features))


class Own(linen.Module):
    """A conditioning of somebody's own: y is what it gives."""

    def __call__(self, y):
        return Embedded(**y)


NETWORKS = {
    "unet": (UNet(num_classes=NUM_CLASSES, **UNET), unet),
    "patched unet": (UNet(num_classes=NUM_CLASSES, **UNET, patch=2), lambda layers, x: unet(layers, x, 2)),
    "unet classifier": (UNetClassifier(num_classes=NUM_CLASSES, **UNET), unet_classifier),
    "dit": (DiT(num_classes=NUM_CLASSES, **DIT), dit),
    "learned rms dit": (
        DiT(num_classes=NUM_CLASSES, **DIT, norm="rms", positions="learned"),
        lambda layers, x: dit(layers, x, "rms"),
    ),
    "dit classifier": (DiTClassifier(num_classes=NUM_CLASSES, **DIT), dit_classifier),
    "mlp": (MLP(num_classes=NUM_CLASSES, width=16, embedding_width=8, depth=2), mlp),
    "conditioned dit": (DiT(**DIT, conditioning=Own()), dit),
    "conditioned patched unet": (UNet(**UNET, patch=2, conditioning=Own()), lambda layers, x: unet(layers, x, 2)),
    "conditioned mlp": (MLP(width=16, embedding_width=8, depth=2, conditioning=Own()), mlp),
    "convnet": (ConvNet(num_classes=NUM_CLASSES, width=16), convnet),
}


def _condition(network, x, rng):
    """A y of ``Own``, whose second token is not there, and what is there of it."""
    sizes = {DiT: 8, UNet: 24, MLP: 8}[type(network)], (4, 5), (*x.shape[:2], 3)
    vector, tokens, image = (jnp.float32(rng.normal(size=size)) for size in sizes)
    mask = np.array([True, False, True, True])
    given = Given(*(np.asarray(each, np.float64) for each in (vector, tokens[mask], image)))
    return {"vector": vector, "tokens": tokens, "mask": mask, "image": image}, given


def _inputs(network, x):
    if isinstance(network, ConvNet):
        return (x,)
    if isinstance(network, UNetClassifier | DiTClassifier):
        return x, jnp.float32(TIME)
    return x, jnp.float32(TIME), jnp.int32(LABEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_its_formula(name):
    network, by_hand = NETWORKS[name]
    rng = np.random.default_rng(0)
    patch = getattr(network, "patch", 1) if isinstance(network, UNet) else 1
    x = rng.normal(size=(4 * patch, 6 * patch, 2))
    inputs, given = _inputs(network, jnp.asarray(x, jnp.float32)), None
    if getattr(network, "conditioning", None) is not None:
        y, given = _condition(network, x, rng)
        inputs = (*inputs[:2], y)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / math.sqrt(max(leaf.shape[0], 4)), shapes)
    found = jax.jit(network.apply)({"params": jax.tree.map(jnp.float32, params)}, *inputs)
    expected = by_hand(Layers(params, given), x)
    shape = (NUM_CLASSES,) if isinstance(network, UNetClassifier | DiTClassifier | ConvNet) else x.shape
    assert jax.tree.leaves(expected)[-1].shape == shape
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.max(np.abs(b))),
        found,
        expected,
    )
