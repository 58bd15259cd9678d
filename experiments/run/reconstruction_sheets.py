"""Sheets of held-out pictures and of what an autoencoder makes of them, in the place of a field's sample grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.figures import reconstructions
from experiments.run.decoder import Decoder
from experiments.run.model import Model
from experiments.run.sample_grids import SampleGrids
from experiments.runtime import distributed
from experiments.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ReconstructionSheets(SampleGrids):
    """Draws the sheets of one run, as ``SampleGrids`` a field's grids, of the first process's share of the pictures."""

    def __init__(self, experiment: Experiment, task: Task, model: Model, every: int | None) -> None:
        super().__init__(experiment, task, model, every)
        held_out = jax.tree.map(lambda leaf: leaf[: reconstructions.MOST], task.held_out)
        keys = jax.random.split(jax.random.key(experiment.seed), len(jax.tree.leaves(held_out)[0]))
        self._images = jax.vmap(task.example)(keys, held_out)[0]

        def reconstructed(params: Tree, image: Array) -> Array:
            encode, decode = model.autoencoder(params)
            return decode(encode(image)[0])

        self._reconstruct = jax.jit(jax.vmap(reconstructed, (None, 0)))

    def samples(self, ema: Tree) -> np.ndarray:
        """What the means of the pictures' latents are decoded to, [n, H, W, C].

        Raises:
            UserError: they could not be computed.
        """
        ema = jax.tree.map(distributed.whole, ema)
        try:
            return np.asarray(self._reconstruct(ema, self._images))
        except RuntimeError as error:  # JAX's own: no memory left, most of all
            raise UserError(str(error)) from None

    def figure(self, samples: np.ndarray, step: int) -> Figure:
        """The sheet of a step."""
        return reconstructions.figure(np.asarray(self._images), samples, f"{reconstructions.TITLE}, step {step}")


def grids_of(
    experiment: Experiment, task: Task, model: Model, every: int | None, decoder: Decoder | None = None
) -> SampleGrids:
    """What is drawn while a run trains; arguments as ``SampleGrids``."""
    if task.objective.kind == "autoencoder" and every is not None:
        return ReconstructionSheets(experiment, task, model, every)
    return SampleGrids(experiment, task, model, every, decoder)
