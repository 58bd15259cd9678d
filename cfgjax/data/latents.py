"""Pre-computed latents: a folder of latents.npy [n, H, W, C] and labels.npy [n], mapped, not read, into memory."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.latent_statistics import Statistics, merged, sums_of
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npy import open_array
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

_BLOCK = 256
"""Rows that are read at a time; another number would give other last digits."""


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

    def statistics(self) -> Statistics:
        """The statistics of all latents, read a block at a time.

        Raises:
            DataError: a latent that is not finite, by its row.
        """
        blocks = (np.arange(start, min(start + _BLOCK, len(self.label))) for start in range(0, len(self.label), _BLOCK))
        return merged(sums_of(self.rows(block)[0]) for block in blocks).statistics


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
    latent, label = open_array(folder / "latents.npy", root), open_array(folder / "labels.npy", root)
    _require_types(folder, latent.dtype, label.dtype)
    if latent.ndim != 4:
        raise DataError(f"{folder}/latents.npy must be [n, H, W, C], got shape {latent.shape}")
    if label.shape != latent.shape[:1]:
        raise DataError(f"{folder}/labels.npy must be {latent.shape[:1]} integers, got {label.shape}")
    if len(label) > MOST_EXAMPLES:
        raise DataError(f"{folder} holds {len(label)} latents, more than {MOST_EXAMPLES}")
    return Latents(latent, label)
