"""Samples of guidance inside a network by the number of its evaluations, beside those of its teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.samplers import RuleOf, num_evaluations, times
from experiments.evaluation.certified import bounds
from experiments.evaluation.guided_samples import TEACHER, Way, asked_in_turn, ways_of
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.conditions import take
from experiments.tasks.task import Learned

NUM_TIMED, NUM_REPEATS = 64, 5
"""Samples in one call that is timed, and calls, of which the quickest counts."""
_FIGURES = {
    "recognised": ("accuracy", ".1%"),
    "frechet": ("Frechet", ".3f"),
    "frechet_ratio": ("of teacher's", ".2f"),
    "energy_distance": ("energy dist.", ".2e"),
    "energy_floor": ("its floor", ".2e"),
    "kl": ("KL, nats", ".2e"),
    "coupling_bound": ("W2 at most", ".2e"),
    "residual_bound": ("by residual", ".2e"),
    "seconds_per_sample": ("s per sample", ".2e"),
    "times_faster": ("times faster", ".1f"),
}
"""Of a row: what its column is called, and how it is written."""


def _seconds(run: Learned, way: Way, scale: float) -> float:
    """The time of one sample among NUM_TIMED in one call, in seconds."""
    draw = way.draw_of(run)
    keys, conditions = asked_in_turn(run, NUM_TIMED)
    program = jax.jit(jax.vmap(draw, (0, 0, None))).lower(keys, conditions, jnp.float32(scale)).compile()
    found = []
    for _ in range(1 + NUM_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(program(keys, conditions, jnp.float32(scale)))
        found.append(time.perf_counter() - start)
    return min(found[1:]) / NUM_TIMED


def _num_evaluations(run: Learned, way: Way, scale: float) -> int | None:
    """How often one sample evaluates the guided field, of which classifier-free evaluates the network twice each."""
    y = jax.tree.map(jnp.asarray, take(run.task.conditions.rows, np.array(0)))
    rule, ts = way.rule, times(run.path, way.num_steps)
    rule_of: RuleOf = lambda placed: lambda scale: placed(rule(scale))  # noqa: E731
    return num_evaluations(rule_of, rule(scale), run.path, run.task.shape, way.solver, ts, scale, y)


def by_evaluations(run: Learned, options: EvaluationOptions, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of samples of guidance inside a network with what they cost, and what they are to its teacher's.

    How many times faster they are than those of a teacher is told of a network, not of an exact field.

    Args:
        run: the run.
        options: what was asked.
        rows: of its report: guidance, solver, scale, and figures.
    """
    if not run.task.objective.is_guided:
        return []
    ways, scale = ways_of(run, options), run.experiment.sampling.scales[-1]
    seconds = {name: _seconds(run, way, scale) for name, way in ways.items()}
    teacher = {row["scale"]: row for row in rows if row["guidance"] == TEACHER}
    own_network = run.task.teacher is not None and run.task.teacher.params is not None
    of_teacher = next((its for (guidance, _), its in seconds.items() if guidance == TEACHER and own_network), None)
    certified, found = bounds(run, ways), []
    for row in rows:
        name = row["guidance"], row["solver"]
        figures = {key: row[key] for key in _FIGURES if key in row} | certified.get((*name, row["scale"]), {})
        cost = {"seconds_per_sample": seconds[name]} | (
            {"times_faster": of_teacher / seconds[name]} if of_teacher else {}
        )
        its = teacher.get(row["scale"], {}).get("frechet")
        ratio = {"frechet_ratio": row["frechet"] / its} if its and "frechet" in row else {}
        count = _num_evaluations(run, ways[name], row["scale"])
        told = {"guidance": name[0], "solver": name[1], "evaluations": count, "scale": row["scale"]}
        found.append(told | figures | ratio | cost)
    return found


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """The rows as lines under the names of their columns."""
    rows = metrics.get("by_evaluations", ())
    if not rows:
        return []
    names = [name for name in _FIGURES if any(name in row for row in rows)]
    head = "  " + f"{'':>8} {'solver':>15} {'evaluations':>11} {'w':>4}"
    found = [head + "".join(f" {_FIGURES[name][0]:>12}" for name in names)]
    for row in rows:
        start = f"  {row['guidance']:>8} {row['solver']:>15} {row['evaluations'] or '-':>11} {row['scale']:>4g}"
        figures = (f"{row[name]:{_FIGURES[name][1]}}" if name in row else "-" for name in names)
        found.append(start + "".join(f" {text:>12}" for text in figures))
    return found
