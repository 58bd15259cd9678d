"""Latents in NumPy's files: an .npz of latents and labels, two .npy beside each other, or two for each picture.

The last as fast-DiT (github.com/chuanyangjin/fast-DiT) writes them: imagenet256_features/0.npy [1, C, H, W], scaled
already, and imagenet256_labels/0.npy [1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cfgjax.data.latent_source import BLOCK, Axes, LatentSource, as_latents, labels_of, require_count
from cfgjax.data.latents import FILES, Views, require_floats, require_labels
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npy import open_array
from cfgjax.data.untrusted.npz import names_in_npz, read_npz, stream_npz

LATENTS, LABELS = ("latents", "x", "arr_0"), ("labels", "y")


def _axes_of(where: str, shape: tuple[int, ...], axes: Axes | None) -> tuple[Axes, str]:
    """The order of the axes, as told, or as the shape has it, and what is to be told of it.

    Raises:
        DataError: they look like channels first, and nothing is told.
    """
    if len(shape) != 4 or 0 in shape:
        raise DataError(f"{where} must be [n, H, W, C] or [n, C, H, W], got shape {shape}")
    if axes is not None:
        return axes, f"axes {axes}, as told"
    if shape[1] < shape[2] == shape[3]:
        raise DataError(f"{where} has shape {shape}, which looks like [n, C, H, W]: give --axes nchw, or else nhwc")
    doubt = "; three equal sides do not tell" if shape[1] == shape[2] == shape[3] else ""
    return "nhwc", f"axes taken for [n, H, W, C]{doubt}: --axes nchw if they are [n, C, H, W]"


def _source(
    where: str, shape: tuple[int, ...], label: np.ndarray, axes: Axes | None, rows: Callable[[], Iterator[np.ndarray]]
) -> LatentSource:
    """The latents of arrays that come a block at a time."""
    order, told = _axes_of(where, shape, axes)
    require_labels(f"labels of {where}", label, shape[0])
    require_count(where, shape[0])

    def blocks() -> Iterator[Views]:
        start = 0
        for block in rows():
            yield Views(as_latents(where, block, order, start))
            start += len(block)

    return LatentSource(shape[0], labels_of(f"labels of {where}", [label]), blocks, (told,))


def is_archive(file: Path) -> bool:
    """Whether an .npz has an array of a name of latents.

    Raises:
        DataError: it does not read.
    """
    return not names_in_npz(file, file.parent).isdisjoint(LATENTS)


def _named(file: Path) -> tuple[str, str]:
    """The names of latents and labels in an .npz."""
    names = names_in_npz(file, file.parent)
    latents, labels = ([name for name in known if name in names] for known in (LATENTS, LABELS))
    if len(latents) != 1 or len(labels) != 1:
        raise DataError(
            f"{file} must hold latents as {', '.join(LATENTS[:-1])} or {LATENTS[-1]}, and labels as "
            f"{' or '.join(LABELS)}, one of each; it holds {', '.join(sorted(names))[:200] or 'nothing'}"
        )
    return latents[0], labels[0]


def read_archive(file: Path, axes: Axes | None) -> LatentSource:
    """The latents of an .npz.

    Raises:
        DataError: an .npz without one array of each, or whose arrays do not read or do not fit each other.
    """
    latents, labels = _named(file)
    found = stream_npz(file, file.parent, latents, BLOCK)
    where = f"array {latents!r} of {file}"
    if found.dtype == np.uint8:
        raise DataError(
            f"{where} is of uint8, as pictures are, which are read as SOURCE/CLASS/0.png; latents are floats"
        )
    require_floats(where, found.dtype)
    label = read_npz(file, file.parent, {labels})[labels]
    return _source(where, found.shape, label, axes, lambda: stream_npz(file, file.parent, latents, BLOCK).parts)


def pair_in(place: Path) -> tuple[Path, Path] | None:
    """The two files of latents and labels in a folder; None where there are none."""
    latents = [file for name in LATENTS[:2] if (file := place / f"{name}.npy").exists()]
    labels = [file for name in LABELS if (file := place / f"{name}.npy").exists()]
    return (latents[0], labels[0]) if latents and labels else None


def read_pair(latents: Path, labels: Path, axes: Axes | None) -> LatentSource:
    """The latents of two .npy.

    Raises:
        DataError: files that do not read, or do not fit each other, or lie in a folder of ours.
    """
    others = [name for name in FILES[1:] if latents.with_name(name).exists()]
    if others:
        raise DataError(
            f"{latents.parent} holds {others[0]}, too, as folders that need no preparation do: put it among the "
            "prepared data sets as it is"
        )
    array, label = open_array(latents, latents.parent), open_array(labels, labels.parent)
    require_floats(str(latents), array.dtype)
    starts = range(0, len(array) if array.ndim else 0, BLOCK)
    return _source(str(latents), array.shape, label, axes, lambda: (array[start : start + BLOCK] for start in starts))


def folders_of_pairs(place: Path) -> tuple[Path, Path] | None:
    """The folders NAME_features and NAME_labels of a file for each picture; None where there are none."""
    found = [folder for folder in sorted(place.glob("*_features")) if folder.is_dir()]
    pairs = [(folder, folder.with_name(folder.name.removesuffix("features") + "labels")) for folder in found]
    return next((pair for pair in pairs if pair[1].is_dir()), None)


def _one(file: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """The array of a picture, [1, ...]."""
    found = open_array(file, file.parent)
    if len(found) != 1 or (shape is not None and found.shape != shape):
        raise DataError(f"{file} must be of shape {shape or '[1, ...]'}, got {found.shape}")
    return found


def read_pairs(features: Path, labels: Path) -> LatentSource:
    """The latents of two files for each picture, in the order of their numbers.

    Raises:
        DataError: files that do not read, or a picture without a label.
    """
    names = sorted((file.stem for file in features.glob("*.npy") if file.stem.isdecimal()), key=int)
    require_count(str(features), len(names))
    label = []
    for name in names:
        its = _one(labels / f"{name}.npy", (1,))
        require_labels(str(labels / f"{name}.npy"), its, 1)
        label.append(np.asarray(its))
    shape = _one(features / f"{names[0]}.npy", None).shape
    if len(shape) != 4:
        raise DataError(f"{features / names[0]}.npy must be [1, C, H, W], got {shape}")

    def blocks() -> Iterator[Views]:
        for start in range(0, len(names), BLOCK):
            files = [features / f"{name}.npy" for name in names[start : start + BLOCK]]
            yield Views(np.concatenate([as_latents(str(file), _one(file, shape), "nchw", None) for file in files]))

    told = "a file for each picture, as fast-DiT writes them: one draw each, times 0.18215 already"
    return LatentSource(len(names), labels_of(str(labels), label), blocks, (told,))
