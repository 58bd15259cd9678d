"""Small sheets of samples while a run trains: samples/STEP.png, labels by guidance scales, of the moving average.

Nothing of a sheet reaches the training: it has the keys of the run's own samples, those of its report.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cfgjax.types import LabelledField, Tree
from experiments.cli.main import UserError
from experiments.config.samplers import ODE, Draw, classifier_free, make_draw, times
from experiments.config.schema import Experiment
from experiments.figures.fonts import room_for
from experiments.figures.image_grid import show_sheet
from experiments.run.batch_sampling import gather, keys_at, own_sweep
from experiments.run.model import Model
from experiments.run.trained_labels import known_scales
from experiments.runtime import distributed
from experiments.tasks.label_names import label_texts
from experiments.tasks.registry import Problem

FOLDER = "samples"
MOST_LABELS, MOST_SCALES, MOST_POINTS = 10, 6, 64
"""What a sheet shows at most: the first labels and scales, and of points so many a label."""
_REACH = 3.0
"""Latents are shown between plus and minus so many standard deviations of theirs."""
_NAME = re.compile(r"\d{1,18}\.png")


def files(run_dir: Path) -> dict[int, Path]:
    """The sheets in a run's folder by step, in order."""
    found = [file for file in (run_dir / FOLDER).glob("*.png") if _NAME.fullmatch(file.name)]
    return dict(sorted((int(file.stem), file) for file in found))


def rewind(run_dir: Path, step: int) -> None:
    """Removes the sheets that a resumed run will draw again."""
    for number, file in files(run_dir).items():
        if number > step:
            file.unlink()


def _draw_images(samples: np.ndarray, scales: tuple[float, ...], labels: Sequence[str], title: str) -> Figure:
    """The sheet of images, or of the first channels of latents, [scales, K, 1, H, W, C]."""
    shown = samples[:, :, 0]
    if shown.shape[-1] not in (1, 3):
        shown = (shown[..., :3] if shown.shape[-1] > 3 else shown[..., :1]) / _REACH
    figure = Figure(
        figsize=(0.5 + room_for(labels) + 0.6 * len(scales), 0.7 + 0.6 * samples.shape[1]), layout="constrained"
    )
    axes = figure.subplots()
    show_sheet(axes, shown, scales, labels)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize="small")
    axes.set_title(title, fontsize="medium")
    return figure


def _draw_points(samples: np.ndarray, scales: tuple[float, ...], title: str, limit: float) -> Figure:
    """The sheet of points [scales, K, n, 2]: a panel for each scale, a colour for each label."""
    figure = Figure(figsize=(0.3 + 1.5 * len(scales), 2.1), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, scale, by_label in zip(np.ravel(figure.subplots(1, len(scales))), scales, samples, strict=True):
        for label, points in enumerate(by_label):
            axes.scatter(*points.T, s=2, color=f"C{label % 10}", linewidths=0)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
        axes.set_title(f"w = {scale:g}", fontsize="medium")
    return figure


def require_samples(experiment: Experiment, every: int | None) -> None:
    """Finds out whether a run can be sampled so often.

    Raises:
        UserError: it cannot.
    """
    if every is None:
        return
    if every < 1:
        raise UserError(f"samples_every must be at least 1, got {every}")
    if experiment.objective == "classifier":
        raise UserError("samples_every must be left out where a classifier is trained, which draws no samples")


class SampleGrids:
    """Draws the sheets of one run; what fails is said once, and neither ends nor changes the run.

    Args:
        experiment: the run.
        problem: its data.
        model: its functions.
        every: steps between two sheets; None draws none.
    """

    def __init__(self, experiment: Experiment, problem: Problem, model: Model, every: int | None) -> None:
        self._experiment, self._problem, self._model, self._every = experiment, problem, model, every
        self._labels = problem.labels[:MOST_LABELS]
        self._per_label = min(experiment.sampling.num_per_class, MOST_POINTS) if problem.shape == (2,) else 1
        self._scales = known_scales(experiment, experiment.sampling.scales)[:MOST_SCALES]
        self._own: Callable[[Tree], np.ndarray] | None = None
        self._is_failure_said = False

    def is_due(self, steps: range) -> bool:
        """Whether a multiple of ``every`` lies among the steps of a dispatch; a sheet is drawn after all of them."""
        return self._every is not None and steps.stop // self._every > steps.start // self._every

    def _sweep(self, ema: Tree) -> Callable[[Tree], np.ndarray]:
        """The compiled sampling: the first samples of each label of the run's report, by the ODE."""
        settings, shape, null = self._experiment.sampling, self._problem.shape, self._problem.num_classes

        path = self._model.path
        ts = times(path, settings.num_steps)

        def draw_of(params: Tree) -> Draw:
            field: LabelledField = self._model.field(params)
            return make_draw(classifier_free(field, null), path, shape, ODE, ts)

        first = np.arange(len(self._labels)).reshape(-1, 1) * settings.num_per_class
        keys = keys_at(settings.seed, jnp.asarray(np.ravel(first + np.arange(self._per_label))))
        labels = np.repeat(self._labels, self._per_label)
        return own_sweep(draw_of, ema, keys, labels, self._scales, settings.chunk)

    def samples(self, ema: Tree) -> np.ndarray:
        """The samples [scales, labels, n, *D] of parameters, on all processes.

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
        drawn = gather(own, len(self._labels) * self._per_label, self._scales)
        return drawn.reshape(len(self._scales), len(self._labels), self._per_label, *self._problem.shape)

    def draw(self, ema: Tree, step: int) -> Path | None:
        """Writes the sheet of a step, on the first process; None where there is none."""
        try:
            samples = self.samples(ema)
            return self._write(samples, step) if distributed.is_process_0() else None
        except (UserError, OSError) as error:
            if not self._is_failure_said:
                message = " ".join(str(error).split())[:300]
                distributed.warn(f"warning: no sheet of samples at step {step}: {message}; training goes on")
            self._is_failure_said = True
            return None

    def _write(self, samples: np.ndarray, step: int) -> Path:
        title = f"step {step}, ODE"
        if self._problem.shape == (2,):
            figure = _draw_points(samples, self._scales, title, self._limit())
        else:
            labels = label_texts(self._experiment, self._problem.num_classes)
            figure = _draw_images(samples, self._scales, [labels[y] for y in self._labels], title)
        file = self._experiment.run_dir / FOLDER / f"{step}.png"
        file.parent.mkdir(exist_ok=True)
        draft = file.with_suffix(".draft")
        figure.savefig(draft, dpi=100, format="png")
        draft.replace(file)
        return file

    def _limit(self) -> float:
        """Half the width of the panels of points, that of the report's."""
        return 1.8 * getattr(self._experiment.data, "radius", 2.0)
