"""Statistics of a folder of latents: statistics.json, {"count": n, "mean": [C], "std": [C]}.

(L1) Of z as it is drawn, over all pictures: of Gaussians of mean m and standard deviation s the mean is that of m, and
     std² = variance of m + mean of s².
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, checked, instance
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import parse_json, read_bounded, require_inside

STATISTICS = "statistics.json"
_MOST_BYTES = 2**20


class Statistics(NamedTuple):
    """Of ``count`` latents the mean and the standard deviation of each channel, [C] float64 each."""

    count: int
    mean: np.ndarray
    std: np.ndarray


class Sums(NamedTuple):
    """Over rows and places: how many numbers a channel has, their mean and the sum of squares about it, [C] each."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of each channel."""
        return np.sqrt(self.squares / self.count)


def sums_of(latent: np.ndarray, deviation: np.ndarray | None = None) -> Sums:
    """The sums of latents [n, H, W, C], or of draws of Gaussians of these means and deviations (L1)."""
    values = np.asarray(latent, np.float64).reshape(-1, latent.shape[-1])
    mean = values.mean(axis=0)
    squares = np.square(values - mean).sum(axis=0)
    if deviation is not None:
        squares += np.square(np.asarray(deviation, np.float64)).reshape(values.shape).sum(axis=0)
    return Sums(len(values), mean, squares)


def merged(parts: Iterable[Sums]) -> Sums:
    """The sums of all rows, by those of their parts (Chan, Golub & LeVeque, 1983)."""
    rest = iter(parts)
    total = next(rest)
    for part in rest:
        count, step = total.count + part.count, part.mean - total.mean
        squares = total.squares + part.squares + np.square(step) * (total.count * part.count / count)
        total = Sums(count, total.mean + step * (part.count / count), squares)
    return total


@checked
def write_statistics(
    folder: PathLike, statistics: Annotated[Statistics, instance(Statistics, "Statistics of latents")]
) -> None:
    """Writes statistics.json into a folder."""
    told = {"count": statistics.count, "mean": statistics.mean.tolist(), "std": statistics.std.tolist()}
    (Path(folder) / STATISTICS).write_text(json.dumps(told) + "\n")


def _numbers(told: dict[str, Any], name: str, least: float) -> np.ndarray:
    values = told[name]
    is_list = isinstance(values, list) and values and all(type(value) in (int, float) for value in values)
    if not is_list or not all(least <= value < 1e38 for value in values):
        raise ValueError(f"{name} must be a list of numbers, one a channel")
    return np.asarray(values, np.float64)


@checked
def read_statistics(folder: PathLike, root: PathLike | None = None) -> Statistics | None:
    """The statistics that a folder of latents tells; None where it tells none.

    Args:
        folder: of latents.
        root: the folder that no link may lead out of; by default the folder itself.

    Raises:
        DataError: a file of another form.
    """
    file = Path(folder) / STATISTICS
    if not file.exists() and not file.is_symlink():
        return None
    try:
        told = parse_json(read_bounded(require_inside(file, Path(folder if root is None else root)), _MOST_BYTES))
        if not isinstance(told, dict) or told.keys() != {"count", "mean", "std"}:
            raise ValueError("it must hold count, mean and std")
        if type(told["count"]) is not int or told["count"] < 1:
            raise ValueError("count must be an integer from 1")
        found = Statistics(told["count"], _numbers(told, "mean", -1e38), _numbers(told, "std", 0))
        if len(found.mean) != len(found.std):
            raise ValueError(f"mean has {len(found.mean)} numbers, std {len(found.std)}")
        return found
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{file} does not read as statistics: {error}") from None
