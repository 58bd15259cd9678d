"""Frechet distances in the space of a network whose weights the user names: FID, sFID, or one of his own.

Figures are called FID where the network is FID's Inception alone. Samples become 8-bit pictures first. What they are
compared with are the run's training pictures, or a file of statistics or pictures.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import data, metrics
from experiments.cli.main import UserError
from experiments.evaluation.feature_classifier import Features
from experiments.evaluation.fidelity import checked
from experiments.runtime import distributed, progress

NUM_QUOTED = 50_000
"""Samples of which published figures are."""
_PART = 1_000
"""Pictures that are read together."""

Spaces = Mapping[str, Callable[[np.ndarray], Mapping[str, np.ndarray]]]
"""A convention, empty where there is one alone -> (pictures uint8 [n, H, W, 3] -> a figure's name -> [n, d])."""
Law = tuple[np.ndarray, np.ndarray]
"""Mean and covariance."""


def of_user(build: Callable[[Path], Features], weights: Path) -> Spaces:
    """The space of a function of the user's own: (file of weights) -> (pictures uint8 [n, H, W, 3] -> [n, d])."""
    features = build(weights)
    if not callable(features):
        raise UserError(f"features must give a function of pictures for {weights}, got {type(features).__name__}")
    chosen = checked(features)
    return {"": lambda pictures: {"fd": chosen(pictures)}}


def sha256_of(file: Path) -> str:
    """The file's SHA-256, by which others can tell that it is theirs."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def in_colour(pictures: np.ndarray) -> np.ndarray:
    """Pictures [n, H, W, 3] of such with one channel, which is repeated, or with three."""
    return np.broadcast_to(pictures, (*pictures.shape[:-1], 3))


def _named(figure: str, convention: str) -> str:
    return f"{figure}_{convention}" if convention else figure


def _features(spaces: Spaces, parts: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """The features of pictures in parts, by figure and convention."""
    found: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for convention, features in spaces.items():
            for figure, values in features(part).items():
                found.setdefault(_named(figure, convention), []).append(values)
    return {name: np.concatenate(values) for name, values in found.items()}


def _parts(pictures: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pictures), _PART):
        yield in_colour(pictures[start : start + _PART])


@dataclass(frozen=True)
class FrechetMeasure:
    """What is measured, and against what.

    Attributes:
        spaces: of the features.
        facts: about the weights, for the report.
        reference: file that is compared with; None for the run's training pictures.
        laws: by figure, the statistics in this file; empty for its pictures.
    """

    spaces: Spaces
    facts: Mapping[str, Any]
    reference: Path | None
    laws: Mapping[str, Law]

    def _real(self, train: np.ndarray) -> tuple[dict[str, np.ndarray | Law], dict[str, Any]]:
        """What each figure is compared with, by figure and convention, and facts about it."""
        if self.laws:
            known = {_named(figure, name): law for figure, law in self.laws.items() for name in self.spaces}
            return dict(known), _facts_of(self.reference)
        streamed = None if self.reference is None else data.stream_pictures(self.reference, _PART)
        parts = _parts(train) if streamed is None else map(in_colour, streamed)
        found = _features(self.spaces, progress.each(parts, "parts", "features of real pictures"))
        count = len(next(iter(found.values()), ()))
        if count < 2:
            raise UserError(f"reference must hold at least 2 pictures, there {'is' if count == 1 else 'are'} {count}")
        return dict(found), _facts_of(self.reference) | {"num_reference": count}

    def measure(
        self, draws: Mapping[Any, np.ndarray], train: np.ndarray
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """The figures of every rule, solver and scale, in the order of the draws; and what they are of.

        Args:
            draws: samples [scales, K, n, H, W, C] by rule and solver.
            train: the run's training pictures, uint8 [n, H, W, C].
        """
        real, facts = self._real(train)
        each = [samples for its in draws.values() for samples in its]
        found = [self._figures(samples, real) for samples in progress.each(each, "scales", "Frechet distances")]
        num_samples = int(np.prod(each[0].shape[:2]))
        if num_samples < NUM_QUOTED:
            text = f"Frechet distances of {num_samples} samples are biased upwards, and grow as they get fewer"
            distributed.warn(f"warning: {text}: published figures are of {NUM_QUOTED:,}")
        return found, {**self.facts, **facts, "num_samples": num_samples}

    def _figures(self, samples: np.ndarray, real: Mapping[str, np.ndarray | Law]) -> dict[str, float]:
        """Of samples [K, n, H, W, C]; of two conventions also the difference, second less first."""
        pictures = data.to_pixels(samples.reshape(-1, *samples.shape[2:]))
        if len(pictures) < 2:
            return {}
        ours = _features(self.spaces, _parts(pictures))
        found = {name: _distance(ours[name], its) for name, its in real.items() if name in ours}
        if len(self.spaces) == 2:
            first, second = self.spaces
            for figure in dict.fromkeys(name.partition("_")[0] for name in found):
                apart = found[_named(figure, second)] - found[_named(figure, first)]
                found[_named(figure, "difference")] = apart
        return found


def _distance(samples: np.ndarray, real: np.ndarray | Law) -> float:
    if isinstance(real, np.ndarray):
        return metrics.frechet_distance(samples, real)
    try:
        return metrics.frechet_distance_to(samples, *real)
    except ValueError as error:
        raise UserError(f"reference: {error}") from None


def _facts_of(reference: Path | None) -> dict[str, Any]:
    if reference is None:
        return {"reference": "training pictures"}
    return {"reference": reference.name, "reference_sha256": sha256_of(reference)}


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """A report's figures in words, a line for each rule, solver and scale."""
    found = []
    for row in metrics.get("samples", ()):
        figures = [f"{name} {row[name]:.3f}" for name in row if name.partition("_")[0] in ("fid", "sfid", "fd")]
        if figures:
            found.append(f"  {row['guidance']}, {row['solver']}, w = {row['scale']:g}: {', '.join(figures)}")
    return found
