"""Transformers under their published names: which tensors an architecture has, and where each goes in ``models.DiT``.

The names of DiT, SiT, LightningDiT and JiT are one scheme: what a network has more than another has a name of its own.
The letters (W1) to (W9) are those of ``pretrained``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from cfgjax.contracts import NonNegativeInt, PositiveFloat, PositiveInt, record
from cfgjax.models import SIZES
from cfgjax.models.embeddings import grid_angles
from cfgjax.models.weight_files import Tensor, finite_tensor, nested, require_shapes, shape_of
from cfgjax.types import Tree


class Architecture(NamedTuple):
    """What distinguishes one published transformer from another; ``side`` is that of its square images or latents.

    From ``feed_forward`` to ``in_context_start`` they are options of ``models.DiT``, where rotary positions are
    "stored" if their cosines and sines are tensors, too; ``noise_scale`` is the standard deviation of JiT's noise.
    """

    width: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    patch: PositiveInt
    channels: PositiveInt
    side: PositiveInt
    num_classes: PositiveInt
    has_variance: bool
    feed_forward: Literal["gelu", "swiglu"] = "gelu"
    norm_scale: bool = False
    qk_norm: bool = False
    rotary: Literal["none", "stored", "computed"] = "none"
    bottleneck: NonNegativeInt = 0
    in_context_tokens: NonNegativeInt = 0
    in_context_start: NonNegativeInt = 0
    noise_scale: PositiveFloat = 1.0


KnownArchitecture = Annotated[Architecture, record(Architecture, "an Architecture, as architecture_of gives it")]
"""An Architecture whose numbers are in their ranges."""


class Placed(NamedTuple):
    """A tensor's shape, its place in our parameters, and what becomes of it; None for what is no parameter."""

    shape: tuple[int, ...]
    place: str | None
    arrange: Callable[[np.ndarray], np.ndarray] = np.asarray


Placing = dict[str, Placed]
"""Published names -> what they hold."""


def _chunks(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    """The rows cut into as many chunks, which are put into an order (W2)."""
    return lambda rows: np.concatenate([np.split(rows, len(order))[index] for index in order])


def _weight(
    name: str, place: str, shape: tuple[int, ...], arrange: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Placing:
    def kernel(weight: np.ndarray) -> np.ndarray:
        rows = arrange(np.moveaxis(weight, 1, -1))
        return rows.reshape(len(rows), -1).T

    return {f"{name}.weight": Placed(shape, f"{place}/kernel", kernel)}


def _layer(
    name: str, place: str, shape: tuple[int, ...], arrange: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> Placing:
    """A layer's weight and bias (W1)."""
    return _weight(name, place, shape, arrange) | {f"{name}.bias": Placed(shape[:1], f"{place}/bias", arrange)}


def _scales(places: Mapping[str, str], length: int) -> Placing:
    return {f"{name}.weight": Placed((length,), f"{place}/scale") for name, place in places.items()}


def _first_layer(architecture: Architecture) -> Placing:
    width, square = architecture.width, (architecture.channels, architecture.patch, architecture.patch)
    narrow = architecture.bottleneck
    if not narrow:
        return _layer("x_embedder.proj", "Dense_0", (width, *square))
    first = _weight("x_embedder.proj1", "bottleneck_layer", (narrow, *square))
    return first | _layer("x_embedder.proj2", "Dense_0", (width, narrow, 1, 1))


def _last_layer(architecture: Architecture) -> Placing:
    width, square, channels = architecture.width, architecture.patch**2, architecture.channels
    num_outputs = channels * (1 + architecture.has_variance)

    def without_variance(rows: np.ndarray) -> np.ndarray:
        kept = rows.reshape(square, num_outputs, -1)[:, :channels]
        return kept.reshape(square * channels, *rows.shape[1:])

    modulation = _layer("final_layer.adaLN_modulation.1", "Dense_1", (2 * width, width), _chunks(1, 0))
    linear = _layer("final_layer.linear", "Dense_2", (square * num_outputs, width), without_variance)
    names = {"final_layer.norm_final": "last_norm"} if architecture.norm_scale else {}
    return modulation | linear | _scales(names, width)


def _rotations(architecture: Architecture) -> Placing:
    """LightningDiT's cosines and sines of angles, twice each, which must be ours (W8)."""
    side, width = architecture.side // architecture.patch, architecture.width // architecture.num_heads

    def placed(name: str, wave: Callable[[np.ndarray], np.ndarray]) -> Placed:
        def check(found: np.ndarray) -> np.ndarray:
            angles = np.asarray(grid_angles(side, side, width), np.float64)
            if np.max(np.abs(found - wave(np.repeat(angles, 2, axis=1)))) > _OF_16_BITS:
                raise ValueError(f"tensor {name} must hold the rotary positions of rows, then of columns")
            return found

        return Placed((side * side, width), None, check)

    waves = {"feat_rope.freqs_cos": np.cos, "feat_rope.freqs_sin": np.sin}
    return {name: placed(name, wave) for name, wave in waves.items()}


_OF_16_BITS = 0.01
"""The error allowed in numbers up to 1, of which bfloat16 holds 8 bits."""


def _block(architecture: Architecture, index: int) -> Placing:
    width, theirs, ours = architecture.width, f"blocks.{index}", f"DiTBlock_{index}"
    attention = f"{ours}/SelfAttention_0"
    placing = (
        _layer(f"{theirs}.adaLN_modulation.1", f"{ours}/Dense_0", (6 * width, width), _chunks(1, 0, 2, 4, 3, 5))
        | _layer(f"{theirs}.attn.qkv", f"{attention}/Dense_0", (3 * width, width))
        | _layer(f"{theirs}.attn.proj", f"{attention}/Dense_1", (width, width))
    )
    if architecture.norm_scale:
        names = {f"{theirs}.norm1": f"{ours}/norm_1", f"{theirs}.norm2": f"{ours}/norm_2"}
        placing |= _scales(names, width)
    if architecture.qk_norm:
        names = {f"{theirs}.attn.{one}_norm": f"{attention}/{each}_norm" for one, each in zip("qk", _QK, strict=True)}
        placing |= _scales(names, width // architecture.num_heads)
    is_gated = architecture.feed_forward == "swiglu"
    first, last = ("w12", "w3") if is_gated else ("fc1", "fc2")
    inner, rows = (8 * width // 3, 2 * (8 * width // 3)) if is_gated else (4 * width, 4 * width)
    placing |= _layer(f"{theirs}.mlp.{first}", f"{ours}/Dense_1", (rows, width))
    return placing | _layer(f"{theirs}.mlp.{last}", f"{ours}/Dense_2", (width, inner))


_QK = "query", "key"
_LABELS, _POSITIONS, _IN_CONTEXT = "y_embedder.embedding_table.weight", "pos_embed", "in_context_posemb"


def placing_of(architecture: Architecture) -> Placing:
    """Every tensor of the weights of an architecture, by its published name."""
    width, num_tokens = architecture.width, (architecture.side // architecture.patch) ** 2
    table = (architecture.num_classes + 1, width)
    placing = {
        _LABELS: Placed(table, "LabelEmbedding_0/Embed_0/embedding"),
        _POSITIONS: Placed((1, num_tokens, width), "positions", lambda rows: rows[0]),
        **_layer("t_embedder.mlp.0", "TimeEmbedding_0/Dense_0", (width, 256)),
        **_layer("t_embedder.mlp.2", "TimeEmbedding_0/Dense_1", (width, width)),
        **_first_layer(architecture),
        **_last_layer(architecture),
    }
    if architecture.rotary == "stored":
        placing |= _rotations(architecture)
    if architecture.in_context_tokens:
        shape = (1, architecture.in_context_tokens, width)
        placing[_IN_CONTEXT] = Placed(shape, "in_context", lambda rows: rows[0])
    for index in range(architecture.depth):
        placing |= _block(architecture, index)
    return placing


def placed(tensor: Tensor, architecture: Architecture, factors: Mapping[str, float]) -> Tree:
    """The parameters of an architecture, float32; those of some places multiplied by factors.

    Raises:
        TypeError, ValueError: a tensor of another shape, or of what are no real numbers, or not finite, by its name.
    """
    flat = {}
    for name, each in placing_of(architecture).items():
        found = each.arrange(finite_tensor(tensor, name, each.shape))
        if each.place is not None:
            flat[each.place] = found
    for place, factor in factors.items():
        flat[place] = np.float32(factor) * flat[place]
    return {"params": nested(flat)}


def _num_heads(shapes: Mapping[str, tuple[int, ...]], width: int, depth: int, given: int | None) -> int:
    """The heads that were given, or those that a tensor of a head's numbers tells, or those of the paper's size."""
    if given is not None:
        if width % given:
            raise ValueError(f"num_heads must divide the width {width}, got {given}")
        return given
    for name, rank in _OF_A_HEAD.items():
        if name in shapes:
            return max(1, width // shape_of(shapes, name, rank)[-1])
    for size in SIZES.values():
        if (size.width, size.depth) == (width, depth):
            return size.num_heads
    raise ValueError(f"num_heads must be given for {depth} blocks of width {width}, which is none of the papers' sizes")


_OF_A_HEAD = {"blocks.0.attn.q_norm.weight": 1, "feat_rope.freqs_cos": 2}
"""Tensors whose last axis is a head's, and their ranks."""


def depth_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many blocks have a tensor."""
    return len({found[1] for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))})


def architecture_of_shapes(
    shapes: Mapping[str, tuple[int, ...]], num_heads: int | None, options: Mapping[str, Any]
) -> Architecture:
    """The architecture with these options whose weights have exactly these tensors.

    Raises:
        ValueError: a tensor that is missing, unexpected, or of another shape than the others ask for, by name; a size
            of no paper without ``num_heads``; one that no width has.
    """
    first = "x_embedder.proj1.weight" if "bottleneck" in options else "x_embedder.proj.weight"
    width, channels, patch, _ = shape_of(shapes, first, 4)
    if "bottleneck" in options:
        width = shape_of(shapes, "x_embedder.proj2.weight", 4)[0]
    num_tokens, num_rows = shape_of(shapes, _POSITIONS, 3)[1], shape_of(shapes, _LABELS, 2)[0]
    num_outputs, _ = shape_of(shapes, "final_layer.linear.weight", 2)
    depth, side = depth_of(shapes), patch * math.isqrt(num_tokens)
    heads = _num_heads(shapes, width, depth, num_heads)
    has_variance = num_outputs != patch**2 * channels
    architecture = Architecture(width, depth, heads, patch, channels, side, num_rows - 1, has_variance)
    architecture = architecture._replace(**options)
    require_shapes(shapes, {name: each.shape for name, each in placing_of(architecture).items()})
    return architecture
