"""Goes through the whole sweep: a program for each dimension, in threads, and what was found as rows."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import jax
import numpy as np

from experiments.cli.compilation_cache import Seen
from experiments.ladder import laws
from experiments.ladder.laws import Law
from experiments.ladder.problems import Problem
from experiments.ladder.programs import Measured, Point, Rung, Size, num_evaluations, program_of
from experiments.ladder.rules import OWN, STOCHASTIC, Row
from experiments.runtime import progress

THREADS = 2
MAX_CHUNK = 64
"""Points of one call, between which the bar moves; all calls of a dimension are of one size."""


@dataclass(frozen=True)
class Sweep:
    """What is laddered: rules by the solvers of each dimension, on every path, by every w, and sigma of SDEs."""

    solvers: Mapping[int, tuple[str, ...]]
    paths: tuple[str, ...]
    scales: tuple[float, ...]
    sigmas: tuple[float, ...]
    size: Size


@dataclass(frozen=True)
class Found:
    """One row: what a rule sampled at one point of the sweep; infinite where a sample was not finite.

    ``sigma`` is None for a solver without one.
    """

    rule: str
    solver: str
    dimension: int
    path: str
    scale: float
    sigma: float | None
    evaluations: int
    to_tilted: float
    to_labelled: float
    coverage: float
    spread: float


@dataclass(frozen=True)
class Result:
    """All rows, the floors of the distances by w, and what the run cost."""

    rows: list[Found]
    floors: dict[float, float]
    compilations: int
    seconds: float
    cpu_seconds: float
    setting: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A tree for JSON, in which what diverged is None."""
        rows = [{name: _finite(value) for name, value in asdict(row).items()} for row in self.rows]
        return asdict(self) | {"rows": rows, "floors": [list(item) for item in self.floors.items()]}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _laws(sweep: Sweep) -> tuple[dict[float, float], Law]:
    """The floor of each w, and the laws of w = 1 and of every w, [W + 1]."""
    plane = Problem(2).plane
    grid = laws.grid_of(plane)
    scales = (1.0, *sweep.scales)
    found = [laws.law_of(plane, grid, scale) for scale in scales]
    all_laws = Law(*(np.stack(leaves) for leaves in zip(*found, strict=True)))
    floors = laws.floors_of(grid, all_laws, scales, sweep.size.num_samples)
    return dict(zip(sweep.scales, floors[1:], strict=True)), all_laws


def _rungs(table: Mapping[str, Row], names: Sequence[str]) -> list[Rung]:
    """Every rule by those of its solvers that are named; one that has its own, or moves a population, by that."""
    return [
        Rung(name, each)
        for name, row in table.items()
        for each in row.solvers
        if each in (*names, OWN) or row.is_population
    ]


def _points(sweep: Sweep, rungs: Sequence[Rung]) -> list[tuple[int, int, int, float, float]]:
    """(rung, path, law, w, sigma) of every point of one dimension."""
    found = []
    for (number, rung), path in product(enumerate(rungs), range(len(sweep.paths))):
        sigmas = sweep.sigmas if rung.solver in STOCHASTIC else (1.0,)
        found += [(number, path, 1 + law, w, sigma) for (law, w), sigma in product(enumerate(sweep.scales), sigmas)]
    return found


def _as_point(points: Sequence[tuple[int, int, int, float, float]]) -> Point:
    columns = zip(*points, strict=True)
    return Point(*(np.asarray(column, np.int32 if index < 3 else np.float32) for index, column in enumerate(columns)))


def _in_chunks(program: Callable[[Point, Law], Measured], points: Sequence[Any], all_laws: Law, bar: Any) -> Measured:
    """What is measured at all points, in calls of one size, the last filled up with its last point."""
    size = -(-len(points) // -(-len(points) // MAX_CHUNK))
    found = []
    for start in range(0, len(points), size):
        chunk = list(points[start : start + size])
        filled = chunk + chunk[-1:] * (size - len(chunk))
        measured = program(_as_point(filled), all_laws)
        found.append([np.asarray(leaf, np.float64)[: len(chunk)] for leaf in measured])
        bar.update(len(chunk))
    return Measured(*(np.concatenate(leaves) for leaves in zip(*found, strict=True)))


def climb(table: Mapping[str, Row], sweep: Sweep) -> Result:
    """Every row of the sweep, with its own count of compilations and times."""
    seen, start, cpu_start, load = Seen(), time.perf_counter(), time.process_time(), round(os.getloadavg()[0], 1)
    floors, all_laws = _laws(sweep)
    rungs = {dimension: _rungs(table, names) for dimension, names in sweep.solvers.items()}
    evaluations = {
        rung: num_evaluations(table[rung.rule], rung.solver, sweep.size.num_steps)
        for rung in dict.fromkeys(rung for each in rungs.values() for rung in each)
    }
    points = {dimension: _points(sweep, own) for dimension, own in rungs.items()}

    def rows_of(dimension: int) -> list[Found]:
        program = program_of(Problem(dimension), table, rungs[dimension], sweep.paths, sweep.size)
        measured = _in_chunks(program, points[dimension], all_laws, bar)
        rows = []
        for (number, path, _, scale, sigma), values in zip(points[dimension], zip(*measured, strict=True), strict=True):
            rung = rungs[dimension][number]
            own_sigma = sigma if rung.solver in STOCHASTIC else None
            numbers = [float(value) if np.isfinite(value) else np.inf for value in values]
            place = (dimension, sweep.paths[path], scale, own_sigma, evaluations[rung])
            rows.append(Found(rung.rule, rung.solver, *place, *numbers))
        return rows

    total = sum(map(len, points.values()))
    with progress.bar(total, "points", "climbing") as bar, ThreadPoolExecutor(THREADS) as pool:
        by_dimension = dict(zip(rungs, pool.map(rows_of, rungs), strict=True))
    seen.stop()
    rows = [row for dimension in sorted(by_dimension) for row in by_dimension[dimension]]
    took = round(time.perf_counter() - start, 1), round(time.process_time() - cpu_start, 1)
    setting = asdict(sweep.size) | {"jax": jax.__version__, "date": str(datetime.date.today()), "load": load}
    return Result(rows, floors, seen.count, *took, setting)
