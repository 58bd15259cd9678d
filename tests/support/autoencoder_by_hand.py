"""AutoencoderKL by NumPy alone in float64, from tensors under their published names; images and latents [C, H, W].

Every detail that copies get wrong is an argument: what it changes, and by how much, is what the tests ask.
"""

import re

import numpy as np

MOMENTS = (-30.0, 20.0)
BELOW, ALL_ROUND = (0, 1), (1, 1)


def _layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _residual_shapes(name, start, end):
    found = _layer(f"{name}.norm1", start) | _layer(f"{name}.conv1", end, start, 3, 3)
    found |= _layer(f"{name}.norm2", end) | _layer(f"{name}.conv2", end, end, 3, 3)
    return found | ({} if start == end else _layer(f"{name}.conv_shortcut", end, start, 1, 1))


def _middle_shapes(name, width):
    found = _residual_shapes(f"{name}.resnets.0", width, width) | _layer(f"{name}.attentions.0.group_norm", width)
    for one in ("to_q", "to_k", "to_v", "to_out.0"):
        found |= _layer(f"{name}.attentions.0.{one}", width, width)
    return found | _residual_shapes(f"{name}.resnets.1", width, width)


def _part_shapes(name, levels, between, start, widths, blocks, end):
    """Of an encoder or a decoder, its levels in their order."""
    found, width = _layer(f"{name}.conv_in", widths[0], start, 3, 3), widths[0]
    for level, after in enumerate(widths):
        for index in range(blocks):
            found |= _residual_shapes(f"{name}.{levels}.{level}.resnets.{index}", after if index else width, after)
        width = after
        if level < len(widths) - 1:
            found |= _layer(f"{name}.{levels}.{level}.{between}.0.conv", width, width, 3, 3)
    return found | _layer(f"{name}.conv_norm_out", width) | _layer(f"{name}.conv_out", end, width, 3, 3)


def shapes_of(widths, blocks, latent, image=3, has_quant_convs=True):
    """The names and shapes of all tensors of an autoencoder, as diffusers 0.42.1 saves them."""
    found = _part_shapes("encoder", "down_blocks", "downsamplers", image, widths, blocks, 2 * latent)
    found |= _part_shapes("decoder", "up_blocks", "upsamplers", latent, widths[::-1], blocks + 1, image)
    for name in ("encoder", "decoder"):
        found |= _middle_shapes(f"{name}.mid_block", widths[-1])
    if has_quant_convs:
        found |= _layer("quant_conv", 2 * latent, 2 * latent, 1, 1) | _layer("post_quant_conv", latent, latent, 1, 1)
    return found


def random_tensors(shapes, seed=0):
    """Tensors no one of which is zero, as large as trained ones: outputs of every layer are of order 1."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            mean = float("norm" in name and name.endswith("weight"))
            found[name] = (mean + 0.2 * rng.normal(size=shape)).astype(np.float32)
        else:
            found[name] = (rng.normal(size=shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)
    return found


def _conv(tensors, name, x, stride=1, padding=ALL_ROUND):
    kernel, bias = (tensors[f"{name}.{end}"].astype(np.float64) for end in ("weight", "bias"))
    x = np.pad(x, [(0, 0), padding, padding]) if kernel.shape[-1] > 1 else x
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    height, width = windows.shape[1:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)
    return (kernel.reshape(len(kernel), -1) @ columns + bias[:, None]).reshape(-1, height, width)


def _silu(x):
    return x / (1 + np.exp(-x))


class Autoencoder:
    """The published network; ``epsilon`` of all norms, ``padding`` before a halving, ``heads`` of attention."""

    def __init__(self, tensors, num_groups=32, epsilon=1e-6, padding=BELOW, heads=1, clip=MOMENTS):
        self.tensors, self.num_groups, self.epsilon = tensors, num_groups, epsilon
        self.padding, self.heads, self.clip = padding, heads, clip

    def encode(self, image):
        """The mean and the log-variance, each [c, h, w]."""
        moments = self._quantised("quant_conv", self._part("encoder", image))
        mean, log_variance = np.split(moments, 2)
        return mean, np.clip(log_variance, *self.clip)

    def decode(self, latent):
        """The image, [3, H, W]."""
        return self._part("decoder", self._quantised("post_quant_conv", latent))

    def _quantised(self, name, x):
        return _conv(self.tensors, name, x) if f"{name}.weight" in self.tensors else x

    def _part(self, name, x):
        x = _conv(self.tensors, f"{name}.conv_in", x)
        x = self._middle(name, x) if name == "decoder" else x
        for level in range(self._count(rf"{name}\.\w+_blocks\.(\d+)\.")):
            x = self._level(f"{name}.{'up' if name == 'decoder' else 'down'}_blocks.{level}", x)
        x = self._middle(name, x) if name == "encoder" else x
        return _conv(self.tensors, f"{name}.conv_out", _silu(self._norm(f"{name}.conv_norm_out", x)))

    def _count(self, pattern):
        return 1 + max(int(found[1]) for name in self.tensors if (found := re.match(pattern, name)))

    def _level(self, name, x):
        for index in range(self._count(rf"{re.escape(name)}\.resnets\.(\d+)\.")):
            x = self._residual(f"{name}.resnets.{index}", x)
        if f"{name}.downsamplers.0.conv.weight" in self.tensors:
            x = _conv(self.tensors, f"{name}.downsamplers.0.conv", x, stride=2, padding=self.padding)
        if f"{name}.upsamplers.0.conv.weight" in self.tensors:
            x = _conv(self.tensors, f"{name}.upsamplers.0.conv", np.kron(x, np.ones((1, 2, 2))))
        return x

    def _middle(self, name, x):
        x = self._residual(f"{name}.mid_block.resnets.0", x)
        x = self._attended(f"{name}.mid_block.attentions.0", x)
        return self._residual(f"{name}.mid_block.resnets.1", x)

    def _norm(self, name, x):
        groups = x.reshape(self.num_groups, -1)
        away = groups - groups.mean(axis=1, keepdims=True)
        plain = (away / np.sqrt((away**2).mean(axis=1, keepdims=True) + self.epsilon)).reshape(len(x), -1)
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return (weight[:, None] * plain + bias[:, None]).reshape(x.shape)

    def _residual(self, name, x):
        inner = _conv(self.tensors, f"{name}.conv1", _silu(self._norm(f"{name}.norm1", x)))
        inner = _conv(self.tensors, f"{name}.conv2", _silu(self._norm(f"{name}.norm2", inner)))
        is_wider = f"{name}.conv_shortcut.weight" in self.tensors
        return inner + (_conv(self.tensors, f"{name}.conv_shortcut", x) if is_wider else x)

    def _attended(self, name, x):
        tokens = self._norm(f"{name}.group_norm", x).reshape(len(x), -1).T

        def linear(layer, rows):
            weight, bias = (self.tensors[f"{name}.{layer}.{end}"].astype(np.float64) for end in ("weight", "bias"))
            return rows @ weight.T + bias

        query, key, value = (
            linear(each, tokens).reshape(len(tokens), self.heads, -1).swapaxes(0, 1)
            for each in ("to_q", "to_k", "to_v")
        )
        scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (weights / weights.sum(axis=2, keepdims=True)) @ value
        return x + linear("to_out.0", mixed.swapaxes(0, 1).reshape(len(tokens), -1)).T.reshape(x.shape)
