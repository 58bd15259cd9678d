"""Draw samples of a run: a PNG picture, or the numbers as .npz.

For example: python -m experiments.sample runs/digits --labels 3 3 7 --scale 2.5 --out threes.png
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.figure import Figure
from PIL import Image

from cfgjax import data, guidance
from cfgjax.types import Pair
from experiments import command, runs
from experiments.command import UserError
from experiments.evaluate import load_classifier
from experiments.restored import Run, restore_run
from experiments.sampling import GridName, Rule, RuleName, SolverName, by_classifier, by_name, draw_all, make_draw

PIXELS = 8
"""Screen pixels for each pixel of an image of 8 x 8, fewer for larger ones."""


@dataclass(frozen=True)
class Options:
    """What to draw."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    labels: tuple[int, ...] | None = None
    """Label of each sample in turn, repeated up to --num-samples; K is the null label. By default all labels."""
    scale: float = 2.0
    """Guidance scale w: 0 null, 1 labelled, above 1 guided."""
    solver: SolverName = "heun"
    """euler_maruyama and stochastic_heun follow the SDE with sigma_t = sqrt(2 beta_t), the others the ODE; adaptive
    chooses its own steps (needs diffrax)."""
    grid: GridName = "uniform"
    """Times of the steps."""
    rule: RuleName = "classifier_free"
    """What is done with the labelled and the null field; see docs/guidance.md."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts; outside them the labelled field alone is evaluated."""
    num_steps: int = 32
    """Solver steps from noise to data."""
    num_samples: int | None = None
    """How many samples; by default one for each of --labels."""
    chunk: int | None = None
    """Samples computed together; by default as many as the device's memory is quick with."""
    seed: int = 0
    """Seed; sample i is the same in any number of samples."""
    worse: Path | None = None
    """Folder of a run of a worse network on the same data, to lead away from in the null label's place."""
    classifier: Path | None = None
    """Folder of a run of a noisy classifier, to guide the null field by; by default guidance is classifier-free."""
    ema_width: float | None = None
    """Relative width of the moving average to use, made of the run's snapshots; by default the run's own average."""
    data_dir: Path | None = None
    """Folder of prepared data sets; by default the run's own."""
    out: Path = Path("samples.png")
    """File to write: .png for a picture, .npz for arrays x and y."""


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise UserError(message)


def _check(options: Options, num_labels: int) -> None:
    _require(abs(options.scale) <= 1e4, f"scale must be finite, in -10000..10000, got {options.scale}")
    _require(0 <= options.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {options.seed}")
    _require(not options.out.is_dir(), f"out must be a file, got the folder {options.out}")
    _require(options.num_steps >= 1, f"num_steps must be at least 1, got {options.num_steps}")
    _require(
        options.num_samples is None or options.num_samples >= 1,
        f"num_samples must be at least 1, got {options.num_samples}",
    )
    _require(options.chunk is None or options.chunk >= 1, f"chunk must be at least 1, got {options.chunk}")
    start, stop = options.interval
    _require(0 <= start < stop <= 1, f"interval must be 0 <= start < stop <= 1, got {start:g} {stop:g}")
    _require(
        options.grid != "karras" or options.num_steps >= 2, "num_steps must be at least 2 for the grid karras, got 1"
    )
    _require(options.out.suffix in (".png", ".npz"), f"out must end in .png or .npz, got {options.out}")
    for label in options.labels or ():
        _require(0 <= label <= num_labels, f"labels must be in 0..{num_labels} ({num_labels} is null), got {label}")


def _write_images(samples: np.ndarray, file: Path) -> None:
    """Writes images [n, height, width, channels] in [-1, 1] as one grid."""
    columns = math.ceil(math.sqrt(len(samples)))
    rows = math.ceil(len(samples) / columns)
    blank = np.full((rows * columns - len(samples), *samples.shape[1:]), -1.0)
    framed = np.pad(
        data.to_pixels(np.concatenate([samples, blank])), ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=128
    )
    height, width, channels = framed.shape[1:]
    grid = framed.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * height, columns * width, channels)
    image = Image.fromarray(grid[..., 0] if channels == 1 else grid)
    times = max(1, PIXELS // max(1, samples.shape[1] // 8))
    image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST).save(file)


def _write_points(samples: np.ndarray, labels: np.ndarray, file: Path) -> None:
    """Writes points [n, 2] as a scatter plot, coloured by label."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*samples.T, s=8, c=labels, cmap="tab10", linewidths=0)
    axes.set_aspect("equal")
    figure.savefig(file, dpi=120)


def _against(run: Run, worse_dir: Path, data_dir: Path | None) -> Pair:
    """The run's field, and that of the worse run, both at the asked label."""
    worse = restore_run(worse_dir, data_dir)
    is_alike = (worse.problem.shape, worse.problem.num_labels) == (run.problem.shape, run.problem.num_labels)
    is_field = worse.experiment.objective != "classifier" and worse.experiment.path == run.experiment.path
    _require(is_alike and is_field, f"worse must be a run on the same kind of data and path, got {worse_dir}")
    return guidance.against(run.field, worse.field)


def _rule(options: Options, run: Run) -> Rule:
    null = run.problem.num_labels
    if options.classifier is None:
        worse = options.worse
        pair = guidance.pair(run.field, null) if worse is None else _against(run, worse, options.data_dir)
        return by_name(options.rule, run.model.path, pair, options.interval)
    _require(options.worse is None, "classifier must be left out where a worse network is given")
    is_plain = options.rule == "classifier_free" and options.interval == (0.0, 1.0)
    _require(is_plain, "classifier must be left out where a rule or an interval is asked for")
    log_classifier = load_classifier(options.classifier, run, options.data_dir)
    return by_classifier(run.field, null, log_classifier, run.model.path)


def sample(options: Options) -> None:
    """Draws the samples and writes the file."""
    run = restore_run(options.run_dir, options.data_dir, options.ema_width)
    _require(run.experiment.objective != "classifier", f"{options.run_dir} holds a classifier, which draws no samples")
    _check(options, run.problem.num_labels)
    _require(
        options.out.suffix == ".npz" or run.problem.shape == (2,) or run.problem.shape[-1] in (1, 3),
        f"out must end in .npz for samples of shape {run.problem.shape}, got {options.out}",
    )
    chosen = options.labels or tuple(range(run.problem.num_labels))
    labels = np.resize(chosen, options.num_samples or len(chosen)).astype(np.int32)
    rule, shape = _rule(options, run), run.problem.shape
    draw = make_draw(rule, run.model.path, shape, options.solver, options.num_steps, options.grid, options.interval)
    (samples,) = draw_all(draw, options.seed, labels, (options.scale,), options.chunk)
    runs.make_folder("out", options.out.parent)
    if options.out.suffix == ".npz":
        np.savez(options.out, x=samples, y=labels)
    elif samples.ndim == 4:
        _write_images(samples, options.out)
    else:
        _write_points(samples, labels, options.out)
    print(f"wrote {len(samples)} samples at w = {options.scale:g} to {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.main(sample, Options, "experiments.sample", __doc__, args)


if __name__ == "__main__":
    main()
