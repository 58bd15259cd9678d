"""Pre-computed latents: a folder of latents.npy [n, H, W, C] and labels.npy [n], mapped, not read, into memory.

Beside them may lie deviations.npy, with which latents.npy holds the means of Gaussians, flipped.npy, the latents of the
mirrored pictures, and of both flipped_deviations.npy, each of the shape of latents.npy; and statistics.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.latent_statistics import Statistics, Sums, merged, sums_of
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npy import open_array
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

_BLOCK = 256
"""Rows that are read at a time for statistics; another number would give other last digits."""


class Views(NamedTuple):
    """What is stored of a picture, or of many: None where nothing is.

    Attributes:
        latent: of the picture, or the mean of its Gaussian.
        deviation: of the Gaussian.
        flipped: as ``latent``, of the mirrored picture.
        flipped_deviation: of its Gaussian.
    """

    latent: Any
    deviation: Any = None
    flipped: Any = None
    flipped_deviation: Any = None


FILES = Views("latents.npy", "deviations.npy", "flipped.npy", "flipped_deviations.npy")
"""Where they are stored."""


class Spread(NamedTuple):
    """The mean and the standard deviation of each channel, [C] float64 each."""

    mean: np.ndarray
    deviation: np.ndarray


def _read(stored: np.ndarray, indices: np.ndarray, name: str) -> np.ndarray:
    """Some rows as float32, in memory."""
    with np.errstate(over="ignore"):
        values = np.asarray(stored[indices], np.float32)
    is_finite = np.isfinite(values).all(axis=(1, 2, 3))
    if not is_finite.all():
        raise DataError(f"row {int(np.asarray(indices)[~is_finite][0])} of {name} is not finite in float32")
    if "deviations" in name and (is_negative := (values < 0).any(axis=(1, 2, 3))).any():
        raise DataError(f"row {int(np.asarray(indices)[is_negative][0])} of {name} has a negative deviation")
    return values


class Latents(NamedTuple):
    """Labelled latents on disk: [n, H, W, C] of a floating type, as ``Views``, and ``label`` [n] integers."""

    latent: np.ndarray
    label: np.ndarray
    deviation: np.ndarray | None = None
    flipped: np.ndarray | None = None
    flipped_deviation: np.ndarray | None = None

    @property
    def stored(self) -> Views:
        """All that is stored."""
        return Views(self.latent, self.deviation, self.flipped, self.flipped_deviation)

    def rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some latents, or means, as float32 and their labels as int32, in memory.

        Raises:
            DataError: a latent that is not finite, by its row.
        """
        return _read(self.latent, indices, FILES.latent), np.asarray(self.label[indices], np.int32)

    def views(self, indices: np.ndarray) -> tuple[Views, np.ndarray]:
        """All that is stored of some pictures as float32 and their labels as int32, in memory.

        Raises:
            DataError: numbers that are not finite, or deviations below 0, by their row.
        """
        found = [
            None if stored is None else _read(stored, indices, name)
            for stored, name in zip(self.stored, FILES, strict=True)
        ]
        return Views(*found), np.asarray(self.label[indices], np.int32)

    def _sums(self, indices: np.ndarray) -> Sums:
        """Of what is drawn of some pictures."""
        views, _ = self.views(indices)
        straight = sums_of(views.latent, views.deviation)
        return (
            straight if views.flipped is None else merged([straight, sums_of(views.flipped, views.flipped_deviation)])
        )

    @checked
    def spread(self, most_rows: PositiveInt = 1024) -> Spread:
        """The spread of what is drawn, of at most so many pictures at random places, the same at each call.

        Raises:
            DataError: as ``views``.
        """
        count = len(self.label)
        sums = self._sums(np.sort(np.random.default_rng(0).choice(count, min(count, most_rows), replace=False)))
        return Spread(sums.mean, sums.std)

    def statistics(self) -> Statistics:
        """The statistics of what is drawn of all pictures, read a block at a time.

        Raises:
            DataError: as ``views``.
        """
        count = len(self.label)
        sums = merged(self._sums(np.arange(start, min(start + _BLOCK, count))) for start in range(0, count, _BLOCK))
        return Statistics(count, sums.mean, sums.std)


def require_floats(where: str, dtype: np.dtype) -> None:
    """Raises DataError for numbers of latents that are of no floating type."""
    if dtype.kind == "V":
        raise DataError(
            f"{where} is of type {dtype.str}, which does not say its numbers, as NumPy writes bfloat16 "
            "and float8: save array.view(ml_dtypes.bfloat16).astype(np.float32)"
        )
    if not np.issubdtype(dtype, np.floating):
        raise DataError(f"{where} must be of a floating type, got {dtype}: save array.astype(np.float32)")


def require_labels(where: str, label: np.ndarray, count: int) -> None:
    """Raises DataError for labels that are not one integer for each of ``count`` latents; their values are not read."""
    if not np.issubdtype(label.dtype, np.integer):
        raise DataError(f"{where} must be integers, got type {label.dtype}: save labels.astype(np.int64)")
    if label.shape != (count,):
        mend = ""
        if label.ndim == 2 and len(label) == count:
            mend = ": save labels[:, 0]" if label.shape[1] == 1 else ": save labels.argmax(axis=1) if they are one-hot"
        raise DataError(f"{where} must be ({count},) integers, got {label.shape}{mend}")


def _opened(folder: Path, root: Path) -> Views:
    """The arrays that are there, of one shape."""
    is_there = lambda name: (folder / name).exists() or (folder / name).is_symlink()  # noqa: E731
    arrays = [open_array(folder / name, root) if name == FILES.latent or is_there(name) else None for name in FILES]
    latent = arrays[0]
    for name, array in zip(FILES, arrays, strict=True):
        if array is not None:
            require_floats(f"{folder}/{name}", array.dtype)
        if array is not None and latent is not None and latent.ndim == 4 and array.shape != latent.shape:
            raise DataError(f"{folder}/{name} has shape {array.shape}, latents.npy {latent.shape}")
    found = Views(*arrays)
    needs = found.deviation is not None and found.flipped is not None
    if needs != (found.flipped_deviation is not None):
        what = "is missing beside" if needs else "needs"
        raise DataError(f"{folder}/{FILES.flipped_deviation} {what} {FILES.deviation} and {FILES.flipped}")
    return found


@checked
def open_latents(folder: PathLike, root: PathLike | None = None) -> Latents:
    """The latents in a folder.

    Args:
        folder: of latents.npy and labels.npy, and of what may lie beside them.
        root: the folder that no link may lead out of; by default the folder itself.

    Raises:
        DataError: files that are missing, empty, of other types, of different lengths, or that lie elsewhere.
    """
    folder, root = Path(folder), Path(folder if root is None else root)
    found, label = _opened(folder, root), open_array(folder / "labels.npy", root)
    latent: np.ndarray = found.latent
    if latent.ndim != 4:
        raise DataError(f"{folder}/latents.npy must be [n, H, W, C], got shape {latent.shape}")
    require_labels(f"{folder}/labels.npy", label, len(latent))
    if len(label) > MOST_EXAMPLES:
        raise DataError(f"{folder} holds {len(label)} latents, more than {MOST_EXAMPLES}")
    return Latents(latent, label, found.deviation, found.flipped, found.flipped_deviation)
