"""Small grids of samples while a run trains: samples/STEP.png, conditions by guidance scales, of the moving average.

Nothing of a grid reaches the training: it has the keys of the run's own samples, those of its report.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import Tree
from experiments.cli.main import UserError
from experiments.config.samplers import JUMP, ODE, Draw, make_draw, times
from experiments.config.schema import Experiment
from experiments.run.batch_sampling import gather, keys_at, own_sweep
from experiments.run.decoder import Decoder
from experiments.run.model import Model
from experiments.run.trained_labels import known_scales
from experiments.runtime import distributed
from experiments.tasks.conditions import take
from experiments.tasks.latents import as_shown, decoded_facts
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "samples"
MOST_ROWS, MOST_SCALES = 10, 6
"""What a grid shows at most: the first conditions and scales."""
_NAME = re.compile(r"\d{1,18}\.png")


def files(run_dir: Path) -> dict[int, Path]:
    """The grids in a run's folder by step, in order."""
    found = [file for file in (run_dir / FOLDER).glob("*.png") if _NAME.fullmatch(file.name)]
    return dict(sorted((int(file.stem), file) for file in found))


def rewind(run_dir: Path, step: int) -> None:
    """Removes the grids that a resumed run will draw again."""
    for number, file in files(run_dir).items():
        if number > step:
            file.unlink()


def require_samples(experiment: Experiment, every: int | None) -> None:
    """Finds out whether a run can be sampled so often.

    Raises:
        UserError: it cannot.
    """
    if every is None:
        return
    if every < 1:
        raise UserError(f"samples_every must be at least 1, got {every}")
    if OBJECTIVES[experiment.objective].kind == "classifier":
        raise UserError("samples_every must be left out where a classifier is trained, which draws no samples")


class SampleGrids:
    """Draws the grids of one run; what fails is a warning, and neither ends nor changes the run.

    Args:
        experiment: the run.
        task: what it learns from.
        model: its functions.
        every: steps between two grids; None draws none.
        decoder: of latents, which are shown as pictures.
    """

    def __init__(
        self, experiment: Experiment, task: Task, model: Model, every: int | None, decoder: Decoder | None = None
    ) -> None:
        self._experiment, self._task, self._model, self._every = experiment, task, model, every
        self._decoder, self._shown = decoder, task.samples if decoder is None else decoded_facts(task, decoder).samples
        conditions = task.conditions
        self._texts = conditions.texts[:MOST_ROWS]
        self._conditions = take(conditions.rows, np.arange(len(self._texts)))
        self._per_row = min(experiment.sampling.num_per_class, self._shown.most_in_grid)
        self._scales = known_scales(experiment, experiment.sampling.scales)[:MOST_SCALES]
        self._way = "ODE" if model.jumps is None else "flow map"
        self._own: Callable[[Tree], np.ndarray] | None = None
        self._is_failure_said = False

    def is_due(self, steps: range) -> bool:
        """Whether a multiple of ``every`` lies among the steps of a dispatch; a grid is drawn after all of them."""
        return self._every is not None and steps.stop // self._every > steps.start // self._every

    def _sweep(self, ema: Tree) -> Callable[[Tree], np.ndarray]:
        """The compiled sampling: the first samples of each condition of the run's report, by ODE or flow map."""
        settings, shape, model = self._experiment.sampling, self._task.shape, self._model
        ts = times(model.path, settings.num_steps)

        def draw_of(params: Tree) -> Draw:
            jumps = None if model.jumps is None else model.jumps(params)
            return make_draw(model.rule(params), model.path, shape, ODE if jumps is None else JUMP, ts, jumps=jumps)

        row = np.arange(len(self._texts))
        first = row.reshape(-1, 1) * settings.num_per_class
        keys = keys_at(settings.seed, jnp.asarray(np.ravel(first + np.arange(self._per_row))))
        conditions = take(self._conditions, np.repeat(row, self._per_row))
        return own_sweep(draw_of, ema, keys, conditions, self._scales, settings.chunk)

    def samples(self, ema: Tree) -> np.ndarray:
        """The samples [scales, conditions, n, *D] of parameters, on all processes.

        Raises:
            UserError: they are not finite, or a process could not compute them.
        """
        ema = jax.tree.map(distributed.whole, ema)
        own, trouble = None, ""
        try:
            self._own = self._own or self._sweep(ema)
            own = self._own(ema)
        except (RuntimeError, UserError) as error:  # JAX's own are RuntimeErrors: no memory left, most of all
            trouble = str(error) or type(error).__name__
        said = [text for text in distributed.all_texts(trouble) if text]
        if said or own is None:
            raise UserError(said[0])
        drawn = gather(own, len(self._texts) * self._per_row, self._scales)
        return drawn.reshape(len(self._scales), len(self._texts), self._per_row, *self._task.shape)

    def draw(self, ema: Tree, step: int) -> Path | None:
        """Writes the grid of a step, on the first process; None where there is none."""
        try:
            samples = self.samples(ema)
            return self._write(samples, step) if distributed.is_process_0() else None
        except (UserError, OSError, RuntimeError) as error:
            if not self._is_failure_said:
                message = " ".join(str(error).split())[:300]
                distributed.warn(f"warning: no sample grid at step {step}: {message}; training goes on")
            self._is_failure_said = True
            return None

    def figure(self, samples: np.ndarray, step: int) -> Figure:
        """The grid of a step's samples."""
        shown = as_shown(self._task, samples) if self._decoder is None else self._decoder.decode_all(samples)
        return self._shown.sample_grid(shown, self._scales, self._texts, f"step {step}, {self._way}")

    def _write(self, samples: np.ndarray, step: int) -> Path:
        figure = self.figure(samples, step)
        file = self._experiment.run_dir / FOLDER / f"{step}.png"
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_suffix(".draft")
        figure.savefig(temporary, dpi=100, format="png")
        temporary.replace(file)
        return file
