"""The same networks with the same weights in PyTorch. Only imported where torch is installed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cfgjax.models import MLP, DiT, UNet
from cfgjax.models.embeddings import sincos_positions
from cfgjax.types import Tree
from experiments.benchmark.torch_layers import Attention, Condition, linear
from experiments.benchmark.torch_unet import UNetwork
from experiments.benchmark.workloads import SCALE, Workload


def device() -> Any:
    """JAX's device, as PyTorch calls it."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def _normed(hidden: Any) -> Any:
    return functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)


class ResidualMLP(nn.Module):
    """The residual MLP, (x [B, *D], t [B], y [B])."""

    def __init__(self, network: MLP, weights: Tree, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers = weights["params"]
        self.condition = Condition(layers, network.embedding_width)
        last = 3 * network.depth + 1
        self.layers = nn.ModuleList(linear(layers[f"Dense_{number}"]) for number in range(last + 2))

    def forward(self, x: Any, t: Any, y: Any) -> Any:
        """The field."""
        condition = self.condition(t, y)

        def modulated(hidden: Any, number: int) -> Any:
            gain, shift = self.layers[number](condition).chunk(2, dim=-1)
            return (1 + gain) * _normed(hidden) + shift

        hidden = self.layers[0](x)
        for number in range(1, len(self.layers) - 2, 3):
            inner = functional.silu(self.layers[number](modulated(hidden, number + 1)))
            hidden = hidden + self.layers[number + 2](inner)
        return self.layers[-2](modulated(hidden, len(self.layers) - 1))


class _Block(nn.Module):
    def __init__(self, weights: Tree, num_heads: int) -> None:
        super().__init__()
        self.modulation, self.inner, self.outer = (linear(weights[f"Dense_{number}"]) for number in range(3))
        self.attention = Attention(weights["SelfAttention_0"], num_heads)

    def forward(self, tokens: Any, condition: Any) -> Any:
        gain, shift, gate, inner_gain, inner_shift, inner_gate = self.modulation(condition)[:, None].chunk(6, dim=-1)
        tokens = tokens + gate * self.attention((1 + gain) * _normed(tokens) + shift)
        normed = (1 + inner_gain) * _normed(tokens) + inner_shift
        return tokens + inner_gate * self.outer(functional.gelu(self.inner(normed), approximate="tanh"))


class Transformer(nn.Module):
    """The diffusion transformer, (x [B, H, W, C], t [B], y [B])."""

    def __init__(self, network: DiT, weights: Tree, shape: tuple[int, ...]) -> None:
        super().__init__()
        layers, patch = weights["params"], network.patch
        self.patch, self.grid = patch, (shape[0] // patch, shape[1] // patch)
        self.condition = Condition(layers, 256)
        self.first, self.modulation, self.last = (linear(layers[f"Dense_{number}"]) for number in range(3))
        positions = np.asarray(sincos_positions(*self.grid, network.width))
        self.register_buffer("positions", torch.tensor(positions))
        blocks = (_Block(layers[f"DiTBlock_{number}"], network.num_heads) for number in range(network.depth))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Any, t: Any, y: Any) -> Any:
        """The field."""
        (rows, columns), patch = self.grid, self.patch
        condition = self.condition(t, y)
        patches = x.view(-1, rows, patch, columns, patch, x.shape[-1]).permute(0, 1, 3, 2, 4, 5)
        tokens = self.first(patches.reshape(len(x), rows * columns, -1)) + self.positions
        for block in self.blocks:
            tokens = block(tokens, condition)
        gain, shift = self.modulation(condition)[:, None].chunk(2, dim=-1)
        output = self.last((1 + gain) * _normed(tokens) + shift)
        patches = output.view(len(x), rows, columns, patch, patch, -1).permute(0, 1, 3, 2, 4, 5)
        return patches.reshape(x.shape)


NETWORKS: dict[type, Callable[..., nn.Module]] = {MLP: ResidualMLP, DiT: Transformer, UNet: UNetwork}
"""PyTorch's networks by the type of ours."""


def network_of(work: Workload, weights: Tree) -> Any:
    """The work's network."""
    return NETWORKS[type(work.network)](work.network, weights, work.shape).to(device())


def autocast(work: Workload) -> Any:
    """A context in which the work's network computes in its own type."""
    is_half = str(getattr(work.network, "dtype", "float32")) == "bfloat16"
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=is_half)


def wait() -> None:
    """Waits until the device has done what it was given."""
    if device().type == "cuda":
        torch.cuda.synchronize()


class Guided(nn.Module):
    """Both sides of guidance by one call of a doubled batch, as flow_matching wants a field: (x, t [], label)."""

    def __init__(self, network: Any, null_label: int) -> None:
        super().__init__()
        self.network, self.null_label = network, null_label

    def forward(self, x: Any, t: Any, label: Any) -> Any:
        """The guided field."""
        labels = torch.cat([torch.full_like(label, self.null_label), label])
        both = self.network(torch.cat([x, x]), t.expand(len(labels)), labels)
        unlabelled, labelled = both.float().chunk(2)
        return (1 - SCALE) * unlabelled + SCALE * labelled
