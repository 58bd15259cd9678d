"""Published weights of DiT and SiT as the parameters of ``models.DiT``: by names, one tensor of theirs to one of ours.

(W1) A linear layer keeps its weight as [out, in], ours as [in, out]. The first one is a convolution [out, C, p, p] over
     patches, whose inputs ours orders p, p, C.
(W2) Their modulations are shift, scale, gate (of attention, then of the MLP); ours scale, shift, gate.
(W3) Their last layer gives p, p, 2 C where it has learned a variance, too: only the first C of the 2 C are kept.
(W4) Their positions, sines and cosines in another order than ours, lie in the file, and become learned ones.
(W5) Their frequencies of time are 10000^(-k/128), k = 0..127. SiT embeds t, and its t, path and velocity are ours:
     data at t = 1 on the linear path. DiT embeds the number of a step of DDPM, 999 where ours is t = 0 on
     ``paths.ddpm``, and predicts the noise.
(W6) SiT trained with REPA has data at t = 0 and predicts minus the field: its last layer is negated here, and its time
     turned. Nothing in a file tells that but ``projectors.``, which are left out.
(W7) diffusers' layout of DiT (``diffusers_layout``) holds the same network. diffusers itself computes another with it,
     whose frequencies of time are 10000^(-k/127): that is the kind "diffusers_dit".

Their images are [C, H, W], ours [H, W, C]. Label K is null in both. Needs the extra ``safetensors``; a file is data,
and never code.

Source: Peebles & Xie, arXiv 2212.09748; Ma et al., arXiv 2401.08740; and the public sources of both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from cfgjax import conversions, paths
from cfgjax.contracts import PositiveInt, checked, one_of, record
from cfgjax.models import SIZES, DiT
from cfgjax.models.diffusers_layout import as_published, is_of_diffusers
from cfgjax.models.weight_files import (
    Shapes,
    finite_tensor,
    nested,
    read_safetensors,
    require_published_names,
    require_shapes,
    shape_of,
)
from cfgjax.types import LabelledField, Tree

KINDS = ("sit", "repa", "dit", "diffusers_dit")
LAST_FREQUENCY = dict.fromkeys(KINDS, 10000 ** (-127 / 128)) | {"diffusers_dit": 10000**-1}
"""The last of each kind's frequencies of time, the first being 1 (W5, W7)."""
_STEPS = paths.NUM_STEPS - 1.0, 0.0
TIME_RANGE = {"sit": (0.0, 1.0), "repa": (1.0, 0.0), "dit": _STEPS, "diffusers_dit": _STEPS}
"""What each kind embeds at our t = 0 and t = 1."""

Kind = Annotated[str, one_of(*KINDS)]
"""Which weights these are, of SiT, of SiT with REPA, of DiT, or of DiT as diffusers computes it."""


class Architecture(NamedTuple):
    """What distinguishes one DiT or SiT from another; ``side`` is that of its square latents."""

    width: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    patch: PositiveInt
    channels: PositiveInt
    side: PositiveInt
    num_classes: PositiveInt
    has_variance: bool


KnownArchitecture = Annotated[Architecture, record(Architecture, "an Architecture, as architecture_of gives it")]
"""An Architecture of integers of at least 1."""


class _Layer(NamedTuple):
    """Where a layer's weight and bias go, the shape of its weight, and what becomes of its rows."""

    place: str
    shape: tuple[int, ...]
    arrange: Callable[[np.ndarray], np.ndarray] = np.asarray


def _chunks(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    """The rows cut into as many chunks, which are put into an order (W2)."""
    return lambda rows: np.concatenate([np.split(rows, len(order))[index] for index in order])


def _layers(architecture: Architecture) -> dict[str, _Layer]:
    """Every layer with a weight and a bias, by its published name."""
    width, square, channels = architecture.width, architecture.patch**2, architecture.channels
    num_outputs = channels * (1 + architecture.has_variance)

    def without_variance(rows: np.ndarray) -> np.ndarray:
        kept = rows.reshape(square, num_outputs, -1)[:, :channels]
        return kept.reshape(square * channels, *rows.shape[1:])

    layers = {
        "x_embedder.proj": _Layer("Dense_0", (width, channels, architecture.patch, architecture.patch)),
        "t_embedder.mlp.0": _Layer("TimeEmbedding_0/Dense_0", (width, 256)),
        "t_embedder.mlp.2": _Layer("TimeEmbedding_0/Dense_1", (width, width)),
        "final_layer.adaLN_modulation.1": _Layer("Dense_1", (2 * width, width), _chunks(1, 0)),
        "final_layer.linear": _Layer("Dense_2", (square * num_outputs, width), without_variance),
    }
    for index in range(architecture.depth):
        theirs, ours = f"blocks.{index}", f"DiTBlock_{index}"
        layers |= {
            f"{theirs}.adaLN_modulation.1": _Layer(f"{ours}/Dense_0", (6 * width, width), _chunks(1, 0, 2, 4, 3, 5)),
            f"{theirs}.attn.qkv": _Layer(f"{ours}/SelfAttention_0/Dense_0", (3 * width, width)),
            f"{theirs}.attn.proj": _Layer(f"{ours}/SelfAttention_0/Dense_1", (width, width)),
            f"{theirs}.mlp.fc1": _Layer(f"{ours}/Dense_1", (4 * width, width)),
            f"{theirs}.mlp.fc2": _Layer(f"{ours}/Dense_2", (width, 4 * width)),
        }
    return layers


_LABELS, _POSITIONS = "y_embedder.embedding_table.weight", "pos_embed"


@checked
def shapes_of(architecture: KnownArchitecture) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that the weights of an architecture have."""
    return _shapes_of(architecture)


def _shapes_of(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        _LABELS: (architecture.num_classes + 1, architecture.width),
        _POSITIONS: (1, (architecture.side // architecture.patch) ** 2, architecture.width),
    }
    for name, layer in _layers(architecture).items():
        shapes |= {f"{name}.weight": layer.shape, f"{name}.bias": layer.shape[:1]}
    return shapes


def _num_heads(width: int, depth: int, given: int | None) -> int:
    if given is not None:
        if width % given:
            raise ValueError(f"num_heads must divide the width {width}, got {given}")
        return given
    for size in SIZES.values():
        if (size.width, size.depth) == (width, depth):
            return size.num_heads
    raise ValueError(f"num_heads must be given for {depth} blocks of width {width}, which is none of the papers' sizes")


@checked
def architecture_of(shapes: Shapes, num_heads: PositiveInt | None = None) -> Architecture:
    """The architecture whose weights have exactly these tensors.

    Args:
        shapes: of all tensors of a file, by name.
        num_heads: of attention, which no shape tells; by default that of the paper's size.

    Raises:
        ValueError: names of diffusers, of REPA, or behind a prefix; a tensor that is missing, unexpected, or of another
            shape than the others ask for, by name; a size of no paper without ``num_heads``; one that no width has.
    """
    require_published_names(shapes)
    width, channels, patch, _ = shape_of(shapes, "x_embedder.proj.weight", 4)
    num_tokens, num_rows = shape_of(shapes, _POSITIONS, 3)[1], shape_of(shapes, _LABELS, 2)[0]
    num_outputs, _ = shape_of(shapes, "final_layer.linear.weight", 2)
    depth = len({found[1] for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))})
    heads = _num_heads(width, depth, num_heads)
    has_variance = num_outputs != patch**2 * channels
    side = patch * math.isqrt(num_tokens)
    architecture = Architecture(width, depth, heads, patch, channels, side, num_rows - 1, has_variance)
    require_shapes(shapes, _shapes_of(architecture))
    return architecture


@checked
def parameters(tensor: Callable[[str], np.ndarray], architecture: KnownArchitecture, kind: Kind = "sit") -> Tree:
    """The parameters of ``network``, float32, by (W1) to (W4), and of "repa" (W6).

    Args:
        tensor: name -> the tensor, as the ``__getitem__`` of a mapping is; called once for each name.
        architecture: of the weights.
        kind: whose they are.

    Raises:
        TypeError, ValueError: a tensor of another shape, or of what are no real numbers, or not finite, by its name.
    """
    shapes = _shapes_of(architecture)

    def finite(name: str) -> np.ndarray:
        return finite_tensor(tensor, name, shapes[name])

    flat = {"LabelEmbedding_0/Embed_0/embedding": finite(_LABELS), "positions": finite(_POSITIONS)[0]}
    for name, layer in _layers(architecture).items():
        weight = finite(f"{name}.weight")
        rows = layer.arrange(np.moveaxis(weight, 1, -1))
        flat[f"{layer.place}/kernel"] = rows.reshape(len(rows), -1).T
        flat[f"{layer.place}/bias"] = layer.arrange(finite(f"{name}.bias"))
    for name in ("Dense_2/kernel", "Dense_2/bias") if kind == "repa" else ():
        flat[name] = -flat[name]
    return {"params": nested(flat)}


@checked
def read(
    file: Path, num_heads: PositiveInt | None = None, kind: Kind = "sit", side: PositiveInt = 32
) -> tuple[Architecture, Tree]:
    """The architecture and the parameters in a safetensors file, its numbers of 16 bits widened.

    Args:
        file: with the published names, or those of diffusers, and nothing else but the ``projectors.`` of "repa".
        num_heads: as ``architecture_of``.
        kind: whose weights they are.
        side: of the latents of a file in diffusers' layout, which does not tell it: 32 of 256 x 256 pictures.

    Raises:
        OSError: no file there, or one that cannot be read.
        ImportError: safetensors is not installed.
        ValueError: another kind of file; what ``architecture_of`` refuses, before any tensor is read; a tensor that is
            not F32, F16 or BF16, or not finite. One line that names the file.
    """

    def build(shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], np.ndarray]) -> tuple[Architecture, Tree]:
        if kind == "repa":
            shapes = {name: shape for name, shape in shapes.items() if not name.startswith("projectors.")}
        if is_of_diffusers(shapes):
            shapes, tensor = as_published(shapes, tensor, side)
        architecture = architecture_of(shapes, num_heads)
        return architecture, parameters(tensor, architecture, kind)

    return read_safetensors(file, build)


@checked
def network(kind: Kind, architecture: KnownArchitecture) -> DiT:
    """The transformer that computes what the published one does, at (x, t, y) in our order and time (W5).

    Args:
        kind: whose weights they are.
        architecture: of its weights.
    """
    return DiT(
        width=architecture.width,
        depth=architecture.depth,
        num_heads=architecture.num_heads,
        patch=architecture.patch,
        positions="learned",
        max_frequency=LAST_FREQUENCY[kind],
        time_range=TIME_RANGE[kind],
        num_classes=architecture.num_classes,
    )


@checked
def field(kind: Kind, predict: LabelledField) -> LabelledField:
    """The vector field on ``paths.linear`` of what a published network predicts.

    Args:
        kind: "sit" or "repa", whose prediction is that field, or one of DiT's, whose noise prediction on ``paths.ddpm``
            becomes it.
        predict: the network, (x, t, y) -> like x.
    """
    if kind in ("sit", "repa"):
        return predict
    noise_path = paths.ddpm()
    return conversions.change_path(noise_path, paths.linear(), conversions.field_of_noise(noise_path, predict))
