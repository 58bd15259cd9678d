"""The guided field that the options ask for, once what it needs of the run is found to be trained."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.types import LabelledField, Null, Tree
from experiments.cli.main import UserError
from experiments.config.samplers import Rule, RuleOf, by_classifier, by_name
from experiments.run.model import path_of_field
from experiments.run.require_trained import require_rows, rows_of
from experiments.run.restore import Run, classifier_for, restore_without_data, warn_of_other_data
from experiments.sample.options import GuidanceOptions
from experiments.tasks.conditions import Conditions, negative, take, what_is_told
from experiments.tasks.task import TaskFacts


def _led_from(guided: GuidanceOptions, known: Conditions) -> Null:
    """The condition to lead away from: the null, or the negative one."""
    if guided.negative is None:
        return known.null
    if guided.worse is not None or guided.classifier is not None:
        raise UserError("negative must be left out where a worse network or a classifier is given")
    return negative(known, guided.negative)


def _others(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, null: Null) -> list[int]:
    """The label of what the run's own field leads away from, if it does."""
    if guided.worse is not None:
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
    used = rows_of(guided.scale, labels, others) | (set() if guided.is_plain else set(labels.tolist()))
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


def rule_of(guided: GuidanceOptions, run: Run[TaskFacts], conditions: Tree, data_dir: Path | None) -> RuleOf:
    """The function that makes the guidance of the run's field, and of the worse one or the classifier.

    Raises:
        UserError: options that leave each other out, a run that does not fit, or a label that the run never trained.
    """
    null, path = _led_from(guided, run.task.conditions), run.path
    _require_trained(guided, run, conditions, null)
    if guided.classifier is not None:
        if guided.worse is not None:
            raise UserError("classifier must be left out where a worse network is given")
        if not guided.is_plain:
            raise UserError("classifier must be left out where a rule or an interval is asked for")
        log_classifier = classifier_for(run, restore_without_data(guided.classifier, data_dir))
        return lambda placed: by_classifier(placed(run.field), null, log_classifier, path)
    worse = None if guided.worse is None else _worse_field(run, guided.worse, data_dir)

    def of_fields(placed: Callable[[LabelledField], LabelledField]) -> Rule:
        field = placed(run.field)
        pair = guidance.pair(field, null) if worse is None else guidance.autoguidance_pair(field, placed(worse))
        return by_name(guided.rule, path, pair, guided.interval)

    return of_fields
