"""The first samples of a report by guidance scale, kept beside its pictures: a page slides along w by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cfgjax.data import DataError, to_pixels
from cfgjax.data.untrusted.npz import read_npz

NAME = "by_scale.npz"
MOST_RULES, MOST_LABELS, MOST_POINTS, MOST_PIXELS = 8, 16, 128, 2**21
"""Rules of a file, labels of a rule, points of a label, and pixels of all pictures of a rule."""


class ByScale(NamedTuple):
    """Samples of one rule, of the same noise at every scale.

    Attributes:
        title: guidance and solver.
        scales: [W].
        samples: pictures [W, K, height, width, channels] of 1 or 3 channels as bytes, or points [W, K, n, 2].
    """

    title: str
    scales: np.ndarray
    samples: np.ndarray

    @property
    def has_points(self) -> bool:
        """Whether the samples are points, not pictures."""
        return self.samples.ndim == 4


def first(samples: np.ndarray) -> np.ndarray:
    """Of samples [scales, K, n, *D] the first points, or the first picture, of the first labels."""
    if samples.ndim == 4:
        return samples[:, :MOST_LABELS, :MOST_POINTS].astype(np.float32)
    pixels = len(samples) * samples.shape[3] * samples.shape[4]
    count = min(MOST_LABELS, max(1, MOST_PIXELS // pixels))
    return to_pixels(samples[:, :count, 0])


def write(
    out_dir: Path, draws: Mapping[str, np.ndarray], scales: Sequence[Sequence[float]], labels: Sequence[str]
) -> None:
    """Writes the first samples of each rule, [scales, K, n, *D] by title, of those that are pictures or points.

    Args:
        out_dir: the folder to write into.
        draws: the samples of each rule by its title.
        scales: the guidance scales of each rule.
        labels: of their conditions.
    """
    own = [
        (title, samples, its_scales)
        for (title, samples), its_scales in zip(draws.items(), scales, strict=True)
        if samples.ndim == 4 or samples.shape[-1] in (1, 3)
    ][:MOST_RULES]
    arrays: dict[str, np.ndarray] = {}
    for place, (_, samples, its_scales) in enumerate(own):
        arrays |= {f"samples_{place}": first(samples), f"scales_{place}": np.asarray(its_scales, np.float64)}
    if own:
        titles = np.asarray([title for title, _, _ in own])
        np.savez_compressed(out_dir / NAME, titles=titles, labels=np.asarray(labels), allow_pickle=False, **arrays)


def _is_shown(samples: np.ndarray, scales: np.ndarray, most_labels: int) -> bool:
    """Whether the arrays are of the form that is written, and finite."""
    is_picture = samples.ndim == 5 and samples.dtype == np.uint8 and samples.shape[-1] in (1, 3)
    is_point = samples.ndim == 4 and samples.dtype.kind == "f" and samples.shape[2:] <= (MOST_POINTS, 2)
    if not (is_picture or (is_point and samples.shape[-1] == 2)) or 0 in samples.shape:
        return False
    is_small = samples.size <= 4 * MOST_PIXELS and samples.shape[1] <= min(MOST_LABELS, most_labels)
    is_scale = scales.ndim == 1 and scales.dtype.kind == "f" and len(scales) == len(samples)
    return bool(is_small and is_scale and np.all(np.isfinite(scales)) and np.all(np.isfinite(samples)))


def read(file: Path, run_dir: Path) -> tuple[list[str], list[ByScale]]:
    """The labels, and the samples of each rule, in a file of a run's folder.

    Raises:
        DataError: a file of another form.
    """
    names = [f"{name}_{place}" for name in ("samples", "scales") for place in range(MOST_RULES)]
    arrays = read_npz(file, run_dir, ("titles", "labels", *names))
    titles, labels = (arrays.get(name, np.zeros(0)) for name in ("titles", "labels"))
    if not {titles.dtype.kind, labels.dtype.kind} == {"U"} or not titles.ndim == labels.ndim == 1:
        raise DataError(f"{file} holds no samples by guidance scale")
    found = []
    for place, title in enumerate(titles[:MOST_RULES].tolist()):
        samples, scales = arrays.get(f"samples_{place}"), arrays.get(f"scales_{place}")
        if samples is None or scales is None or not _is_shown(samples, scales, len(labels)):
            raise DataError(f"{file} holds no samples by guidance scale of {title}")
        found.append(ByScale(title, scales, samples))
    return [str(label) for label in labels.tolist()], found
