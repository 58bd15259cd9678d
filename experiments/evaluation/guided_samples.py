"""The samples of a report: of every guidance, solver and scale."""

import itertools
import math
import time

import numpy as np

from cfgjax.types import Tree
from experiments.cli import main as cli
from experiments.config.samplers import Rule, by_classifier, classifier_free, make_draw, times
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import draw_all
from experiments.tasks.conditions import count_of, take
from experiments.tasks.task import Learned

FREE, BY_CLASSIFIER = "classifier-free", "classifier"

Draws = dict[tuple[str, str], np.ndarray]
"""(guidance, solver) -> samples [scales, conditions, n, *D]."""


def draw_sweep(
    run: Learned,
    rule: Rule,
    solver: str,
    scales: tuple[float, ...],
    rows: Tree | None = None,
    num_per_row: int | None = None,
) -> np.ndarray:
    """Samples [scales, n, num_per_row, *D] of a guided field by one solver, in one compiled call.

    Of a condition, sample i has the same noise at every scale; errors as ``draw_all``.

    Args:
        run: whose field is guided.
        rule: the guidance.
        solver: the solver's name.
        scales: the guidance scales.
        rows: n conditions; by default the task's own.
        num_per_row: samples of each; by default the experiment's ``num_per_class``.
    """
    task, settings = run.task, run.experiment.sampling
    rows = task.conditions.rows if rows is None else rows
    num_per_row = settings.num_per_class if num_per_row is None else num_per_row
    draw = make_draw(rule, run.path, task.shape, solver, times(run.path, settings.num_steps))
    conditions = take(rows, np.repeat(np.arange(count_of(rows)), num_per_row))
    samples = draw_all(draw, settings.seed, conditions, scales, settings.chunk)
    return samples.reshape(len(scales), count_of(rows), num_per_row, *task.shape)


def guided_draws(run: Learned, options: EvaluationOptions) -> tuple[Draws, dict[str, tuple[float, ...]]]:
    """Samples of all rules and solvers, and the scales of each rule."""
    null, own = run.task.conditions.null, run.experiment.sampling.scales
    rules, scales = {FREE: classifier_free(run.field, null)}, {FREE: own}
    if options.log_classifier is not None:
        rules[BY_CLASSIFIER] = by_classifier(run.field, null, options.log_classifier, run.path)
        scales[BY_CLASSIFIER] = options.classifier_scales or own
    draws = {}
    for name, solver in itertools.product(rules, options.solvers):
        start = time.perf_counter()
        draws[name, solver] = draw_sweep(run, rules[name], solver, scales[name])
        num_samples = math.prod(draws[name, solver].shape[:3])
        cli.info(f"  {num_samples} samples, {name}, {solver}: {time.perf_counter() - start:.0f} s")
    return draws, scales


def draws_of(run: Learned, options: EvaluationOptions, rows: Tree, num_per_row: int) -> dict[str, np.ndarray]:
    """Samples [scales, n, num_per_row, *D] of n conditions by classifier-free guidance and each solver."""
    rule, scales = classifier_free(run.field, run.task.conditions.null), run.experiment.sampling.scales
    return {solver: draw_sweep(run, rule, solver, scales, rows, num_per_row) for solver in options.solvers}
