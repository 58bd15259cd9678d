"""Figures measured before, to be found again: data N(1, 0.3^2) on the straight path, whose flow is 1 + 0.3 x."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import numpy as np

from cfgjax.verify import Check
from experiments.conformance.bridge import Draw
from experiments.conformance.records import Record

MEAN, STD = 1.0, 0.3
STARTS = np.array([[-1.5], [-0.4], [0.3], [1.1]])

Figure = tuple[Callable[[], float], float, float]
"""How it is measured, what was measured before, and by how much of that it may differ."""


def velocity(x: np.ndarray, t: float) -> np.ndarray:
    """The exact field."""
    slope = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
    return (MEAN + slope * (x - t * MEAN)).astype(x.dtype)


def law(draw: Draw, n_steps: int, count: int = 20_000, seed: int = 0) -> tuple[float, float]:
    """Mean and deviation of samples, whose exact values are 1 and 0.3."""
    noise = np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float32)
    samples = draw(velocity, noise, n_steps, seed)
    return float(samples.mean()), float(samples.std())


def error(draw: Draw, n_steps: int) -> float:
    """The largest error of the ends of four starts."""
    return float(np.abs(draw(velocity, STARTS, n_steps, 0) - (MEAN + STD * STARTS)).max())


def errors(draw: Draw, by_steps: Mapping[int, float], share: float = 0.01) -> dict[str, Figure]:
    """The figures of an ODE solver: its error by the number of steps."""
    return {f"error, {n} steps": (lambda n=n: error(draw, n), before, share) for n, before in by_steps.items()}


def laws(draw: Draw, by_steps: Mapping[int, tuple[float, float]], share: float = 0.03) -> dict[str, Figure]:
    """The figures of a sampler: mean and deviation by the number of steps."""
    found: dict[str, Figure] = {}
    once = cache(partial(law, draw))
    for n, (mean, std) in by_steps.items():
        found[f"mean, {n} steps"] = (lambda n=n: once(n)[0], mean, share)
        found[f"deviation, {n} steps"] = (lambda n=n: once(n)[1], std, share)
    return found


def figures(call: str, measured: Mapping[str, Figure], remark: str = "") -> Record:
    """The record of figures; one passes where it is found again."""

    def checks() -> Iterator[Check]:
        for name, (measure, before, share) in measured.items():
            now = float(measure())
            is_same = now == before or abs(now - before) <= share * abs(before)
            yield Check(name, bool(is_same), now, before, "" if is_same else "another figure than before")

    return Record(call, "figure", checks, (), remark)
