"""DiT's weights in diffusers' layout as the published ones: by names, several tensors of theirs to one published.

(L1) Queries, keys and values are kept apart, and published behind one another.
(L2) Every block has a time embedder and a label table of its own; all are alike, and published once.
(L3) Positions are not in the file: sines and cosines of the column, then of the row, by 10000^(-4k/width).

Source: diffusers 0.42.1, ``DiTTransformer2DModel``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from cfgjax.models.weight_files import Tensor, shape_of

_BLOCK = "transformer_blocks.{}."
_OUTER = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_EMBEDDERS = {
    "t_embedder.mlp.0.weight": "norm1.emb.timestep_embedder.linear_1.weight",
    "t_embedder.mlp.0.bias": "norm1.emb.timestep_embedder.linear_1.bias",
    "t_embedder.mlp.2.weight": "norm1.emb.timestep_embedder.linear_2.weight",
    "t_embedder.mlp.2.bias": "norm1.emb.timestep_embedder.linear_2.bias",
    "y_embedder.embedding_table.weight": "norm1.emb.class_embedder.embedding_table.weight",
}
_INNER = {
    "adaLN_modulation.1": ("norm1.linear",),
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}
_POSITIONS = "pos_embed"


def is_of_diffusers(names: Iterable[str]) -> bool:
    """Whether some of the names are those of DiT in diffusers' layout."""
    return any(name.startswith("transformer_blocks.") and ".norm1.emb." in name for name in names)


def _sources(depth: int) -> dict[str, tuple[str, ...]]:
    """For each published name the names of what it is made of, behind one another."""
    layers: dict[str, tuple[str, ...]] = {name: (theirs,) for name, theirs in _OUTER.items()}
    for index in range(depth):
        block = _BLOCK.format(index)
        layers |= {f"blocks.{index}.{name}": tuple(block + each for each in its) for name, its in _INNER.items()}
    ends = ("weight", "bias")
    found = {f"{name}.{end}": tuple(f"{each}.{end}" for each in its) for name, its in layers.items() for end in ends}
    return found | {name: (_BLOCK.format(0) + theirs,) for name, theirs in _EMBEDDERS.items()}


def _copies(depth: int) -> dict[str, tuple[str, ...]]:
    """For each embedder's published name the names of its copies in the other blocks (L2)."""
    return {
        name: tuple(_BLOCK.format(index) + theirs for index in range(1, depth)) for name, theirs in _EMBEDDERS.items()
    }


def positions(num_tokens: int, width: int) -> np.ndarray:
    """The published positions of a square of tokens (L3), [1, num_tokens^2, width] float32.

    Args:
        num_tokens: of a side.
        width: which 4 must divide.

    Raises:
        ValueError: another width.
    """
    if width % 4:
        raise ValueError(f"width must be divisible by 4 for positions on a grid, got {width}")
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(num_tokens**2), num_tokens)
    angles = (np.outer(place, frequencies) for place in (column, row))
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    return np.concatenate(parts, axis=1)[np.newaxis].astype(np.float32)


def _joined(shapes: Mapping[str, tuple[int, ...]], parts: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of tensors one behind another, once all have as long rows."""
    first, *others = (shape_of(shapes, part, len(shapes.get(part, ()))) for part in parts)
    for name, other in zip(parts[1:], others, strict=True):
        if other[1:] != first[1:]:
            raise ValueError(f"tensor {name} must have rows like {parts[0]}'s {first[1:]}, got shape {other}")
    return (sum(shape[0] for shape in (first, *others)), *first[1:])


def _num_tokens(side: int, patch: int) -> int:
    if side % patch:
        raise ValueError(f"side must be a multiple of the patch {patch}, got {side}")
    return side // patch


def as_published(
    shapes: Mapping[str, tuple[int, ...]], tensor: Tensor, side: int
) -> tuple[dict[str, tuple[int, ...]], Tensor]:
    """The shapes and the tensors of a file in diffusers' layout, by their published names.

    Args:
        shapes: of all tensors of the file, by name.
        tensor: the file's name -> the tensor.
        side: of the square latents, which no shape tells.

    Raises:
        ValueError: a tensor that is missing, unexpected, or of another shape than those beside it; a side that
            no patches fill; of what is returned: an embedder that is not that of the first block. The message names it.
    """
    depth = len({found[1] for name in shapes if (found := re.match(r"transformer_blocks\.(\d+)\.", name))})
    sources, copies = _sources(depth), _copies(depth)
    known = {part for parts in (*sources.values(), *copies.values()) for part in parts}
    for name in shapes:
        if name not in known:
            raise ValueError(f"tensor {name[:200]} is unexpected")
    for name in sorted(known - shapes.keys()):
        raise ValueError(f"tensor {name} is missing")
    width, _, patch, _ = shape_of(shapes, "pos_embed.proj.weight", 4)
    num_tokens = _num_tokens(side, patch)
    published = {name: _joined(shapes, parts) for name, parts in sources.items()}

    def found(name: str) -> np.ndarray:
        if name == _POSITIONS:
            return positions(num_tokens, width)
        its = np.concatenate([np.asarray(tensor(part)) for part in sources[name]])
        for copy in copies.get(name, ()):
            if not np.array_equal(np.asarray(tensor(copy)), its):
                raise ValueError(f"tensor {copy} must equal that of transformer_blocks.0: all blocks have one embedder")
        return its

    return published | {_POSITIONS: (1, num_tokens**2, width)}, found
