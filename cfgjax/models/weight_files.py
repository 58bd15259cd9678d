"""Safetensors files of published names as parameters, and what other files are: told by first bytes and by names.

Nothing is unpickled or unpacked: a file is data, and never code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar, cast

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_kind, require_shape, short_repr
from cfgjax.contracts import Contract
from cfgjax.types import Tree

Made = TypeVar("Made")
Tensor = Callable[[str], np.ndarray]
"""A tensor's name -> the tensor."""


def _require_shapes(name: str, shapes: object) -> None:
    require_kind(name, shapes, Mapping, "a mapping of names to shapes")
    for tensor, shape in cast(Mapping, shapes).items():
        if not isinstance(tensor, str) or not isinstance(shape, list | tuple):
            raise TypeError(f"{name} must map names to tuples of lengths, got {short_repr(f'{tensor!r}: {shape!r}')}")


Shapes = Annotated[Mapping[str, tuple[int, ...]], Contract(_require_shapes)]
"""A tensor's name -> its shape."""

PAGE = "docs/published_weights.md says how to rewrite other files"
_STARTS = (
    (rb"PK\x03\x04.*/data\.pkl", "a PyTorch file (a zip around a pickle: .pt, .pth, .ckpt, .bin)"),
    (rb"PK\x03\x04.*\.npy", "a NumPy .npz"),
    (rb"PK\x03\x04", "a zip, as PyTorch's .pt files are"),
    (rb"\x80\x02\x8a\nl\xfc\x9cF\xf9", "a PyTorch file of the old form (a pickle: .pt, .pth, .bin)"),
    (rb"\x80[\x01-\x05]", "a pickle, as EDM2's .pkl and old PyTorch files are"),
    (rb"\x93NUMPY", "a NumPy .npy"),
    (rb"\x89HDF\r\n", "an HDF5 file"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"version https://git-lfs", "a pointer of Git LFS in the place of the weights (git lfs pull brings them)"),
    (rb"\s*<", "a page of HTML or XML in the place of the weights (a download that failed)"),
    (rb'\s*\{.*"weight_map"', "the index of weights in several parts"),
    (rb"\s*\{", "a JSON file without weights"),
)
_NUM_BYTES = 4096


def _other_file(file: Path) -> str | None:
    """What the file or folder is, if it is no single safetensors file."""
    if file.is_dir():
        return _other_folder({child.name for child in file.iterdir()})
    if re.search(r"-\d+-of-\d+\.safetensors$", file.name):
        return "one of several parts"
    with file.open("rb") as stream:
        start = stream.read(_NUM_BYTES)
    if not start:
        return "an empty file"
    if start[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        return None
    return next((what for form, what in _STARTS if re.match(form, start, re.DOTALL)), None)


def _other_folder(names: set[str]) -> str:
    if {"config.json", "checkpoints"} <= names:
        return "the folder of a run, which sample and evaluate read as it is"
    if any(name.endswith(".index.json") for name in names):
        return "a folder of weights in several parts"
    if "model_index.json" in names:
        return "the folder of a diffusers pipeline"
    if "config.json" in names:
        return "the folder of a diffusers model, whose .safetensors file is to be named"
    return "a folder, not a file"


def _other_names(names: Iterable[str]) -> str | None:
    """Whose names these are, if tensors of known other ones are among them."""
    known = sorted(names)
    starts = [found[1] for name in known if (found := re.match(r"(.+\.)x_embedder\.proj1?\.weight$", name))]
    if starts:
        return f"its names begin with {starts[0][:100]!r}, which the published ones do not"
    if any(name.startswith("transformer_blocks.") for name in known):
        return "its names (transformer_blocks...) are those of diffusers, not the published ones"
    if "decoder.conv_in.weight" in known:
        return "its names (decoder...) are those of an autoencoder, not of a transformer"
    if any(name.startswith("projectors.") for name in known):
        return "its projectors are those of REPA, whose time runs the other way: it is of the kind repa"
    return None


def require_weights_file(file: Path) -> None:
    """Raises ValueError for what is no single safetensors file, saying what it is; OSError where none can be read."""
    what = _other_file(file)
    if what is not None:
        raise ValueError(f"{file}: it is {what}, not a safetensors file of weights; {PAGE}")


def require_published_names(names: Iterable[str]) -> None:
    """Raises ValueError for tensors of known other names than the published ones, saying whose they are."""
    whose = _other_names(names)
    if whose is not None:
        raise ValueError(f"{whose}; {PAGE}")


_OF_OTHERS = (
    (r"x_embedder\.|transformer_blocks\.|double_blocks\.|blocks\.", "a transformer"),
    (r"time_embedding\.|time_embed\.|label_emb", "a U-Net"),
    (r"quantize\.", "an autoencoder with a codebook (VQ)"),
    (r"(encoder|decoder)\.layers\.", "a tiny autoencoder (TAESD)"),
    (r"text_model\.|text_projection", "a text encoder"),
)
"""How a name begins, and whose it is."""


def _other_autoencoder(names: Iterable[str]) -> str | None:
    """Whose names these are, if some of them are known as no autoencoder's in diffusers' layout."""
    known = sorted(names)
    original = [name for name in known if re.search(r"(^|\.)(encoder\.down|decoder\.up)\.0\.", name)]
    if original:
        return f"its names ({original[0][:60]}) are those of the first code (CompVis, FLUX), not of diffusers' layout"
    starts = [name.removesuffix("encoder.conv_in.weight") for name in known if name.endswith(".encoder.conv_in.weight")]
    if starts:
        return f"its names begin with {starts[0][:100]!r}, which the published ones do not"
    found = ((name, whose) for start, whose in _OF_OTHERS for name in known if re.match(start, name))
    return next((f"its names ({name[:60]}) are those of {whose}, not of an autoencoder" for name, whose in found), None)


def require_autoencoder_names(names: Iterable[str]) -> None:
    """Raises ValueError for tensors that are no AutoencoderKL's in diffusers' layout, saying whose they are."""
    whose = _other_autoencoder(names)
    if whose is not None:
        raise ValueError(f"{whose}; {PAGE}")


def shape_of(shapes: Mapping[str, tuple[int, ...]], name: str, rank: int) -> tuple[int, ...]:
    """The shape of one tensor; ValueError where there is none, or another number of axes, or an empty one."""
    if name not in shapes:
        raise ValueError(f"tensor {name} is missing")
    if len(shapes[name]) != rank or 0 in shapes[name]:
        raise ValueError(f"tensor {name} must have {rank} axes, none of them empty, got shape {shapes[name]}")
    return tuple(shapes[name])


def require_shapes(shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError for a tensor that is missing, unexpected, or of another shape, by its name."""
    for name in [*wanted, *shapes]:
        if name not in wanted:
            raise ValueError(f"tensor {name[:200]} is unexpected")
        if shape_of(shapes, name, len(wanted[name])) != wanted[name]:
            raise ValueError(f"tensor {name} must have shape {wanted[name]}, got {tuple(shapes[name])}")


def finite_tensor(tensor: Tensor, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor in float32, found to have the shape, of real numbers that are finite."""
    array = np.asarray(tensor(name)).astype(np.float32)
    require_shape(f"tensor {name}", array, shape)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"tensor {name} is not finite")
    return array


def nested(flat: dict[str, np.ndarray]) -> Tree:
    """The tree of arrays whose names are places, parts of which "/" separates; each is taken out of ``flat``.

    The tree alone then holds them: a copy on a device takes no second place in the host's memory.
    """
    tree: Tree = {}
    for place in list(flat):
        *above, name = place.split("/")
        owner = tree
        for part in above:
            owner = owner.setdefault(part, {})
        owner[name] = jnp.asarray(flat.pop(place))
    return tree


def read_safetensors(file: Path, build: Callable[[dict[str, tuple[int, ...]], Tensor], Made]) -> Made:
    """What ``build`` makes of the shapes in a safetensors file, and of its tensors by name, read as they are asked for.

    Raises:
        OSError: no file there, or one that cannot be read.
        ImportError: safetensors is not installed.
        ValueError: another kind of file, a tensor that is not F32, F16 or BF16, and those of ``build``. One line that
            names the file.
    """
    require_weights_file(file)
    try:
        import safetensors
    except ImportError as error:
        raise ImportError("reading weights needs safetensors: python -m pip install 'cfgjax[safetensors]'") from error
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            for name, each in found.items():
                if each.get_dtype() not in ("F32", "F16", "BF16"):
                    raise ValueError(f"tensor {name[:200]} must be F32, F16 or BF16, got {each.get_dtype()}")
            return build({name: tuple(each.get_shape()) for name, each in found.items()}, opened.get_tensor)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None
