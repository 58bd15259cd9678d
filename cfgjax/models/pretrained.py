"""Published weights of transformers as the parameters of ``models.DiT``: by names, one tensor of theirs to one of ours.

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
(W8) LightningDiT has SiT's time and field. Its SwiGLU, learned scales of norms, rotary and other positions are options
     of ours; the cosines and sines that it keeps must be those of ours, and are left out.
(W9) JiT has SiT's time and path, and predicts the data; in context its label's tokens join at a third of the depth. Its
     noise has a standard deviation s: divided by it, data and noise lie on our path, so its first layer is multiplied
     and its last divided by s.

Their images are [C, H, W], ours [H, W, C]. Label K is null in both. Needs the extra ``safetensors``; a file is data,
and never code.

Source: Peebles & Xie, arXiv 2212.09748; Ma et al., arXiv 2401.08740; Yao et al., arXiv 2501.01423; Li & He, arXiv
2511.13720; and the public sources of all four.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cfgjax import conversions, paths
from cfgjax.contracts import PositiveFloat, PositiveInt, checked, one_of
from cfgjax.models import DiT
from cfgjax.models.diffusers_layout import as_published, is_of_diffusers
from cfgjax.models.published_tensors import (
    Architecture,
    KnownArchitecture,
    architecture_of_shapes,
    depth_of,
    placed,
    placing_of,
)
from cfgjax.models.weight_files import Shapes, read_safetensors, require_published_names, shape_of
from cfgjax.types import LabelledField, Tree

KINDS = ("sit", "repa", "dit", "diffusers_dit", "lightningdit", "jit")
LAST_FREQUENCY = dict.fromkeys(KINDS, 10000 ** (-127 / 128)) | {"diffusers_dit": 10000**-1}
"""The last of each kind's frequencies of time, the first being 1 (W5, W7)."""
_OF_DIT = "dit", "diffusers_dit"
_STEPS = paths.NUM_STEPS - 1.0, 0.0
TIME_RANGE = dict.fromkeys(KINDS, (0.0, 1.0)) | {"repa": (1.0, 0.0), "dit": _STEPS, "diffusers_dit": _STEPS}
"""What each kind embeds at our t = 0 and t = 1."""

Kind = Annotated[str, one_of(*KINDS)]
"""Whose weights these are, SiT's, SiT with REPA's, DiT's, or as diffusers computes it, LightningDiT's or JiT's."""


@checked
def shapes_of(architecture: KnownArchitecture) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that the weights of an architecture have."""
    return {name: each.shape for name, each in placing_of(architecture).items()}


@checked
def architecture_of(
    shapes: Shapes, num_heads: PositiveInt | None = None, kind: Kind = "sit", noise_scale: PositiveFloat | None = None
) -> Architecture:
    """The architecture whose weights have exactly these tensors.

    Args:
        shapes: of all tensors of a file, by name.
        num_heads: of attention; by default what the norms or the rotary positions of a head tell, of "lightningdit" and
            "jit", or that of the paper's size, as no shape tells it of the others.
        kind: whose weights they are.
        noise_scale: of "jit" (W9), by default 1 for images of side 256 and 2 for 512, as published.

    Raises:
        ValueError: names of diffusers, of REPA, of another kind, or behind a prefix; a tensor that is missing,
            unexpected, or of another shape than the others ask for, by name; a size of no paper without ``num_heads``;
            one that no width has; images of another side without ``noise_scale``, or one for another kind.
    """
    require_published_names(shapes)
    if noise_scale is not None and kind != "jit":
        raise ValueError(f"noise_scale must be left out but for the kind jit, got {noise_scale} for {kind}")
    if kind == "jit":
        return _of_jit(shapes, num_heads, noise_scale)
    options: dict[str, Any]
    options = {"feed_forward": "swiglu", "norm_scale": True, "rotary": "stored"} if kind == "lightningdit" else {}
    if kind == "lightningdit":
        options["qk_norm"] = "blocks.0.attn.q_norm.weight" in shapes
    _require_kind(shapes, kind)
    if kind == "lightningdit":
        shape_of(shapes, "feat_rope.freqs_cos", 2)  # else the number of heads is asked for first
    return architecture_of_shapes(shapes, num_heads, options)


def _require_kind(shapes: Mapping[str, tuple[int, ...]], kind: str) -> None:
    """Raises ValueError for tensors of one of the later networks, saying of which."""
    found = next((name for name in _ONLY_OF if name in shapes), None)
    if found is not None and _ONLY_OF[found] != kind:
        raise ValueError(f"tensor {found} is that of the kind {_ONLY_OF[found]}, not of {kind}")


_ONLY_OF = {"x_embedder.proj1.weight": "jit", "feat_rope.freqs_cos": "lightningdit"}
"""Tensors that tell a kind."""
NOISE_SCALES = {256: 1.0, 512: 2.0}
"""JiT's, by the side of its images."""


def _of_jit(shapes: Mapping[str, tuple[int, ...]], num_heads: int | None, noise_scale: float | None) -> Architecture:
    options = {
        "feed_forward": "swiglu",
        "norm_scale": True,
        "qk_norm": True,
        "rotary": "computed",
        "bottleneck": shape_of(shapes, "x_embedder.proj1.weight", 4)[0],
        "in_context_tokens": shape_of(shapes, "in_context_posemb", 3)[1],
        "in_context_start": depth_of(shapes) // 3,
    }
    architecture = architecture_of_shapes(shapes, num_heads, options)
    if noise_scale is None and architecture.side not in NOISE_SCALES:
        raise ValueError(f"noise_scale must be given for images of side {architecture.side}, which no paper has")
    scale = NOISE_SCALES[architecture.side] if noise_scale is None else noise_scale
    return architecture._replace(noise_scale=scale)


@checked
def parameters(tensor: Callable[[str], np.ndarray], architecture: KnownArchitecture, kind: Kind = "sit") -> Tree:
    """The parameters of ``network``, float32, by (W1) to (W4), and of "repa" (W6), of "jit" (W9).

    Args:
        tensor: name -> the tensor, as the ``__getitem__`` of a mapping is; called once for each name.
        architecture: of the weights.
        kind: whose they are.

    Raises:
        TypeError, ValueError: a tensor of another shape, or of what are no real numbers, or not finite, by its name;
            stored rotary positions that are not ours.
    """
    noise, sign = architecture.noise_scale, -1.0 if kind == "repa" else 1.0
    factors = {"bottleneck_layer/kernel": noise, "Dense_2/kernel": sign / noise, "Dense_2/bias": sign / noise}
    return placed(tensor, architecture, {place: factor for place, factor in factors.items() if factor != 1})


@checked
def read(
    file: Path,
    num_heads: PositiveInt | None = None,
    kind: Kind = "sit",
    side: PositiveInt = 32,
    noise_scale: PositiveFloat | None = None,
) -> tuple[Architecture, Tree]:
    """The architecture and the parameters in a safetensors file, its numbers of 16 bits widened.

    Args:
        file: with the published names, or of DiT those of diffusers, and nothing else but the ``projectors.`` of
            "repa".
        num_heads: as ``architecture_of``.
        kind: whose weights they are.
        side: of the latents of a file in diffusers' layout, which does not tell it: 32 of 256 x 256 pictures.
        noise_scale: as ``architecture_of``.

    Raises:
        OSError: no file there, or one that cannot be read.
        ImportError: safetensors is not installed.
        ValueError: another kind of file; what ``architecture_of`` refuses, before any tensor is read; the layout of
            diffusers for another kind than DiT's, or with a side that no patches fill; a tensor that is not F32, F16 or
            BF16, or not finite. One line that names the file.
    """

    def build(shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], np.ndarray]) -> tuple[Architecture, Tree]:
        if kind == "repa":
            shapes = {name: shape for name, shape in shapes.items() if not name.startswith("projectors.")}
        if is_of_diffusers(shapes):
            if kind not in _OF_DIT:
                raise ValueError(f"its names are those of DiT in diffusers' layout, of the kind dit, not of {kind}")
            shapes, tensor = as_published(shapes, tensor, side)
        architecture = architecture_of(shapes, num_heads, kind, noise_scale)
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
        norm="rms" if architecture.norm_scale else "layer",
        positions="learned",
        max_frequency=LAST_FREQUENCY[kind],
        time_range=TIME_RANGE[kind],
        norm_scale=architecture.norm_scale,
        feed_forward=architecture.feed_forward,
        qk_norm=architecture.qk_norm,
        rotary=architecture.rotary != "none",
        bottleneck=architecture.bottleneck,
        num_classes=architecture.num_classes,
        in_context_tokens=architecture.in_context_tokens,
        in_context_start=architecture.in_context_start,
    )


@checked
def field(kind: Kind, predict: LabelledField) -> LabelledField:
    """The vector field on ``paths.linear`` of what a published network predicts.

    Args:
        kind: whose prediction it is: of "dit" and "diffusers_dit" the noise on ``paths.ddpm``, of "jit" the data, in
            the scale of (W9), whose field is bounded as theirs is; of the others the field itself.
        predict: the network, (x, t, y) -> like x.
    """
    if kind == "jit":
        return conversions.bounded_field_of_denoiser(paths.linear(), predict)
    if kind not in _OF_DIT:
        return predict
    noise_path = paths.ddpm()
    return conversions.change_path(noise_path, paths.linear(), conversions.field_of_noise(noise_path, predict))
