"""The U-Net in PyTorch, float32 and without patches, with the weights of ours. Only imported where torch is installed.

Maps are [B, C, H, W] in the order of memory that PyTorch calls channels last.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cfgjax.models import UNet
from cfgjax.types import Tree
from experiments.benchmark.torch_layers import Attention, Condition, linear


def _convolution(weights: Tree, stride: int = 1) -> nn.Conv2d:
    """Padded at both ends for stride 1; for stride 2 not at all, as JAX's "SAME" pads an even side at its end alone."""
    kernel = np.asarray(weights["kernel"])
    kernel = kernel.reshape(*(1,) * (4 - kernel.ndim), *kernel.shape)
    size, _, inputs, outputs = kernel.shape
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2 if stride == 1 else 0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1).copy()))
        layer.bias.copy_(torch.tensor(np.asarray(weights["bias"])))
    return layer


def _group_norm(weights: Tree) -> nn.GroupNorm:
    channels = len(weights["scale"])
    layer = nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.asarray(weights["scale"])))
        layer.bias.copy_(torch.tensor(np.asarray(weights["bias"])))
    return layer


class _Halving(nn.Module):
    def __init__(self, weights: Tree) -> None:
        super().__init__()
        self.convolution = _convolution(weights, stride=2)

    def forward(self, hidden: Any) -> Any:
        return self.convolution(functional.pad(hidden, (0, 1, 0, 1)))


class _Doubling(nn.Module):
    def __init__(self, weights: Tree) -> None:
        super().__init__()
        self.convolution = _convolution(weights)

    def forward(self, hidden: Any) -> Any:
        return self.convolution(functional.interpolate(hidden, scale_factor=2, mode="nearest"))


class _Residual(nn.Module):
    def __init__(self, weights: Tree) -> None:
        super().__init__()
        self.norm, self.inner_norm = (_group_norm(weights[f"GroupNorm_{number}"]) for number in range(2))
        self.first, self.second = (_convolution(weights[f"Conv_{number}"]) for number in range(2))
        self.modulation = linear(weights["Dense_0"])
        self.skip = _convolution(weights["Dense_1"]) if "Dense_1" in weights else nn.Identity()

    def forward(self, hidden: Any, condition: Any) -> Any:
        inner = self.first(functional.silu(self.norm(hidden)))
        gain, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        inner = functional.silu((1 + gain) * self.inner_norm(inner) + shift)
        return self.skip(hidden) + self.second(inner)


class _MapAttention(nn.Module):
    def __init__(self, weights: Tree, head_width: int) -> None:
        super().__init__()
        self.norm = _group_norm(weights["GroupNorm_0"])
        self.attention = Attention(weights["SelfAttention_0"], max(1, self.norm.num_channels // head_width))

    def forward(self, hidden: Any) -> Any:
        tokens = self.norm(hidden).flatten(2).transpose(1, 2)
        return hidden + self.attention(tokens).transpose(1, 2).reshape(hidden.shape)


class _Stage(nn.Module):
    def __init__(self, weights: Tree, head_width: int) -> None:
        super().__init__()
        attends = "MapAttention_0" in weights
        self.residual = _Residual(weights["ResidualBlock_0"])
        self.attention = _MapAttention(weights["MapAttention_0"], head_width) if attends else nn.Identity()

    def forward(self, hidden: Any, condition: Any) -> Any:
        return self.attention(self.residual(hidden, condition))


def _levels(stages: Iterator[nn.Module], num_levels: int, size: int) -> nn.ModuleList:
    return nn.ModuleList(nn.ModuleList(next(stages) for _ in range(size)) for _ in range(num_levels))


class UNetwork(nn.Module):
    """The U-Net, (x [B, H, W, C], t [B], y [B])."""

    def __init__(self, network: UNet, weights: Tree, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers, num_levels = weights["params"], len(network.multipliers)
        convolutions = (layers[f"Conv_{number}"] for number in range(2 * num_levels))
        stages = (_Stage(layers[name], network.head_width) for name in map("_Stage_{}".format, range(len(layers))))
        self.condition = Condition(layers, max(network.width, 2))
        self.first = _convolution(next(convolutions))
        self.halvings = nn.ModuleList(_Halving(next(convolutions)) for _ in range(num_levels - 1))
        self.down = _levels(stages, num_levels, network.blocks_per_level)
        self.middle = _Stage(layers["_Middle_0"], network.head_width)
        self.after = _Residual(layers["_Middle_0"]["ResidualBlock_1"])
        self.up = _levels(stages, num_levels, network.blocks_per_level + 1)
        self.doublings = nn.ModuleList(_Doubling(next(convolutions)) for _ in range(num_levels - 1))
        self.norm, self.last = _group_norm(layers["GroupNorm_0"]), _convolution(next(convolutions))
        self.to(memory_format=torch.channels_last)

    def _way_down(self, hidden: Any, condition: Any) -> list[Any]:
        maps = [hidden]
        for level, stages in enumerate(self.down):
            if level:
                maps.append(self.halvings[level - 1](maps[-1]))
            for stage in stages:
                maps.append(stage(maps[-1], condition))
        return maps

    def forward(self, x: Any, t: Any, y: Any) -> Any:
        """The field."""
        condition = self.condition(t, y)
        maps = self._way_down(self.first(x.permute(0, 3, 1, 2)), condition)
        hidden = self.after(self.middle(maps[-1], condition), condition)
        for number, stages in enumerate(self.up):
            if number:
                hidden = self.doublings[number - 1](hidden)
            for stage in stages:
                hidden = stage(torch.cat([hidden, maps.pop()], dim=1), condition)
        return self.last(functional.silu(self.norm(hidden))).permute(0, 2, 3, 1)
