"""Pre-computed latents: a folder of latents.npy [n, H, W, C] and labels.npy [n], mapped, not read, into memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfgjax.data.errors import DataError


class Latents(NamedTuple):
    """Labelled latents: ``latent`` [n, H, W, C] of a floating type, ``label`` [n] whole numbers, both on disk."""

    latent: np.ndarray
    label: np.ndarray


def _open(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} does not read as an array: {(str(error).splitlines() or ['empty'])[0]}") from None


def open_latents(folder: Path) -> Latents:
    """The latents in a folder.

    Raises:
        DataError: files that are missing, of other types, or of different lengths.
    """
    latent, label = _open(Path(folder) / "latents.npy"), _open(Path(folder) / "labels.npy")
    if latent.ndim != 4 or not np.issubdtype(latent.dtype, np.floating):
        raise DataError(f"{folder}/latents.npy must be [n, H, W, C] of a floating type, got {latent.shape}")
    if label.shape != latent.shape[:1] or not np.issubdtype(label.dtype, np.integer):
        raise DataError(f"{folder}/labels.npy must be {latent.shape[:1]} whole numbers, got {label.shape}")
    return Latents(latent, label)
