"""A run read back from its folder.

In a notebook one line gives the field that it learned, for any jit, vmap, guidance and solver:

>>> from experiments.run.restore import field_of
>>> field = field_of("runs/digits")  # doctest: +SKIP
>>> jax.jit(field)(jnp.zeros((8, 8, 1)), 0.5, 3).shape  # doctest: +SKIP
(8, 8, 1)
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import jax

from cfgjax import checkpoints
from cfgjax.models import Weakening
from cfgjax.types import Both, FlowMap, GaussianPath, GuidedField, LabelledField, LogClassifier, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.samplers import Jumps, Rule
from experiments.config.schema import Experiment
from experiments.run import ema_snapshots
from experiments.run import folder as run_folder
from experiments.run.model import Model, model_of, path_of_field
from experiments.run.teacher import with_teacher_if_there
from experiments.run.trained_labels import what_is_untrained
from experiments.runtime import distributed
from experiments.tasks import digests, texts
from experiments.tasks.label_names import ranges
from experiments.tasks.memory_limit import require_affordable
from experiments.tasks.registry import facts_of, task_of, with_facts
from experiments.tasks.task import Autoencoder, Reads, Task, TaskFacts
from experiments.tasks.texts import Tokenizer

Known = TypeVar("Known", bound=TaskFacts, covariant=True)


class Run(NamedTuple, Generic[Known]):
    """An experiment with its functions and the moving average of its last checkpoint, that of ``step`` if given.

    The average lies on one device.
    """

    experiment: Experiment
    task: Known
    model: Model
    ema: Tree
    step: int | None = None

    @property
    def path(self) -> GaussianPath:
        """The path on which the field is sampled."""
        return self.model.path

    @property
    def field(self) -> LabelledField:
        """The learned field, by the moving average."""
        return self.model.field(self.ema)

    def weakened(self, weakening: Weakening) -> LabelledField:
        """The learned field of the network without some of what its blocks do."""
        return self.model.field(self.ema, weakening)

    @property
    def sides(self) -> Both:
        """The fields that the network predicts in its middle and at its end, by the moving average."""
        return self.model.sides(self.ema)

    @property
    def rule(self) -> Rule:
        """The guidance of the learned field: classifier-free, or what is inside."""
        return self.model.rule(self.ema)

    @property
    def jumps(self) -> Jumps | None:
        """The learned flow map, None where there is none."""
        return None if self.model.jumps is None else self.model.jumps(self.ema)

    @property
    def log_classifier(self) -> LogClassifier:
        """The learned noisy classifier, by the moving average."""
        return self.model.log_classifier(self.ema)

    @property
    def autoencoder(self) -> Autoencoder:
        """The learned autoencoder, by the moving average."""
        return self.model.autoencoder(self.ema)


def _restored(
    run_dir: Path, data_dir: Path | None, ema_width: float | None, read: Callable[[Experiment], Known]
) -> Run[Known]:
    """The run in a folder, with what ``read`` gives of its task."""
    experiment = distributed.agree(lambda: run_folder.read_config(run_dir))
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data_dir=data_dir)
    task = distributed.agree(lambda: read(experiment))
    distributed.agree(lambda: require_affordable(experiment, task.shape, task.num_classes, num_copies=1))
    model = model_of(experiment, task)
    like = jax.eval_shape(model.init, jax.random.key(0))
    restored = checkpoints.restore_params(run_folder.checkpoints_of(run_dir), like=like)
    for message in restored.corrupt.values():
        distributed.warn(f"warning: {message}; step {restored.step} is read instead")
    run_folder.require_same_as_saved(run_dir, experiment, restored.metadata)
    ema = restored.state if ema_width is None else ema_snapshots.reconstructed(experiment, run_dir, ema_width)
    cli.debug(f"read step {restored.step} of {run_dir}")
    return Run(experiment, task, model, ema, restored.step)


def restore_run(
    run_dir: Path,
    data_dir: Path | None = None,
    ema_width: float | None = None,
    reads: Reads = "all",
    tokenizer: str | None = None,
) -> Run[Task]:
    """The run in a folder, with its data, which may have moved to another ``data_dir``.

    Its parameters are the moving average of its newest whole checkpoint, or with an ``ema_width`` the one of that
    relative width, made of the run's snapshots. What is read of its data is as for ``task_of``. A tokenizer is named by
    the command line, never by the run.

    Raises:
        UserError: no run there.
        CheckpointError: no checkpoint that reads.
        DataError: its data set is not prepared.
    """

    def read(experiment: Experiment) -> Task:
        task = task_of(experiment, reads, texts.loaded(experiment, tokenizer))
        task = task if reads == "shapes" else with_teacher_if_there(experiment, task)
        changed = digests.changed(experiment, with_facts(experiment, task))
        if changed:
            distributed.warn(f"warning: {changed}; what is measured now is measured by these")
        return task

    return _restored(run_dir, data_dir, ema_width, read)


def restore_without_data(run_dir: Path, data_dir: Path | None = None, ema_width: float | None = None) -> Run[TaskFacts]:
    """The run in a folder, as by ``restore_run``, but that no data are read which its config describes."""
    return _restored(run_dir, data_dir, ema_width, facts_of)


def restore_field(
    run_dir: Path,
    data_dir: Path | None = None,
    ema_width: float | None = None,
    tokenizer_of: Callable[[Experiment], Tokenizer | None] = lambda experiment: None,
) -> Run[TaskFacts]:
    """The run of a field in a folder, as by ``restore_without_data``, with what reads prompts where they need it.

    Raises:
        UserError: it holds no field; errors of ``tokenizer_of``.
    """
    run = _restored(run_dir, data_dir, ema_width, lambda experiment: facts_of(experiment, tokenizer_of(experiment)))
    if not run.task.objective.is_field:
        raise UserError(f"run_dir {run_dir} holds {run.task.objective.without_samples}")
    return run


def field_of(run_dir: Path | str, ema_width: float | None = None) -> LabelledField:
    """The field that a run learned, (x [*D], t [], y []) -> [*D], by the moving average of its parameters.

    Network, path and kind of prediction are those of its config.json; label K is null, and a warning says if training
    never reached that row. The parameters are closed over and lie on one device. No data are read, and the optimizer's
    numbers neither.

    Args:
        run_dir: its folder.
        ema_width: relative width of another moving average, made of the run's snapshots.

    Raises:
        UserError: no run of a field there.
        CheckpointError: no checkpoint that reads.
    """
    run = restore_field(Path(run_dir), ema_width=ema_width)
    untrained = what_is_untrained(run.experiment)
    if untrained:
        distributed.warn(f"warning: {run_dir}: {untrained} is learned")
    return run.field


def _at_any_scale(run_dir: Path | str, ema_width: float | None) -> Run[TaskFacts]:
    run = restore_field(Path(run_dir), ema_width=ema_width)
    if not run.task.objective.is_guided:
        raise UserError(f"run_dir {run_dir} holds a field without guidance inside: experiments.run.restore.field_of")
    return run


def guided_field_of(run_dir: Path | str, ema_width: float | None = None) -> GuidedField:
    """The field that a run with guidance inside learned, (x [*D], t [], y, w) -> [*D]; else as ``field_of``."""
    rule = _at_any_scale(run_dir, ema_width).rule
    return lambda x, t, y, w: rule(w)(x, t, y)


def flow_map_of(run_dir: Path | str, ema_width: float | None = None) -> FlowMap:
    """The flow map that a run learned, (x [*D], t [], r [], y, w) -> [*D]; else as ``field_of``."""
    jumps = _at_any_scale(run_dir, ema_width).jumps
    if jumps is None:
        raise UserError(f"run_dir {run_dir} holds a guided field, and no flow map")
    return lambda x, t, r, y, w: jumps(w)(x, t, r, y)


def warn_of_other_data(name: str, run: Run[TaskFacts], guided: Run[TaskFacts]) -> None:
    """Says where a run that guides another learned from other data of the same name."""
    changed = digests.changed(guided.experiment, run.experiment)
    if changed:
        distributed.warn(f"warning: {name} {run.experiment.run_dir}: {changed}")


def classifier_for(guided: Run[TaskFacts], run: Run[TaskFacts]) -> LogClassifier:
    """The noisy classifier of a run that guides another one.

    Raises:
        UserError: a run of something else, or of other data or another path than the guided run's.
    """
    folder, objective = run.experiment.run_dir, run.experiment.objective
    if run.task.objective.kind != "classifier":
        raise UserError(f"classifier {folder} holds a run of objective {objective!r}, not a classifier")
    pairs = {
        "data": tuple(getattr(each.experiment.data, "name", "") for each in (run, guided)),
        "path": (path_of_field(run.experiment), path_of_field(guided.experiment)),
        "shape": (run.task.shape, guided.task.shape),
        "num_classes": (run.task.num_classes, guided.task.num_classes),
    }
    for name, (its, wanted) in pairs.items():
        if its != wanted:
            raise UserError(f"classifier {folder} has {name} {its}, the run {wanted}")
    warn_of_other_data("classifier", run, guided)
    if run.task.absent_labels:
        unseen = ranges(run.task.absent_labels)
        distributed.warn(f"warning: classifier {folder} never saw the labels {unseen}, and leads away from them")
    return run.log_classifier
