"""A run read back from its folder."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import checkpoints
from cfgjax.types import LabelledField, LogClassifier, Tree
from experiments import averaging, processes, runs
from experiments.model import Model, model_of
from experiments.problems import Problem, abstract_problem_of, problem_of
from experiments.settings import Experiment, LatentData


class Run(NamedTuple):
    """An experiment with its functions and the moving average of its last checkpoint."""

    experiment: Experiment
    problem: Problem
    model: Model
    ema: Tree

    @property
    def _on_one_device(self) -> Tree:
        return jax.tree.map(lambda leaf: jnp.asarray(processes.whole(leaf)), self.ema)

    @property
    def field(self) -> LabelledField:
        """The learned field, by the moving average, on one device."""
        return self.model.field(self._on_one_device)

    @property
    def log_classifier(self) -> LogClassifier:
        """The learned noisy classifier, by the moving average, on one device."""
        return self.model.log_classifier(self._on_one_device)


def _problem_of(experiment: Experiment) -> Problem:
    """The problem; of latents that are not here its shapes alone, which are all that drawing needs."""
    settings = experiment.data
    if isinstance(settings, LatentData) and not (experiment.data_dir / settings.folder).exists():
        return abstract_problem_of(experiment)
    return problem_of(experiment)


def restore_run(run_dir: Path, data_dir: Path | None = None, ema_width: float | None = None) -> Run:
    """The run in a folder; its data may have moved to another ``data_dir``.

    Its parameters are the moving average of its newest whole checkpoint, or with an ``ema_width`` the one of that
    relative width, made of the run's snapshots.

    Raises:
        UserError: no run there.
        CheckpointError: no checkpoint that reads.
        DataError: its data set is not prepared.
    """
    experiment = runs.read_config(run_dir)
    if data_dir is not None:
        experiment = dataclasses.replace(experiment, data_dir=data_dir)
    problem = processes.together(lambda: _problem_of(experiment))
    model = model_of(experiment, problem)
    restored = checkpoints.restore(runs.checkpoints_of(run_dir), model.create())
    for message in restored.damaged.values():
        processes.note(f"warning: {message}; step {restored.step} is read instead")
    runs.require_same_as_saved(run_dir, experiment, restored.metadata)
    ema = restored.state.ema
    if ema_width is not None:
        ema = averaging.reconstructed(experiment, run_dir, restored.state, ema_width)
    return Run(experiment, problem, model, ema)
