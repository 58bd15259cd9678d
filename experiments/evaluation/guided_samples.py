"""The samples of a report: of every guidance, solver and scale."""

import itertools
import math
import time

import numpy as np

from experiments.cli import main as cli
from experiments.config.samplers import Rule, by_classifier, classifier_free, make_draw, times
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import draw_all
from experiments.tasks.task import Learned

FREE, BY_CLASSIFIER = "classifier-free", "classifier"

Draws = dict[tuple[str, str], np.ndarray]
"""(guidance, solver) -> samples [scales, labels, n, *D]."""


def draw_sweep(run: Learned, rule: Rule, solver: str, scales: tuple[float, ...]) -> np.ndarray:
    """Samples [scales, labels, num_per_class, *D] of a guided field by one solver, in one compiled call.

    Within a label, sample i has the same noise at every scale; errors as ``draw_all``.
    """
    task, settings = run.task, run.experiment.sampling
    draw = make_draw(rule, run.path, task.shape, solver, times(run.path, settings.num_steps))
    labels = np.repeat(task.labels, settings.num_per_class)
    samples = draw_all(draw, settings.seed, labels, scales, settings.chunk)
    return samples.reshape(len(scales), len(task.labels), settings.num_per_class, *task.shape)


def guided_draws(run: Learned, options: EvaluationOptions) -> tuple[Draws, dict[str, tuple[float, ...]]]:
    """Samples of all rules and solvers, and the scales of each rule."""
    null, own = run.task.num_classes, run.experiment.sampling.scales
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
