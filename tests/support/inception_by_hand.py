"""FID's Inception-v3 by published names: one list of its layers, computed in NumPy (float64) or in PyTorch.

What copies get wrong is an argument each, so that a test can say how much it shows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

EPSILON = 1e-3
NORM = ("weight", "bias", "running_mean", "running_var")


class Layers(NamedTuple):
    """unit(name, x, stride, padding) -> relu(norm(convolution)); pools of 3 x 3; maps joined along the channels."""

    unit: Callable[..., Any]
    mean_pooled: Callable[[Any], Any]
    max_pooled: Callable[[Any], Any]
    halved: Callable[[Any], Any]
    joined: Callable[[list[Any]], Any]


def _chain(layers, block, branch, x, *paddings):
    for number, padding in enumerate(paddings, 1):
        x = layers.unit(f"{block}.{branch}_{number}", x, 1, padding)
    return x


def _a(layers, block, x):
    return layers.joined(
        [
            layers.unit(f"{block}.branch1x1", x, 1, (0, 0)),
            _chain(layers, block, "branch5x5", x, (0, 0), (2, 2)),
            _chain(layers, block, "branch3x3dbl", x, (0, 0), (1, 1), (1, 1)),
            layers.unit(f"{block}.branch_pool", layers.mean_pooled(x), 1, (0, 0)),
        ]
    )


def _b(layers, block, x):
    double = _chain(layers, block, "branch3x3dbl", x, (0, 0), (1, 1))
    return layers.joined(
        [
            layers.unit(f"{block}.branch3x3", x, 2, (0, 0)),
            layers.unit(f"{block}.branch3x3dbl_3", double, 2, (0, 0)),
            layers.halved(x),
        ]
    )


def _c(layers, block, x):
    return layers.joined(
        [
            layers.unit(f"{block}.branch1x1", x, 1, (0, 0)),
            _chain(layers, block, "branch7x7", x, (0, 0), (0, 3), (3, 0)),
            _chain(layers, block, "branch7x7dbl", x, (0, 0), (3, 0), (0, 3), (3, 0), (0, 3)),
            layers.unit(f"{block}.branch_pool", layers.mean_pooled(x), 1, (0, 0)),
        ]
    )


def _d(layers, block, x):
    return layers.joined(
        [
            layers.unit(f"{block}.branch3x3_2", _chain(layers, block, "branch3x3", x, (0, 0)), 2, (0, 0)),
            layers.unit(
                f"{block}.branch7x7x3_4", _chain(layers, block, "branch7x7x3", x, (0, 0), (0, 3), (3, 0)), 2, (0, 0)
            ),
            layers.halved(x),
        ]
    )


def _e(layers, block, x, pooled):
    single = _chain(layers, block, "branch3x3", x, (0, 0))
    double = _chain(layers, block, "branch3x3dbl", x, (0, 0), (1, 1))
    return layers.joined(
        [
            layers.unit(f"{block}.branch1x1", x, 1, (0, 0)),
            layers.unit(f"{block}.branch3x3_2a", single, 1, (0, 1)),
            layers.unit(f"{block}.branch3x3_2b", single, 1, (1, 0)),
            layers.unit(f"{block}.branch3x3dbl_3a", double, 1, (0, 1)),
            layers.unit(f"{block}.branch3x3dbl_3b", double, 1, (1, 0)),
            layers.unit(f"{block}.branch_pool", pooled, 1, (0, 0)),
        ]
    )


def maps(layers, x, last_is_mean=False):
    """The maps behind Mixed_6d and behind Mixed_7c."""
    x = layers.unit("Conv2d_1a_3x3", x, 2, (0, 0))
    x = layers.unit("Conv2d_2a_3x3", x, 1, (0, 0))
    x = layers.halved(layers.unit("Conv2d_2b_3x3", x, 1, (1, 1)))
    x = layers.unit("Conv2d_4a_3x3", layers.unit("Conv2d_3b_1x1", x, 1, (0, 0)), 1, (0, 0))
    x = layers.halved(x)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _a(layers, block, x)
    x = _b(layers, "Mixed_6a", x)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d"):
        x = _c(layers, block, x)
    sixth = x
    x = _d(layers, "Mixed_7a", _c(layers, "Mixed_6e", x))
    x = _e(layers, "Mixed_7b", x, layers.mean_pooled(x))
    return sixth, _e(layers, "Mixed_7c", x, layers.mean_pooled(x) if last_is_mean else layers.max_pooled(x))


def _windows(x, size, stride=1, padding=(0, 0), fill=0.0):
    """[h, w, C, *size] of a map [H, W, C]."""
    around = [(each, each) for each in padding]
    padded = np.pad(x, [*around, (0, 0)], constant_values=fill)
    return sliding_window_view(padded, size, (0, 1))[::stride, ::stride]


def in_numpy(tensors, epsilon=EPSILON, counts_padding=False):
    """The layers in float64."""

    def unit(name, x, stride, padding):
        kernel = tensors[f"{name}.conv.weight"].astype(np.float64)
        found = np.tensordot(_windows(x, kernel.shape[2:], stride, padding), kernel, ((2, 3, 4), (1, 2, 3)))
        weight, bias, mean, variance = (tensors[f"{name}.bn.{each}"].astype(np.float64) for each in NORM)
        return np.maximum((found - mean) / np.sqrt(variance + epsilon) * weight + bias, 0)

    def mean_pooled(x):
        inside = np.ones_like(x[..., :1])
        counted = 9 if counts_padding else _windows(inside, (3, 3), 1, (1, 1)).sum((3, 4))
        return _windows(x, (3, 3), 1, (1, 1)).sum((3, 4)) / counted

    return Layers(
        unit,
        mean_pooled,
        lambda x: _windows(x, (3, 3), 1, (1, 1), -np.inf).max((3, 4)),
        lambda x: _windows(x, (3, 3), 2).max((3, 4)),
        lambda branches: np.concatenate(branches, -1),
    )


def features(tensors, image, epsilon=EPSILON, counts_padding=False, last_is_mean=False):
    """Pool features, spatial ones and logits of an image [H, W, 3], by NumPy."""
    layers = in_numpy(tensors, epsilon, counts_padding)
    sixth, last = maps(layers, np.asarray(image, np.float64), last_is_mean)
    pool = last.mean((0, 1))
    return pool, sixth[..., :7], tensors["fc.weight"].astype(np.float64) @ pool + tensors["fc.bias"]


def random_tensors(shapes, seed=0):
    """Weights of a file, by name: none of them zero, the maps of about one size in every layer."""
    rng = np.random.default_rng(seed)

    def one(name, shape):
        if name.endswith(".running_var"):
            return rng.uniform(0.05, 1.5, shape)
        if name.endswith(".bn.weight"):
            return rng.uniform(0.5, 1.5, shape)
        if len(shape) == 1:
            return rng.normal(size=shape) * 0.3
        return rng.normal(size=shape) * np.sqrt(1.0 / np.prod(shape[1:]))

    return {name: one(name, shape).astype(np.float32) for name, shape in shapes.items()}
