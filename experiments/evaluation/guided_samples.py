"""The samples of a report: of every guidance, solver and scale."""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.types import Array, Tree
from experiments.cli import main as cli
from experiments.config.samplers import (
    JUMP,
    JUMPS,
    ODE,
    ODE_SOLVERS,
    SDE,
    Draw,
    Jumps,
    Rule,
    by_classifier,
    make_draw,
    times,
    with_reuse,
)
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import draw_all, sample_keys
from experiments.tasks.conditions import count_of, take
from experiments.tasks.task import Learned

FREE, BY_CLASSIFIER, INSIDE, TEACHER = "classifier-free", "classifier", "inside", "teacher"
EVALUATIONS = (1, 2, 4)
"""Of a flow map, by the number of which its samples are measured."""
TEACHER_STEPS = 32
"""Of Heun's rule, by which its teacher's samples are drawn."""

Draws = dict[tuple[str, str], np.ndarray]
"""(guidance, solver) -> samples [scales, conditions, n, *D]."""


class Way(NamedTuple):
    """One way to draw samples.

    Attributes:
        rule: the guidance.
        solver: its name.
        num_steps: of the solver.
        jumps: the flow map, of a solver that jumps.
        is_own: whether it is of the run, and not of its teacher.
    """

    rule: Rule
    solver: str
    num_steps: int
    jumps: Jumps | None = None
    is_own: bool = True

    @property
    def is_of_ode(self) -> bool:
        """Whether it has no noise but that it begins with: its law is that of the guided ODE, up to its steps."""
        return self.solver in (*ODE_SOLVERS, JUMP)

    def draw_of(self, run: Learned) -> Draw:
        """The function that draws one sample."""
        ts = times(run.path, self.num_steps)
        return make_draw(self.rule, run.path, run.task.shape, self.solver, ts, jumps=self.jumps)


Ways = dict[tuple[str, str], Way]
"""By guidance and solver; of a flow map the solver's name has the number of evaluations after it."""


def own_ways(run: Learned, options: EvaluationOptions) -> Ways:
    """The ways to draw samples of the run by its own guidance; a flow map's are by its numbers of evaluations."""
    jumps, count = run.jumps, run.experiment.sampling.num_steps
    solvers = options.solvers or ((ODE, SDE) if jumps is None else (JUMP,))
    name = INSIDE if run.task.objective.is_guided else FREE
    rule = run.rule
    if options.reuse is not None:
        pair = guidance.pair(run.field, run.task.conditions.null)
        rule = with_reuse(rule, "classifier_free", run.path, pair, (0.0, 1.0), options.reuse)
    ways = {(name, solver): Way(rule, solver, count) for solver in solvers if solver not in JUMPS}
    for solver in (solver for solver in solvers if solver in JUMPS):
        counts = sorted({*EVALUATIONS, count})
        ways |= {(name, f"{solver} {number}"): Way(run.rule, solver, number, jumps) for number in counts}
    return ways


def ways_of(run: Learned, options: EvaluationOptions) -> Ways:
    """The ways of a report: the run's own, with a classifier those by it, and its teacher's."""
    ways = own_ways(run, options)
    if options.log_classifier is not None:
        rule = by_classifier(run.field, run.task.conditions.null, options.log_classifier, run.path)
        ways |= {(BY_CLASSIFIER, solver): way._replace(rule=rule) for (_, solver), way in list(ways.items())}
    if run.task.teacher is not None:
        ways[TEACHER, f"{ODE} {TEACHER_STEPS}"] = Way(run.task.teacher.rule, ODE, TEACHER_STEPS, is_own=False)
    return ways


def asked_in_turn(run: Learned, count: int) -> tuple[Array, Tree]:
    """The keys of so many samples, and the task's conditions in turn."""
    rows = run.task.conditions.rows
    conditions = jax.tree.map(jnp.asarray, take(rows, np.arange(count) % count_of(rows)))
    return sample_keys(run.experiment.sampling.seed, count), conditions


def draw_way(
    run: Learned, way: Way, scales: tuple[float, ...], rows: Tree | None = None, num_per_row: int | None = None
) -> np.ndarray:
    """Samples [scales, n, num_per_row, *D] by one way, in one compiled call.

    Of a condition, sample i has the same noise at every scale; errors as ``draw_all``.

    Args:
        run: what is drawn of.
        way: how.
        scales: the guidance scales.
        rows: n conditions; by default the task's own.
        num_per_row: samples of each; by default the experiment's ``num_per_class``.
    """
    task, settings = run.task, run.experiment.sampling
    rows = task.conditions.rows if rows is None else rows
    num_per_row = settings.num_per_class if num_per_row is None else num_per_row
    conditions = take(rows, np.repeat(np.arange(count_of(rows)), num_per_row))
    samples = draw_all(way.draw_of(run), settings.seed, conditions, scales, settings.chunk)
    return samples.reshape(len(scales), count_of(rows), num_per_row, *task.shape)


def draw_sweep(run: Learned, rule: Rule, solver: str, scales: tuple[float, ...]) -> np.ndarray:
    """Samples [scales, n, num_per_class, *D] of a guided field by one solver, of the task's own conditions."""
    return draw_way(run, Way(rule, solver, run.experiment.sampling.num_steps), scales)


def guided_draws(run: Learned, options: EvaluationOptions) -> tuple[Draws, dict[str, tuple[float, ...]]]:
    """Samples of all ways, and the scales of each guidance."""
    own = run.experiment.sampling.scales
    draws, scales = {}, {}
    for (name, solver), way in ways_of(run, options).items():
        start = time.perf_counter()
        scales[name] = options.classifier_scales or own if name == BY_CLASSIFIER else own
        draws[name, solver] = draw_way(run, way, scales[name])
        num_samples = math.prod(draws[name, solver].shape[:3])
        cli.info(f"  {num_samples} samples, {name}, {solver}: {time.perf_counter() - start:.0f} s")
    return draws, scales


def draws_of(run: Learned, options: EvaluationOptions, rows: Tree, num_per_row: int) -> dict[str, np.ndarray]:
    """Samples [scales, n, num_per_row, *D] of n conditions by the run's own guidance and each solver."""
    scales = run.experiment.sampling.scales
    return {
        solver: draw_way(run, way, scales, rows, num_per_row) for (_, solver), way in own_ways(run, options).items()
    }
