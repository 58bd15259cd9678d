"""A run read back from its folder.

In a notebook one line gives the field that it learned, for any jit, vmap, guidance and solver:

>>> from experiments.run.restore import field_of
>>> field = field_of("runs/digits")  # doctest: +SKIP
>>> jax.jit(field)(jnp.zeros((8, 8, 1)), 0.5, 3).shape  # doctest: +SKIP
(8, 8, 1)
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import checkpoints
from cfgjax.types import GaussianPath, LabelledField, LogClassifier, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.run import ema_snapshots
from experiments.run import folder as run_folder
from experiments.run.model import Model, model_of
from experiments.run.trained_labels import what_is_untrained
from experiments.runtime import distributed
from experiments.tasks import digests
from experiments.tasks.memory_limit import require_affordable
from experiments.tasks.registry import task_of, with_facts
from experiments.tasks.task import Reads, Task


class Run(NamedTuple):
    """An experiment with its functions and the moving average of its last checkpoint, that of ``step`` if given."""

    experiment: Experiment
    task: Task
    model: Model
    ema: Tree
    step: int | None = None

    @property
    def path(self) -> GaussianPath:
        """The path on which the field is sampled."""
        return self.model.path

    @property
    def _on_one_device(self) -> Tree:
        return jax.tree.map(lambda leaf: jnp.asarray(distributed.whole(leaf)), self.ema)

    @property
    def field(self) -> LabelledField:
        """The learned field, by the moving average, on one device."""
        return self.model.field(self._on_one_device)

    @property
    def log_classifier(self) -> LogClassifier:
        """The learned noisy classifier, by the moving average, on one device."""
        return self.model.log_classifier(self._on_one_device)


def restore_run(
    run_dir: Path,
    data_dir: Path | None = None,
    ema_width: float | None = None,
    reads: Reads = "all",
) -> Run:
    """The run in a folder; its data may have moved to another ``data_dir``.

    Its parameters are the moving average of its newest whole checkpoint, or with an ``ema_width`` the one of that
    relative width, made of the run's snapshots. What is read of its data is as for ``task_of``.

    Raises:
        UserError: no run there.
        CheckpointError: no checkpoint that reads.
        DataError: its data set is not prepared.
    """
    experiment = run_folder.read_config(run_dir)
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data_dir=data_dir)
    task = distributed.agree(lambda: task_of(experiment, reads))
    distributed.agree(lambda: require_affordable(experiment, task.shape, task.num_classes))
    changed = digests.changed(experiment, with_facts(experiment, task))
    if changed:
        distributed.warn(f"warning: {changed}; what is measured now is measured by these")
    model = model_of(experiment, task)
    like = jax.eval_shape(model.create).ema
    restored = checkpoints.restore_params(run_folder.checkpoints_of(run_dir), like=like)
    for message in restored.corrupt.values():
        distributed.warn(f"warning: {message}; step {restored.step} is read instead")
    run_folder.require_same_as_saved(run_dir, experiment, restored.metadata)
    ema = restored.state
    if ema_width is not None:
        ema = ema_snapshots.reconstructed(experiment, run_dir, ema_width)
    cli.debug(f"read step {restored.step} of {run_dir}")
    return Run(experiment, task, model, ema, restored.step)


def restore_field(run_dir: Path, data_dir: Path | None = None, ema_width: float | None = None) -> Run:
    """The run of a field in a folder, as by ``restore_run``; no data are read.

    Raises:
        UserError: it holds a classifier.
    """
    run = restore_run(run_dir, data_dir, ema_width, "shapes")
    if not run.task.objective.is_field:
        raise UserError(f"run_dir {run_dir} holds a classifier, which draws no samples")
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


def warn_of_other_data(name: str, run: Run, guided: Run) -> None:
    """Says where a run that guides another learned from other data of the same name."""
    changed = digests.changed(guided.experiment, run.experiment)
    if changed:
        distributed.warn(f"warning: {name} {run.experiment.run_dir}: {changed}")
