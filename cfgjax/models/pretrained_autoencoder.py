"""Published weights of AutoencoderKL in diffusers' layout as the parameters of ``models.AutoencoderKL``, by names.

(V1) ``encoder.down_blocks.0.resnets.1.conv1.weight`` is our ``encoder/down_blocks_0/resnets_1/conv1/kernel``, and the
     weight of a norm our scale: names, shapes and places all follow from the network.
(V2) A convolution keeps its weight as [out, in, h, w], ours as [h, w, in, out]; a linear layer as [out, in], ours as
     [in, out].
(V3) Attention's layers to_q, to_k, to_v, to_out.0 are query, key, value, proj_attn in older files.
(V4) ``config.json`` beside the file tells what no shape does: the groups of the norms, factor and shift of the latents.

Needs the extra ``safetensors``; a file is data, and never code.

Source: diffusers 0.42.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cfgjax.checks import THREEFRY, require_count, short_repr
from cfgjax.contracts import PositiveInt, check_fields, checked, instance
from cfgjax.models.autoencoder import AutoencoderKL
from cfgjax.models.latents import LATENT_SCALINGS, LatentScaling, Scaling
from cfgjax.models.weight_files import (
    Shapes,
    finite_tensor,
    nested,
    read_safetensors,
    require_autoencoder_names,
    require_shapes,
    shape_of,
)
from cfgjax.types import Tree

Network = Annotated[AutoencoderKL, instance(AutoencoderKL, "an AutoencoderKL, as network_of gives it")]
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ENDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_ORDERS = {4: ((3, 2, 0, 1), (2, 3, 1, 0)), 2: ((1, 0), (1, 0))}
"""The order of axes in a file of a weight of ours, and back (V2)."""
_MOST_OF_CONFIG = 2**20
"""Bytes of a config.json that are read."""


class PretrainedAutoencoder(NamedTuple):
    """A network, its parameters, and the scaling with which diffusion was trained on its latents."""

    network: AutoencoderKL
    params: Tree
    scaling: LatentScaling


def _name(place: str) -> str:
    """The published name of a place (V1)."""
    *above, end = place.split("/")
    return re.sub(r"_(\d+)(?=\.)", r".\1", ".".join([*above, _ENDS[end]]))


def _places(network: AutoencoderKL) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each published name the place of ours, and the published shape."""
    image = jax.ShapeDtypeStruct((network.downsampling,) * 2 + (network.image_channels,), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0, impl=THREEFRY), image)["params"]
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    found = {}
    for place, leaf in flat.items():
        order = _ORDERS.get(leaf.ndim, ((0,),))[0]
        found[_name(place)] = place, tuple(leaf.shape[axis] for axis in order)
    return found


@checked
def shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that the weights of a network have."""
    return {name: shape for name, (_, shape) in _places(network).items()}


def _published_name(name: str) -> str:
    """The name with attention's older words replaced (V3)."""
    return re.sub(
        rf"(\.attentions\.\d+\.)({'|'.join(_OLD_NAMES)})(?=\.)", lambda found: found[1] + _OLD_NAMES[found[2]], name
    )


def _published_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Each published name, and the file's own name of the same tensor."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(_published_name(name), name)
        if other != name:
            raise ValueError(f"tensor {name[:200]} is there twice, as {other[:200]}, too")
    return found


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


@checked
def network_of(shapes: Shapes, num_groups: PositiveInt = 32) -> AutoencoderKL:
    """The network whose weights have exactly these tensors.

    Args:
        shapes: of all tensors of a file, by name.
        num_groups: of every norm, which no shape tells.

    Raises:
        ValueError: names of a transformer, a U-Net, another autoencoder or another layout; a tensor that is missing,
            unexpected, or of another shape than the others ask for, by name; a width that ``num_groups`` does not
            divide.
    """
    require_autoencoder_names(shapes)
    shapes = {name: shapes[own] for name, own in _published_names(shapes).items()}
    first = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    num_levels = max(1, _count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    network = AutoencoderKL(
        latent_channels=shape_of(shapes, "decoder.conv_in.weight", 4)[1],
        image_channels=shape_of(shapes, "encoder.conv_in.weight", 4)[1],
        widths=tuple(shape_of(shapes, first.format(level), 4)[0] for level in range(num_levels)),
        blocks_per_level=_count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        num_groups=num_groups,
        has_quant_convs="quant_conv.weight" in shapes or "post_quant_conv.weight" in shapes,
    )
    require_shapes(shapes, shapes_of(network))
    return network


@checked
def parameters(tensor: Callable[[str], np.ndarray], network: Network) -> Tree:
    """The parameters of a network, float32, by (V1) and (V2).

    Args:
        tensor: published name -> the tensor, as the ``__getitem__`` of a mapping is; called once for each name.
        network: whose weights they are.

    Raises:
        TypeError, ValueError: a tensor of another shape, or of what are no real numbers, or not finite, by its name.
    """
    flat = {}
    for name, (place, shape) in _places(network).items():
        found = finite_tensor(tensor, name, shape)
        flat[place] = found.transpose(_ORDERS[found.ndim][1]) if found.ndim in _ORDERS else found
    return {"params": nested(flat)}


def _config(file: Path) -> dict[str, Any] | None:
    """What ``config.json`` beside the file says; None where there is none."""
    place = file.parent / "config.json"
    if not place.is_file():
        return None
    with place.open("rb") as stream:
        content = stream.read(_MOST_OF_CONFIG)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("config.json beside it is not JSON") from None
    if not isinstance(found, dict) or found.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        kind = found.get("_class_name") if isinstance(found, dict) else found
        raise ValueError(f"config.json beside it must be that of an AutoencoderKL, got {short_repr(kind)}")
    return found


def _require_agreement(found: Mapping[str, Any], network: AutoencoderKL) -> None:
    """Raises ValueError where the config says what the tensors do not, or what this network does not compute."""
    ours = {
        "latent_channels": network.latent_channels,
        "in_channels": network.image_channels,
        "out_channels": network.image_channels,
        "block_out_channels": list(network.widths),
        "layers_per_block": network.blocks_per_level,
        "act_fn": "silu",
        "latents_mean": None,
        "latents_std": None,
    }
    for name, value in ours.items():
        if found.get(name, value) != value:
            whose = "the tensors have" if name in list(ours)[:5] else "only this is computed:"
            raise ValueError(f"config.json says {name} {short_repr(found[name])}, {whose} {value}")


def _scaling(found: Mapping[str, Any] | None) -> LatentScaling:
    """Factor and shift by the config; where it does not say them, diffusers' defaults, 0.18215 and 0."""
    if found is None:
        known = ", ".join(f"{name} {tuple(each)}" for name, each in LATENT_SCALINGS.items())
        raise ValueError(f"scaling must be given where no config.json lies beside it; factor and shift are: {known}")
    told, usual = (found.get("scaling_factor"), found.get("shift_factor")), LATENT_SCALINGS["SD"]
    return LatentScaling(*(usual[index] if value is None else value for index, value in enumerate(told)))


def _require_numbers(num_groups: Any, scaling: LatentScaling) -> None:
    """Raises ValueError for numbers of a config that are none."""
    try:
        require_count("norm_num_groups", num_groups, 1)
        check_fields(scaling, "latents' ")
    except (TypeError, ValueError) as error:
        raise ValueError(f"config.json: {error}") from None


@checked
def read(file: Path, scaling: Scaling | None = None) -> PretrainedAutoencoder:
    """The network, the parameters and the scaling in a safetensors file and the ``config.json`` beside it (V4).

    Numbers of 16 bits are widened. For bfloat16 take ``network.clone(dtype=jnp.bfloat16)``, with the same parameters.

    Args:
        file: in diffusers' layout, and nothing else in it.
        scaling: of the latents; None for that of the config, whose default is the factor 0.18215 without a shift.

    Raises:
        OSError: no file there, or one that cannot be read.
        ImportError: safetensors is not installed.
        ValueError: another kind of file; what ``network_of`` refuses, before any tensor is read; a tensor that is not
            F32, F16 or BF16, or not finite; a config that contradicts the tensors, or tells of another kind of network;
            no config, and no scaling. One line that names the file.
    """

    def build(shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], np.ndarray]) -> PretrainedAutoencoder:
        require_autoencoder_names(shapes)
        names, config = _published_names(shapes), _config(file)
        num_groups = (config or {}).get("norm_num_groups", 32)
        told = _scaling(config) if scaling is None else scaling
        _require_numbers(num_groups, told)
        network = network_of(shapes, num_groups)
        _require_agreement(config or {}, network)
        return PretrainedAutoencoder(network, parameters(lambda name: tensor(names[name]), network), told)

    return read_safetensors(Path(file), build)
