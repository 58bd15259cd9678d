"""The guided field that the options ask for, once what it needs of the run is found to be trained."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.types import LabelledField, Null, Scale, Tree
from experiments.cli.main import UserError
from experiments.config.distillation import START, STOP
from experiments.config.samplers import (
    JUMP,
    JUMPS,
    ODE,
    ODE_SOLVERS,
    Jumps,
    Rule,
    RuleOf,
    by_classifier,
    by_name,
    times,
    with_reuse,
)
from experiments.run.model import path_of_field
from experiments.run.require_trained import require_rows, require_scales, require_solver, rows_of
from experiments.run.restore import Run, classifier_for, restore_without_data, warn_of_other_data
from experiments.runtime import distributed
from experiments.sample import weakened
from experiments.sample.options import GuidanceOptions, SolverOptions
from experiments.tasks.conditions import Conditions, negative, take, what_is_told
from experiments.tasks.task import TaskFacts


def _led_from(guided: GuidanceOptions, known: Conditions) -> Null:
    """The condition to lead away from: the null, or the negative one."""
    if guided.negative is None:
        return known.null
    if guided.worse is not None or guided.classifier is not None:
        raise UserError("negative must be left out where a worse network or a classifier is given")
    if guided.weakened and guided.weak_scale is None:
        raise UserError("negative must be left out where the weakened network takes its place: give a weak_scale")
    return negative(known, guided.negative)


def _others(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, null: Null) -> list[int]:
    """The label of what the run's own field leads away from, if it does."""
    if guided.worse is not None or (guided.weakened and guided.weak_scale is None):
        return []
    if guided.negative is None:
        return [run.task.num_classes]
    one = jax.tree.map(jnp.asarray, take(conditions, np.array(0)))
    led_from = null(one) if callable(null) else null
    return run.task.conditions.labels(jax.tree.map(lambda leaf: np.asarray(leaf)[np.newaxis], led_from)).tolist()


def _require_trained(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, null: Null) -> None:
    """Raises UserError where a label's row, null's among them, is needed that the run never trained."""
    others, labels = _others(guided, run, conditions, null), run.task.conditions.labels(conditions)
    if guided.classifier is not None:
        require_rows(run, others, "classifier")
        return
    is_plain = guided.is_plain and not guided.weakened
    used = rows_of(guided.scale, labels, others) | (set() if is_plain else set(labels.tolist()))
    require_rows(run, used, f"w = {guided.scale:g}")


def _worse_field(run: Run[TaskFacts], worse_dir: Path, data_dir: Path | None) -> LabelledField:
    """The field of the worse run."""
    worse = restore_without_data(worse_dir, data_dir)
    is_alike = (worse.task.shape, worse.task.num_classes) == (run.task.shape, run.task.num_classes)
    is_alike &= what_is_told(worse.experiment, worse.task.conditions) == what_is_told(
        run.experiment, run.task.conditions
    )
    is_same_path = path_of_field(worse.experiment) == path_of_field(run.experiment)
    if not (is_alike and is_same_path and worse.task.objective.is_field):
        raise UserError(
            f"worse must be a run on the same kind of data and path, told by the same conditions, got {worse_dir}"
        )
    warn_of_other_data("worse", worse, run)
    require_rows(worse, worse.task.labels[:1], "worse")
    return worse.field


def _inside(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree) -> RuleOf:
    """The guidance inside the run's network, which knows no two sides.

    Raises:
        UserError: options that need them, or a scale that the network was not told.
    """
    folder, labels = run.experiment.run_dir, run.task.conditions.labels(conditions)
    needing = {
        "rule": guided.rule != "classifier_free",
        "reuse": guided.reuse is not None,
        "negative": guided.negative is not None,
        "worse": guided.worse is not None,
        "weakened": bool(guided.weakened),
        "classifier": guided.classifier is not None,
    }
    for name, is_asked in needing.items():
        if is_asked:
            raise UserError(f"{name} must be left out: guidance is inside the network of {folder}")
    require_scales(run, (guided.scale,), labels)
    if guided.scale != 1 and run.task.num_classes in labels:
        raise UserError(f"scale must be 1 at the null label where guidance is inside, got {guided.scale:g}")
    at = partial(scale_between, guided)
    return lambda placed: lambda scale: placed(run.rule(at(scale)))


def scale_between(guided: GuidanceOptions, scale: Scale) -> Scale:
    """The scale, in the interval of times that is asked for."""
    return scale if guided.interval == (0.0, 1.0) else guidance.interval(scale, *guided.interval)


def _require_learned_interval(guided: GuidanceOptions, run: Run[TaskFacts]) -> None:
    """Raises UserError for an interval that the flow map of the run did not learn."""
    if guided.interval == (0.0, 1.0):
        return
    name, instead = f"the flow map of {run.experiment.run_dir}", "a solver of its field takes any"
    if not run.experiment.distillation.intervals:
        raise UserError(f"interval must be 0 1: {name} learned no others (distillation.intervals); {instead}")
    if not all(low <= edge <= high for edge, (low, high) in zip(guided.interval, (START, STOP), strict=True)):
        ranges = "{:g}..{:g} to {:g}..{:g}".format(*START, *STOP)
        got = "{:g} {:g}".format(*guided.interval)
        raise UserError(f"interval must be from {ranges}, as {name} learned them, got {got}; {instead}")


def jumps_of(guided: GuidanceOptions, run: Run[TaskFacts]) -> Jumps | None:
    """The flow map of the run, None where it has none.

    Raises:
        UserError: an interval, which it did not learn.
    """
    jumps = run.jumps
    if jumps is None:
        return None
    _require_learned_interval(guided, run)
    return lambda scale: jumps(scale_between(guided, scale))


def steps_of(solving: SolverOptions, guided: GuidanceOptions, run: Run[TaskFacts]) -> tuple[str, np.ndarray]:
    """The solver and the times that are asked for; by default those of what the run learned.

    The edges of an interval are among the times, but for jumps, which have it inside.

    Raises:
        UserError: a jump of a run without flow map, or too few steps for the grid or the interval.
    """
    solver = solving.solver or (ODE if run.jumps is None else JUMP)
    require_solver(run, solver)
    num_steps = solving.num_steps or (1 if solver in JUMPS else 32)
    if solving.grid == "karras" and num_steps == 1:
        raise UserError("num_steps must be at least 2 for the grid karras, got 1")
    ts = times(run.path, num_steps, solving.grid, (0.0, 1.0) if solver in JUMPS else guided.interval)
    if num_steps == 1 and solver in ODE_SOLVERS:
        distributed.warn(
            f"warning: one step of {solver} is no sample of the guided ODE; a flow map's is, as of the preset "
            "mixture_flow_map"
        )
    return solver, ts


def _require_one_weak_side(guided: GuidanceOptions) -> None:
    """Raises UserError for options of which each says what is led away from."""
    if guided.weak_scale is not None and not guided.weakened:
        raise UserError("weak_scale must be left out where no network is weakened")
    if guided.classifier is not None and guided.worse is not None:
        raise UserError("classifier must be left out where a worse network is given")
    if guided.weakened and (guided.worse is not None or guided.classifier is not None):
        raise UserError("weakened must be left out where a worse network or a classifier is given")


def rule_of(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, data_dir: Path | None) -> RuleOf:
    """The function that makes the guidance of the run's field, and of the worse or weakened one or the classifier.

    Raises:
        UserError: options that leave each other out, a run that does not fit, or a label that the run never trained.
    """
    if run.task.objective.is_guided:
        return _inside(guided, run, conditions)
    _require_one_weak_side(guided)
    null, path = _led_from(guided, run.task.conditions), run.path
    _require_trained(guided, run, conditions, null)
    if guided.weakened:
        return weakened.rules_of(guided, run, conditions, null, partial(scale_between, guided))
    if guided.classifier is not None:
        if not guided.is_plain:
            raise UserError("classifier must be left out where a rule, an interval or reuse is asked for")
        log_classifier = classifier_for(run, restore_without_data(guided.classifier, data_dir))
        return lambda placed: by_classifier(placed(run.field), null, log_classifier, path)
    worse = None if guided.worse is None else _worse_field(run, guided.worse, data_dir)

    def of_fields(placed: Callable[[LabelledField], LabelledField]) -> Rule:
        field = placed(run.field)
        pair = guidance.pair(field, null) if worse is None else guidance.autoguidance_pair(field, placed(worse))
        rule = by_name(guided.rule, path, pair, guided.interval)
        if guided.reuse is None:
            return rule
        return with_reuse(rule, guided.rule, path, pair, guided.interval, guided.reuse)

    return of_fields
