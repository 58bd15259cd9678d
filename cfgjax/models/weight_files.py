"""What holds weights in another form than a safetensors file of published names: told by first bytes and by names.

Nothing is unpickled or unpacked: a file is data, and never code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

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
        return "the folder of a diffusers model"
    return "a folder, not a file"


def _other_names(names: Iterable[str]) -> str | None:
    """Whose names these are, if tensors of known other ones are among them."""
    known = sorted(names)
    starts = [name.removesuffix("x_embedder.proj.weight") for name in known if name.endswith(".x_embedder.proj.weight")]
    if starts:
        return f"its names begin with {starts[0][:100]!r}, which the published ones do not"
    if any(name.startswith("transformer_blocks.") for name in known):
        return "its names (transformer_blocks...) are those of diffusers, not the published ones"
    if any(name.startswith("projectors.") for name in known):
        return "its projectors are those of REPA, whose time runs the other way: without them the field would be wrong"
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
