"""What a run with guidance inside learns from: the field of another run, or the exact one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cfgjax import checkpoints
from cfgjax.checkpoints import CheckpointError
from cfgjax.checks import short_repr
from cfgjax.data import DataError
from cfgjax.types import Tree
from experiments.cli.main import UserError
from experiments.config.distillation import EXACT, GUIDED, TaughtBy
from experiments.config.samplers import classifier_free
from experiments.config.schema import Experiment
from experiments.run import folder as run_folder
from experiments.run.model import PATHS, model_of, path_of_field
from experiments.run.parts import flatten
from experiments.run.sources import settings_of_network
from experiments.run.trained_labels import knows_labels, knows_null, require_in_range
from experiments.runtime import distributed
from experiments.tasks.conditions import what_is_told
from experiments.tasks.registry import facts_of
from experiments.tasks.task import Task, TaskFacts, Teacher

_CONDITION = "conditioning/parts_condition/"
_LABELS = "LabelEmbedding_0/"


def _require_guided(experiment: Experiment, name: str) -> None:
    if experiment.objective not in GUIDED:
        raise UserError(f"{name} is for the objectives {' and '.join(GUIDED)}, not {experiment.objective!r}")


def named(experiment: Experiment, teacher: Path) -> Experiment:
    """The experiment with a teacher as the command line names it.

    Raises:
        UserError: an objective without one.
    """
    _require_guided(experiment, "teacher")
    return replace(experiment, distillation=replace(experiment.distillation, teacher=TaughtBy(str(teacher))))


def with_step(experiment: Experiment) -> Experiment:
    """The experiment, which knows the checkpoint of its teacher: its folder's own, else the teacher's newest.

    Raises:
        UserError: a loss of distillation of what takes none; no run there, or none that was saved.
    """
    settings, file = experiment.distillation, experiment.run_dir / "config.json"
    if settings.loss is not None:
        _require_guided(experiment, "distillation.loss")
    old = run_folder.read_config(experiment.run_dir).distillation.teacher if file.exists() else None
    named = settings.teacher or old
    if named is None or named.run_dir == EXACT or named.step is not None:
        return replace(experiment, distillation=replace(settings, teacher=named))
    if old is not None and old.run_dir == named.run_dir:
        return replace(experiment, distillation=replace(settings, teacher=old))
    where = Path(named.run_dir)
    run_folder.read_config(where)
    step = checkpoints.latest_step(run_folder.checkpoints_of(where))
    if step is None:
        raise UserError(f"teacher {where} holds no checkpoint")
    return replace(experiment, distillation=replace(settings, teacher=TaughtBy(named.run_dir, step)))


def with_teacher(experiment: Experiment, task: Task) -> Task:
    """The task with what guidance is distilled from, if anything is.

    Raises:
        UserError: no run there, or one that does not fit.
        CheckpointError: its checkpoint does not read.
    """
    named = experiment.distillation.teacher
    if named is None or not task.objective.is_guided:
        return task
    return replace(task, teacher=_exact(experiment, task) if named.run_dir == EXACT else _run(named, experiment, task))


def with_teacher_if_there(experiment: Experiment, task: Task) -> Task:
    """The task as by ``with_teacher``, or with a warning without one that is gone."""
    try:
        return with_teacher(experiment, task)
    except (UserError, CheckpointError, DataError) as error:
        distributed.warn(f"warning: the teacher is not measured: {error}")
        return task


def _exact(experiment: Experiment, task: Task) -> Teacher:
    if task.exact is None:
        raise UserError(f"teacher {EXACT} is for a mixture; name the folder of a run")
    rule = classifier_free(task.exact(PATHS[path_of_field(experiment)]()), task.conditions.null)
    return Teacher(EXACT, lambda params: rule, None, None)


def _require_fit(named: TaughtBy, experiment: Experiment, task: TaskFacts, its: Experiment, facts: TaskFacts) -> None:
    """Raises UserError for a teacher of other data, another path or label set, or without a field to teach."""
    where = f"teacher {named.run_dir}"
    if not facts.objective.is_field:
        raise UserError(f"{where} must hold a field, and holds {facts.objective.without_samples}")
    names = facts.class_names, task.class_names
    pairs: dict[str, tuple[Any, Any]] = {
        "path": (path_of_field(its), path_of_field(experiment)),
        "shape": (facts.shape, task.shape),
        "num_classes": (facts.num_classes, task.num_classes),
        "labels": (names[0], names[1]) if None not in names else (None, None),
        "conditions": (what_is_told(its, facts.conditions), what_is_told(experiment, task.conditions)),
        "factor and shift": (facts.scaling, task.scaling),
    }
    for name, (theirs, own) in pairs.items():
        if theirs != own:
            raise UserError(f"{where} has {name} {short_repr(theirs)}, the run {short_repr(own)}")
    if not (knows_null(its) and knows_labels(its)):
        raise UserError(f"{where} has no null field, or no labelled one: label_drop_rate {its.label_drop_rate:g}")
    for scale in experiment.distillation.scales:
        require_in_range(where, its, scale)


def _run(named: TaughtBy, experiment: Experiment, task: Task) -> Teacher:
    where = Path(named.run_dir)
    its = replace(run_folder.read_config(where), data_dir=experiment.data_dir)
    facts = facts_of(its)
    _require_fit(named, experiment, task, its, facts)
    model = model_of(its, facts)
    like = jax.eval_shape(model.init, jax.random.key(0))
    params = checkpoints.restore_params(run_folder.checkpoints_of(where), named.step, "ema", like).state
    is_same = settings_of_network(its) == settings_of_network(experiment) and its.path == experiment.path
    is_same &= its.objective in ("field", *GUIDED)
    return Teacher(named.run_dir, model.rule, params, _renamed(params) if is_same else None)


def _renamed(params: Tree) -> Mapping[str, np.ndarray]:
    """A field's parameters by the names that they have where guidance is inside."""
    found = flatten(params)
    if any(name.startswith(_CONDITION) for name in found):
        return found

    def renamed(name: str) -> str:
        part = next((part for part in (_LABELS, "conditioning/") if name.startswith(part)), None)
        return name if part is None else _CONDITION + name.removeprefix(part)

    return {renamed(name): leaf for name, leaf in found.items()}
