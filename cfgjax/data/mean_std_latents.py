"""Means and deviations, a file for each picture: 00000/img-mean-std-00000000.npy and dataset.json, as two projects do.

REPA (github.com/sihyun-yu/REPA) and EDM2 (github.com/NVlabs/edm2) give their files one name, type and shape, float32
[2C, H, W]; REPA encodes pictures on [-1, 1], EDM2 on [0, 1], so that the numbers differ. They are told apart by
``conclude``, by the means of the four channels of Stable Diffusion's encoder over ImageNet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from cfgjax.data.latent_source import BLOCK, LatentSource, as_latents, labels_of, require_count, require_deviations
from cfgjax.data.latents import Views
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.members import Members
from cfgjax.data.untrusted.npy import array_of, read_header
from cfgjax.data.untrusted.safe_files import parse_json

Kind = Literal["repa", "edm2"]
NAME = re.compile(r"(?:\d+/)?img-mean-std-\d+\.npy")
LABELS = "dataset.json"
RANGES = {"repa": "[-1, 1]", "edm2": "[0, 1]"}
"""Of the pictures that were encoded."""
MEANS = {"repa": (0.865, -0.278, 0.216, 0.374), "edm2": (5.81, 3.25, 0.12, -2.15)}
"""Over ImageNet, by channel: as improved MeanFlow (github.com/Lyy-iiis/imeanflow) and EDM2 tell them."""
STDS = {"repa": (4.855, 5.319, 3.937, 3.987), "edm2": (4.17, 4.62, 3.71, 3.28)}
NEAR = 0.25
"""Standard deviations, in the mean square over channels, within which measured means are taken for known ones."""
_SAMPLED = 512
_MOST_BYTES, _MOST_LABELS = 2**26, 2**28


def _array(members: Members, name: str) -> np.ndarray:
    """Means and deviations of a picture, [2C, H, W]."""
    stream = io.BytesIO(members.read(name, _MOST_BYTES))
    try:
        found = array_of(read_header(stream), stream.read())
    except Exception as error:  # NumPy reads a header as Python's literals, whose errors are of many types
        reason = (str(error).splitlines() or ["empty"])[0][:300]
        raise DataError(f"{members.shown(name)} does not read as an array: {reason}") from None
    if found.ndim != 3 or len(found) % 2 or found.size == 0:
        raise DataError(f"{members.shown(name)} must be [2C, H, W], means and deviations, got {found.shape}")
    return found


def _views(members: Members, names: list[str], shape: tuple[int, ...]) -> Views:
    rows = []
    for name in names:
        found = _array(members, name)
        if found.shape != shape:
            raise DataError(f"{members.shown(name)} has shape {found.shape}, the first file {shape}")
        rows.append(as_latents(members.shown(name), found[np.newaxis], "nchw", None))
        require_deviations(members.shown(name), rows[-1][..., shape[0] // 2 :])
    mean, deviation = np.split(np.concatenate(rows), 2, axis=-1)
    return Views(mean, deviation)


def _pairs(members: Members) -> list[tuple[str, int]] | None:
    """The pairs of file and label; None where there are no labels."""
    where = members.shown(LABELS)
    try:
        told = parse_json(members.read(LABELS, _MOST_LABELS))
    except ValueError as error:
        raise DataError(f"{where} does not read: {error}") from None
    if not isinstance(told, dict) or "labels" not in told:
        raise DataError(f'{where} must hold {{"labels": [[file, label], ...]}}')
    labels = told["labels"]
    if labels is None:
        return None
    if not isinstance(labels, list):
        raise DataError(f"{where}: labels must be a list of [file, label], got {type(labels).__name__}")
    for row, pair in enumerate(labels):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise DataError(f"{where}: row {row} of labels must be [file, label]")
        if type(pair[1]) is not int:
            mend = ": write int(label)" if isinstance(pair[1], float) else ""
            raise DataError(f"{where}: the label of {pair[0][:200]!r} must be an integer, got {pair[1]!r:.100}{mend}")
    return [(name.replace("\\", "/"), label) for name, label in labels]


def _labels(members: Members, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The label of each file, and what is to be told."""
    if LABELS not in members.names:
        raise DataError(f"{members.place} has no {LABELS}, which tells the labels")
    pairs = _pairs(members)
    if pairs is None:
        return np.zeros(len(names), np.int64), (f"{LABELS} tells no labels: every latent has label 0",)
    label_of = dict(pairs)
    if len(label_of) < len(pairs):
        raise DataError(f"{members.shown(LABELS)} names a file twice")
    where = members.shown(LABELS)
    missing = [name for name in names if name not in label_of]
    if missing:
        raise DataError(f"{where} has no label of {missing[0]!r}, and of {len(missing) - 1} others")
    if len(label_of) > len(names):
        there = set(names)
        absent = [name for name in label_of if name not in there]
        raise DataError(f"{where} has a label of {absent[0][:200]!r}, which is not there, nor {len(absent) - 1} others")
    return labels_of(where, [np.array([label_of[name] for name in names])]), ()


def _distances(mean: np.ndarray) -> dict[str, float]:
    """How far measured means are from known ones, in the root mean square of their standard deviations."""
    return {
        kind: float(np.sqrt(np.mean(np.square((mean - np.array(MEANS[kind])) / np.array(STDS[kind])))))
        for kind in MEANS
    }


def conclude(mean: np.ndarray) -> tuple[Kind | None, str]:
    """Which of two projects wrote latents of these means by channel, None where that cannot be told; and by what.

    >>> conclude(np.array([5.7, 3.3, 0.1, -2.2]))[0], conclude(np.array([3.3, 1.5, 0.2, -0.9]))[0]
    ('edm2', None)
    """
    measured = ", ".join(f"{value:.2f}" for value in mean[:8])
    if len(mean) != len(MEANS["repa"]):
        return None, f"there are {len(mean)} channels, and known figures of 4"
    distances = _distances(mean)
    known = "; ".join(
        f"{distances[kind]:.2f} standard deviations from those of {kind} ({', '.join(map(str, MEANS[kind]))})"
        for kind in MEANS
    )
    near = [kind for kind, distance in distances.items() if distance <= NEAR]
    found: Kind | None = None if len(near) != 1 else "repa" if near == ["repa"] else "edm2"
    return found, f"their means by channel {measured} are {known}"


def _told(members: Members, names: list[str], shape: tuple[int, ...], kind: Kind | None) -> str:
    """By whom the latents are, and how that is known.

    Raises:
        DataError: it is not known.
    """
    if kind is not None:
        return f"latents of kind {kind}, as told: of pictures in {RANGES[kind]}"
    rows = np.unique(np.linspace(0, len(names) - 1, min(len(names), _SAMPLED)).round().astype(np.int64))
    views = _views(members, [names[row] for row in rows], shape)
    found, reason = conclude(views.latent.mean(axis=(0, 1, 2), dtype=np.float64))
    if found is None:
        raise DataError(
            f"{members.place} may be of REPA, of pictures in [-1, 1], or of EDM2, in [0, 1]: {reason}; say it by "
            "--kind repa or --kind edm2"
        )
    return f"latents of kind {found}, of pictures in {RANGES[found]}: {reason}"


def is_there(place: Path) -> bool:
    """Whether a folder, or a zip, looks like one of such files."""
    if place.is_dir():
        return any(place.glob("img-mean-std-*.npy")) or any(place.glob("[0-9]*/img-mean-std-*.npy"))
    return any(NAME.fullmatch(name) for name in Members(place).names)


def read(place: Path, kind: Kind | None) -> LatentSource:
    """The latents in a folder or a zip.

    Raises:
        DataError: other files, files of other shapes or without a label, or a kind that is not known.
    """
    members = Members(place)
    names = [name for name in members.names if NAME.fullmatch(name)]
    others = [name for name in members.names if name != LABELS and not NAME.fullmatch(name)]
    if others:
        raise DataError(f"{place} holds {others[0][:200]!r}, which is neither {LABELS} nor 00000/img-mean-std-0.npy")
    require_count(str(place), len(names))
    label, remarks = _labels(members, names)
    shape = _array(members, names[0]).shape
    told = _told(members, names, shape, kind)

    def blocks() -> Iterator[Views]:
        for start in range(0, len(names), BLOCK):
            yield _views(members, names[start : start + BLOCK], shape)

    return LatentSource(len(names), label, blocks, (told, *remarks))
