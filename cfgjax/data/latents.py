"""Pre-computed latents: a folder of latents.npy [n, H, W, C] and labels.npy [n], mapped, not read, into memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import require_file, require_inside
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

_MOST_HEADER = 10_000
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Spread(NamedTuple):
    """The mean and the standard deviation of each channel, [C] float64 each."""

    mean: np.ndarray
    deviation: np.ndarray


class Latents(NamedTuple):
    """Labelled latents: ``latent`` [n, H, W, C] of a floating type, ``label`` [n] integers, both on disk."""

    latent: np.ndarray
    label: np.ndarray

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some latents as float32 and their labels as int32, in memory.

        Raises:
            DataError: a latent that is not finite, by its row.
        """
        with np.errstate(over="ignore"):
            latent = np.asarray(self.latent[indices], np.float32)
        is_finite = np.isfinite(latent).all(axis=(1, 2, 3))
        if not is_finite.all():
            raise DataError(f"row {int(np.asarray(indices)[~is_finite][0])} of latents.npy is not finite in float32")
        return latent, np.asarray(self.label[indices], np.int32)

    @checked
    def spread(self, most_rows: PositiveInt = 1024) -> Spread:
        """The spread of the latents, of at most so many at random places, the same at each call.

        Raises:
            DataError: a latent that is not finite, by its row.
        """
        count = len(self.label)
        chosen = np.sort(np.random.default_rng(0).choice(count, min(count, most_rows), replace=False))
        latent = self.rows(chosen)[0].astype(np.float64)
        return Spread(latent.mean(axis=(0, 1, 2)), latent.std(axis=(0, 1, 2)))


def _header(file: Path) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether the first axis runs fastest, type, and where the numbers begin.

    Raises:
        ValueError: another kind of file, an archive or a pickle among them; or a header of more than 10,000 bytes.
    """
    with file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _READERS:
            raise ValueError(f"it is of version {version}, not 1.0 or 2.0")
        start = stream.tell()
        num_bytes = int.from_bytes(stream.read(2 * version[0]), "little")
        if num_bytes > _MOST_HEADER:
            raise ValueError(f"its header has {num_bytes} bytes, more than {_MOST_HEADER}")
        stream.seek(start)
        shape, is_fortran, dtype = _READERS[version](stream, max_header_size=_MOST_HEADER)
        return shape, is_fortran, dtype, stream.tell()


def _open(file: Path, root: Path) -> np.ndarray:
    try:
        shape, is_fortran, dtype, start = _header(require_file(require_inside(file, root)))
        if dtype.hasobject or dtype.names or any(type(length) is not int or length < 0 for length in shape):
            raise ValueError(f"it is of type {dtype} and shape {shape}, no array of numbers")
        found, promised = file.stat().st_size - start, math.prod(shape) * dtype.itemsize
        if found != promised:
            raise ValueError(f"it holds {found} bytes of numbers, not the {promised} of its shape {shape}")
        if promised == 0:
            raise ValueError("it is empty")
        return np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C")
    except DataError as error:
        raise DataError(f"{file} does not read as an array: {error}") from None
    except Exception as error:  # NumPy reads a header as Python's literals, whose errors are of many types
        raise DataError(
            f"{file} does not read as an array: {(str(error).splitlines() or ['empty'])[0][:300]}"
        ) from None


def _require_types(folder: Path, latent: np.dtype, label: np.dtype) -> None:
    if latent.kind == "V":
        raise DataError(
            f"{folder}/latents.npy is of type {latent.str}, which does not say its numbers, as NumPy writes bfloat16 "
            "and float8: save array.astype(np.float32)"
        )
    if not np.issubdtype(latent, np.floating):
        raise DataError(f"{folder}/latents.npy must be of a floating type, got {latent}: save array.astype(np.float32)")
    if not np.issubdtype(label, np.integer):
        raise DataError(f"{folder}/labels.npy must be integers, got type {label}: save labels.astype(np.int64)")


@checked
def open_latents(folder: PathLike, root: PathLike | None = None) -> Latents:
    """The latents in a folder.

    Args:
        folder: of latents.npy and labels.npy.
        root: the folder that no link may lead out of; by default the folder itself.

    Raises:
        DataError: files that are missing, empty, of other types, of different lengths, or that lie elsewhere.
    """
    folder, root = Path(folder), Path(folder if root is None else root)
    latent, label = _open(folder / "latents.npy", root), _open(folder / "labels.npy", root)
    _require_types(folder, latent.dtype, label.dtype)
    if latent.ndim != 4:
        raise DataError(f"{folder}/latents.npy must be [n, H, W, C], got shape {latent.shape}")
    if label.shape != latent.shape[:1]:
        raise DataError(f"{folder}/labels.npy must be {latent.shape[:1]} integers, got {label.shape}")
    if len(label) > MOST_EXAMPLES:
        raise DataError(f"{folder} holds {len(label)} latents, more than {MOST_EXAMPLES}")
    return Latents(latent, label)
