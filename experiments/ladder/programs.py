"""One compiled program for each dimension, which samples and measures any rule, solver, path, scale and sigma.

Which of them a point of the sweep has is an index that no sample is mapped over: ``lax.map`` goes through the points,
``lax.switch`` runs the one solver that a point names, and ``vmap`` makes its samples. The path is a choice as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import conversions, paths, solvers
from cfgjax.checks import THREEFRY
from cfgjax.types import Array, GaussianPath, LabelledField, LogClassifier, Schedule, Times, WeightedSolver
from experiments.ladder import laws
from experiments.ladder.laws import Law
from experiments.ladder.problems import LABEL, Problem
from experiments.ladder.rules import FIRST_STEPS, NOISE_LEVEL, NUM_ROUNDS, ROUND_STEPS, AnySolver, Cell, Row

PATHS: dict[str, Callable[[], GaussianPath]] = {
    "linear": paths.linear,
    "cosine": paths.cosine,
    "variance_preserving": paths.variance_preserving,
}


Numbers = Array | np.ndarray
"""A number, or an array of them."""


class Rung(NamedTuple):
    """A rule by one of its solvers."""

    rule: str
    solver: str


class Point(NamedTuple):
    """A point of the sweep: the numbers of its rung, path and law, with w and sigma; or arrays of these."""

    rung: Numbers
    path: Numbers
    law: Numbers
    scale: Numbers
    sigma: Numbers


class Measured(NamedTuple):
    """What was found at a point: distances (L1) to the tilted and to the labelled law, coverage (L2), spread (L3)."""

    to_tilted: Numbers
    to_labelled: Numbers
    coverage: Numbers
    spread: Numbers


def chosen_path(names: Sequence[str], index: Array) -> GaussianPath:
    """The path of a name by its traced number."""
    choices = [PATHS[name]() for name in names]

    def of(schedules: Sequence[Schedule]) -> Schedule:
        def schedule(t: Array) -> Array:
            time = t + 0 * index.astype(jnp.result_type(t))  # traced, so that a look at it computes nothing
            return jnp.stack([each(time) for each in schedules])[index]

        return schedule

    return GaussianPath(of([path.alpha for path in choices]), of([path.beta for path in choices]))


def _in_rounds(cell: Cell, refining: AnySolver) -> Callable[[AnySolver, Array, Array, Times], Array]:
    """As ``solvers.integrate``, by Gibbs-like rounds on grids of their own."""
    first = jnp.linspace(0, 1, FIRST_STEPS + 1)
    start = conversions.time_at(cell.path, 1.0, NOISE_LEVEL)
    later = (1 - start) * jnp.linspace(0, 1, ROUND_STEPS + 1) + start
    later = later.at[-1].set(1)
    return lambda initial, key, x, ts: solvers.gibbs_like(
        cell.path, initial, refining, key, x, first, later, NUM_ROUNDS
    )


def sample(row: Row, cell: Cell, num_samples: int, num_steps: int) -> Array:
    """Samples [n, D] of a rule, of the same noise for every rule."""
    ts = np.linspace(0, 1, num_steps + 1, dtype=np.float32)
    noise_key, key = jax.random.split(jax.random.key(0, impl=THREEFRY))
    keys, shape = jax.random.split(noise_key, num_samples), (cell.problem.dimension,)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    solver = row.build(cell)
    if not isinstance(solver, WeightedSolver):
        solve = solvers.integrate if row.refine is None else _in_rounds(cell, row.refine(cell))
        keys = jax.random.split(key, num_samples)
        return jax.vmap(lambda key, x: solve(solver, key, x, ts))(keys, noise)
    particles, _ = solvers.solve(solver, key, noise, ts)
    return particles.x[solvers.systematic_resampling(key, particles.log_weights)]


def measure(problem: Problem, x: Array, tilted: Law, labelled: Law) -> Measured:
    """What samples [n, D] are off by; NaN where one is not finite."""
    points, means = x[:, :2], problem.plane.means.reshape(-1, 2)
    is_finite = jnp.all(jnp.isfinite(x))
    found = Measured(
        laws.energy_distance(points, tilted),
        laws.energy_distance(points, labelled),
        laws.coverage(points, means, tilted),
        laws.spread(x),
    )
    return jax.tree.map(lambda value: jnp.where(is_finite, value, jnp.nan), found)


@dataclass(frozen=True)
class Size:
    """How much is drawn: samples of a point, and steps of a sample."""

    num_samples: int
    num_steps: int


def program_of(
    problem: Problem, table: Mapping[str, Row], rungs: Sequence[Rung], path_names: Sequence[str], size: Size
) -> Callable[[Point, Law], Measured]:
    """The compiled (points [N], laws [W]) -> what is measured [N]; the first law is the labelled one."""

    def at(point: Point, all_laws: Law) -> Measured:
        path = chosen_path(path_names, jnp.asarray(point.path))
        scale, sigma = jnp.asarray(point.scale), jnp.asarray(point.sigma)

        def branch(rung: Rung) -> Callable[[], Array]:
            cell = Cell(problem, path, LABEL, scale, rung.solver, sigma)
            return lambda: sample(table[rung.rule], cell, size.num_samples, size.num_steps)

        x = jax.lax.switch(point.rung, [branch(rung) for rung in rungs])
        tilted, labelled = (jax.tree.map(lambda leaf, i=i: leaf[i], all_laws) for i in (point.law, 0))
        return measure(problem, x, tilted, labelled)

    return jax.jit(lambda points, all_laws: jax.lax.map(lambda point: at(point, all_laws), points))


@dataclass(frozen=True)
class _Counted(Problem):
    """A problem all of whose functions are calls of one marked field, so that their evaluations are counted."""

    marked: LabelledField

    def field(self, path: GaussianPath) -> LabelledField:
        return self.marked

    def weak_field(self, path: GaussianPath) -> LabelledField:
        return self.marked

    def label_log_probs(self, path: GaussianPath) -> LogClassifier:
        return lambda x, t: jnp.full(self.null, jnp.sum(self.marked(x, t, jnp.asarray(0))))


def num_evaluations(row: Row, solver: str, num_steps: int) -> int:
    """How often one sample evaluates the field, a weaker field or the classifier; nothing is computed."""
    if row.refine is not None:
        rounds = NUM_ROUNDS * _num_of_solve(Row(row.refine), solver, ROUND_STEPS)
        return _num_of_solve(row, solver, FIRST_STEPS) + rounds
    return _num_of_solve(row, solver, num_steps)


def _num_of_solve(row: Row, solver: str, num_steps: int) -> int:
    ts, found = np.linspace(0, 1, num_steps + 1, dtype=np.float32), []

    def count(index: Array, scale: Array, sigma: Array) -> None:
        path = chosen_path(("linear",), index)

        def build(marked: Callable[..., Array]) -> AnySolver | WeightedSolver:
            return row.build(Cell(_Counted(2, marked), path, LABEL, scale, solver, sigma))

        x = jnp.ones((1, 2) if row.is_population else 2)
        found.append(solvers.num_function_evaluations(build, lambda x, t, y: x * (t + y), x, ts).sum())

    number = jax.ShapeDtypeStruct((), jnp.float32)
    jax.eval_shape(count, jax.ShapeDtypeStruct((), jnp.int32), number, number)
    return int(found[0])
