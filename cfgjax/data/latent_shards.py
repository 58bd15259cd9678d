"""Latents in .safetensors shards: latents [n, C, H, W], labels [n], and latents_flip of the mirrored pictures.

As LightningDiT (github.com/hustvl/LightningDiT) writes them, latents_rank00_shard000.safetensors and so on; the shards
are read in the order of their names, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax.data.latent_source import BLOCK, LatentSource, as_latents, labels_of, require_count
from cfgjax.data.latents import Views, require_labels
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import require_file, require_inside

LATENTS, FLIPPED, LABELS = "latents", "latents_flip", "labels"
_FLOATS, _INTEGERS = {"F16", "BF16", "F32", "F64"}, {"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
PICKLED = "latents_stats.pt is a pickle, which is never read: the statistics are computed from the latents"


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import safetensors
    except ImportError:
        raise DataError("reading .safetensors needs safetensors: python -m pip install 'cfgjax[safetensors]'") from None
    try:
        with safetensors.safe_open(require_file(require_inside(file, file.parent)), framework="np") as opened:
            yield opened
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{file} does not read: {' '.join(str(error).split())[:300]}") from None


def _shape_of(file: Path, opened: Any, name: str, types: set[str]) -> tuple[int, ...]:
    """The shape of a tensor, once its type is found to be allowed."""
    tensor = opened.get_slice(name)
    if tensor.get_dtype() not in types:
        what, cast = ("floating", "float()") if types is _FLOATS else ("integer", "long()")
        raise DataError(
            f"{file}: {name} must be of {'a' if types is _FLOATS else 'an'} {what} type, got {tensor.get_dtype()}: "
            f"save {name}.{cast}"
        )
    return tuple(tensor.get_shape())


def _look(file: Path) -> tuple[tuple[int, ...], bool, np.ndarray]:
    """The shape of a shard's latents, whether it has those of mirrored pictures, and its labels."""
    with _opened(file) as opened:
        names = set(opened.keys())
        missing = {LATENTS, LABELS} - names
        if missing:
            raise DataError(f"{file} has no tensor {min(missing)!r}, only {', '.join(sorted(names))[:300] or 'none'}")
        shape = _shape_of(file, opened, LATENTS, _FLOATS)
        if len(shape) != 4:
            raise DataError(f"{file}: {LATENTS} must be [n, C, H, W], got {shape}")
        if 0 in shape:
            raise DataError(f"{file} holds no latents: its shape is {shape}")
        if FLIPPED in names and (its := _shape_of(file, opened, FLIPPED, _FLOATS)) != shape:
            raise DataError(f"{file}: {FLIPPED} has shape {its}, {LATENTS} {shape}")
        _shape_of(file, opened, LABELS, _INTEGERS)
        label = opened.get_tensor(LABELS)
    require_labels(f"{file}: {LABELS}", label, shape[0])
    return shape, FLIPPED in names, label


def _blocks(file: Path, count: int, is_flipped: bool) -> Iterator[Views]:
    with _opened(file) as opened:
        tensors = {name: opened.get_slice(name) for name in [LATENTS, FLIPPED][: 1 + is_flipped]}
        for start in range(0, count, BLOCK):
            found = [
                as_latents(f"{file}: {name}", tensor[start : min(start + BLOCK, count)], "nchw", start)
                for name, tensor in tensors.items()
            ]
            yield Views(found[0], None, *found[1:])


def shards_of(place: Path) -> list[Path]:
    """The shards in a folder, in order; or the file itself."""
    return [place] if place.is_file() else sorted(place.glob("*.safetensors"))


def read(place: Path) -> LatentSource:
    """The latents of one shard, or of a folder of them.

    Raises:
        DataError: shards that do not read, are empty, or do not fit each other.
    """
    files = shards_of(place)
    looks = [_look(file) for file in files]
    for file, (shape, is_flipped, _) in zip(files, looks, strict=True):
        if shape[1:] != looks[0][0][1:]:
            raise DataError(f"{file}: {LATENTS} has shape {shape}, those of {files[0].name} {looks[0][0]}")
        if is_flipped != looks[0][1]:
            one, other = (file, files[0]) if is_flipped else (files[0], file)
            raise DataError(f"{one} has {FLIPPED}, and {other.name} has none")
    count = sum(shape[0] for shape, _, _ in looks)
    require_count(str(place), count)

    def blocks() -> Iterator[Views]:
        for file, (shape, is_flipped, _) in zip(files, looks, strict=True):
            yield from _blocks(file, shape[0], is_flipped)

    label = labels_of(f"{place}: {LABELS}", [label for _, _, label in looks])
    remarks = [f"{len(files)} shards{', with latents of the mirrored pictures' if looks[0][1] else ''}"]
    remarks += [PICKLED] if (place / "latents_stats.pt").exists() else []
    return LatentSource(count, label, blocks, tuple(remarks))
