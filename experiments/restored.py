"""A run read back from its folder."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import checkpoints
from cfgjax.types import LabelledField, Tree
from experiments import runs
from experiments.model import Model, model_of
from experiments.presets import Experiment
from experiments.problems import Problem, problem_of


class Run(NamedTuple):
    """An experiment with its functions and the moving average of its last checkpoint."""

    experiment: Experiment
    problem: Problem
    model: Model
    ema: Tree

    @property
    def field(self) -> LabelledField:
        """The learned field, by the moving average, on one device."""
        return self.model.field(jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), self.ema))


def restore_run(run_dir: Path) -> Run:
    """The run in a folder.

    Raises:
        UserError: no run there.
        CheckpointError: no checkpoint that reads.
        DataError: its data set is not prepared.
    """
    experiment = runs.read_config(run_dir)
    problem = problem_of(experiment)
    model = model_of(experiment, problem)
    state = checkpoints.restore(runs.checkpoints_of(run_dir), model.create())
    return Run(experiment, problem, model, state.ema)
