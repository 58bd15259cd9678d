"""Reference batches of FID in a .npz file, as ADM's evaluator and pytorch-fid write them.

``mu`` [2048] and ``sigma`` [2048, 2048] are mean and covariance of the features of real pictures, ``mu_s`` and
``sigma_s`` those of the spatial ones (2023); ``arr_0`` [n, H, W, 3] of uint8 are the pictures themselves, which here
may have one channel, too.

Source: guided-diffusion, evaluations/evaluator.py; pytorch-fid, fid_score.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npz import read_npz, stream_npz
from cfgjax.data.untrusted.safe_files import require_file

PICTURES = "arr_0"
_STATISTICS = (("mu", "sigma"), ("mu_s", "sigma_s"))
_PICKLE = b"\x80"
"""With which a pickle begins."""


class FIDReference(NamedTuple):
    """What a file tells of real pictures: (mean [d], covariance [d, d]) of each kind of features, None where untold."""

    pool: tuple[np.ndarray, np.ndarray] | None
    spatial: tuple[np.ndarray, np.ndarray] | None


def _require_no_pickle(file: Path) -> None:
    with require_file(file).open("rb") as stream:
        if stream.read(1) == _PICKLE:
            where = "docs/published_weights.md says how to rewrite it"
            raise DataError(f"{file} is a pickle, as EDM2's references are, and is not read; {where}")


def _pair(file: Path, found: dict[str, np.ndarray], names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and covariance by these names."""
    there = [name for name in names if name in found]
    if not there:
        return None
    if len(there) == 1:
        raise DataError(f"{file} has an array {there[0]!r} without the other of {names[0]!r} and {names[1]!r}")
    mean, covariance = (found[name] for name in names)
    size = mean.size
    if mean.ndim != 1 or covariance.shape != (size, size) or not size:
        shapes = f"{mean.shape} and {covariance.shape}"
        raise DataError(f"{file}: arrays {names[0]!r} and {names[1]!r} must be [d] and [d, d], got {shapes}")
    for name, array in zip(names, (mean, covariance), strict=True):
        if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
            raise DataError(f"{file}: array {name!r} must hold finite floating-point numbers, got {array.dtype}")
    return mean.astype(np.float64), covariance.astype(np.float64)


@checked
def read_fid_reference(file: PathLike) -> FIDReference:
    """The statistics in a file.

    Args:
        file: .npz.

    Raises:
        DataError: another kind of file, a pickle among them; an array of another shape or type, or not finite, or
            without its partner.
    """
    file = Path(file)
    _require_no_pickle(file)
    found = read_npz(file, file.parent, {name for names in _STATISTICS for name in names})
    return FIDReference(*(_pair(file, found, names) for names in _STATISTICS))


@checked
def stream_pictures(file: PathLike, num_rows: PositiveInt) -> Iterator[np.ndarray]:
    """The pictures in a file, uint8 [n, H, W, C], n being ``num_rows`` but for the last ones.

    Args:
        file: .npz; no more than a part of its pictures is in memory.
        num_rows: n.

    Raises:
        DataError: another kind of file, a pickle among them; no pictures in it; when a part is asked for, also where
            they are cut off.
    """
    file = Path(file)
    _require_no_pickle(file)
    rows = stream_npz(file, file.parent, PICTURES, num_rows)
    if rows.dtype != np.uint8 or len(rows.shape) != 4 or rows.shape[-1] not in (1, 3) or 0 in rows.shape:
        wanted = "uint8 [n, H, W, C] with 1 or 3 channels"
        raise DataError(f"{file}: array {PICTURES!r} must be {wanted}, got {rows.dtype} {rows.shape}")
    return rows.parts
