"""Layers that the networks in PyTorch share, with the weights of ours. Only imported where torch is installed."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cfgjax.types import Tree


def linear(weights: Tree) -> nn.Linear:
    """A dense layer."""
    kernel = np.asarray(weights["kernel"])
    layer = nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.T.copy()))
        layer.bias.copy_(torch.tensor(np.asarray(weights["bias"])))
    return layer


class Condition(nn.Module):
    """silu(time embedding + label embedding), (t [B], y [B]) -> [B, E]."""

    def __init__(self, weights: Tree, num_features: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor(np.geomspace(1, 100, num_features // 2, dtype=np.float32)))
        self.inner, self.outer = (linear(weights["TimeEmbedding_0"][f"Dense_{number}"]) for number in range(2))
        rows = torch.tensor(np.asarray(weights["LabelEmbedding_0"]["Embed_0"]["embedding"]))
        self.labels = nn.Embedding.from_pretrained(rows, freeze=False)

    def forward(self, t: Any, y: Any) -> Any:
        """The condition."""
        angles = t[:, None] * self.frequencies
        time = self.outer(functional.silu(self.inner(torch.cat([angles.cos(), angles.sin()], dim=-1))))
        return functional.silu(time + self.labels(y))


class Attention(nn.Module):
    """Self-attention by ``scaled_dot_product_attention``, [B, N, width] -> the same."""

    def __init__(self, weights: Tree, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection, self.mixing = (linear(weights[f"Dense_{number}"]) for number in range(2))

    def forward(self, tokens: Any) -> Any:
        """The mixture of the tokens' values."""
        batch, num_tokens, width = tokens.shape
        projected = self.projection(tokens).view(batch, num_tokens, 3, self.num_heads, -1)
        mixed = functional.scaled_dot_product_attention(*projected.permute(2, 0, 3, 1, 4).unbind(0))
        return self.mixing(mixed.transpose(1, 2).reshape(batch, num_tokens, width))
