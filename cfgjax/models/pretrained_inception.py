"""Published weights of FID's Inception-v3, in the names of pytorch-fid and torch-fidelity, as ``FIDInception``'s.

(W1) ``Mixed_5b.branch1x1.conv.weight`` [out, in, h, w] and ``Mixed_5b.branch1x1.bn``'s weight, bias, running_mean and
     running_var become our ``Mixed_5b/branch1x1``: kernel k weight / s and bias b - mean weight / s, with
     s = sqrt(running_var + 1e-3), in float64.
(W2) ``fc.weight`` [1008, 2048] is our kernel transposed.

Needs the extra ``safetensors``; a file is data, and never code. No tensor tells that weights are the published ones.

Source: pytorch-fid, inception.py; torch-fidelity, feature_extractor_inceptionv3.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cfgjax.checks import THREEFRY
from cfgjax.contracts import checked
from cfgjax.models.inception import LEAST_SIDE, FIDInception
from cfgjax.models.weight_files import (
    PAGE,
    Tensor,
    finite_tensor,
    nested,
    read_safetensors,
    require_shapes,
)
from cfgjax.types import Tree

EPSILON = 1e-3
"""(W1)."""
_NORM = ("weight", "bias", "running_mean", "running_var")


def _kernels() -> dict[str, tuple[int, ...]]:
    """The shape of the kernel in each of our places."""
    image = jax.ShapeDtypeStruct((LEAST_SIDE, LEAST_SIDE, 3), jnp.float32)
    params = jax.eval_shape(FIDInception().init, jax.random.key(0, impl=THREEFRY), image)["params"]
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    return {place.removesuffix("/kernel"): leaf.shape for place, leaf in flat.items() if place.endswith("/kernel")}


def shapes_of() -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors that the weights have."""
    found: dict[str, tuple[int, ...]] = {}
    for place, shape in _kernels().items():
        name = place.replace("/", ".")
        if len(shape) == 2:
            found |= {f"{name}.weight": shape[::-1], f"{name}.bias": shape[1:]}
        else:
            height, width, fed, features = shape
            found |= {f"{name}.conv.weight": (features, fed, height, width)}
            found |= {f"{name}.bn.{each}": (features,) for each in _NORM}
    return found


def _unit(tensor: Tensor, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution and the batch norm behind it (W1)."""
    height, width, fed, features = shape
    kernel = finite_tensor(tensor, f"{name}.conv.weight", (features, fed, height, width)).transpose(2, 3, 1, 0)
    weight, bias, mean, variance = (
        finite_tensor(tensor, f"{name}.bn.{each}", (features,)).astype(np.float64) for each in _NORM
    )
    if np.any(variance < 0):
        raise ValueError(f"tensor {name}.bn.running_var must not be negative, got {variance.min():g}")
    factor = weight / np.sqrt(variance + EPSILON)
    return (kernel * factor).astype(np.float32), (bias - mean * factor).astype(np.float32)


def _dense(tensor: Tensor, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(W2)."""
    weight = finite_tensor(tensor, f"{name}.weight", shape[::-1])
    return weight.T, finite_tensor(tensor, f"{name}.bias", shape[1:])


@checked
def parameters(tensor: Callable[[str], np.ndarray]) -> Tree:
    """The parameters of ``FIDInception``, float32, by (W1) and (W2).

    Args:
        tensor: published name -> the tensor, as the ``__getitem__`` of a mapping is; called once for each name.

    Raises:
        TypeError, ValueError: a tensor of another shape, or of what are no real numbers, or not finite, or a variance
            below 0, by its name.
    """
    flat = {}
    for place, shape in _kernels().items():
        made = _dense if len(shape) == 2 else _unit
        flat[f"{place}/kernel"], flat[f"{place}/bias"] = made(tensor, place.replace("/", "."), shape)
    return {"params": nested(flat)}


def _require_names(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError for weights of other networks that are known, saying whose they are."""
    if any(name.startswith("AuxLogits.") for name in shapes) or shapes.get("fc.weight") == (1000, 2048):
        raise ValueError(f"it is torchvision's own Inception-v3, by which no FID is quoted; {PAGE}")


@checked
def read(file: Path) -> Tree:
    """The parameters of ``FIDInception`` in a safetensors file.

    Args:
        file: with exactly the tensors of ``shapes_of``.

    Raises:
        OSError: no file there, or one that cannot be read.
        ImportError: safetensors is not installed.
        ValueError: another kind of file, another network's weights; a tensor that is missing, unexpected, of another
            shape or type, or not finite. One line that names file and tensor.
    """

    def build(shapes: Mapping[str, tuple[int, ...]], tensor: Tensor) -> Tree:
        _require_names(shapes)
        require_shapes(shapes, shapes_of())
        return parameters(tensor)

    return read_safetensors(Path(file), build)
