"""Draw samples of a run: as one picture, one for each, the numbers, or an animation of how they came about.

For example: python -m experiments.sample runs/digits --labels 3 3 7 --scale 2.5 --num-samples 64 --out threes.png

The suffix of --out says which: .png one picture of all; a path that ends in a slash, or an empty folder: a .png for
each; .npz arrays x and y, of pictures arr_0, too; with --trajectory .gif, .apng or .npz. The run's folder is all that
is read. Each file says how it was made: python -m experiments.provenance threes.png
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from cfgjax import data, guidance
from cfgjax.types import LabelledField
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import (
    GridName,
    Rule,
    RuleName,
    RuleOf,
    SolverName,
    by_classifier,
    by_name,
    denoised,
    make_draw,
    num_evaluations,
    one_sided,
    states,
    times,
)
from experiments.run import provenance
from experiments.run.batch_sampling import draw_all
from experiments.run.model import path_of_field
from experiments.run.require_trained import require_rows, rows_of
from experiments.run.restore import Run, restore_field, restore_run, warn_of_other_data
from experiments.run.restore_classifier import load_classifier
from experiments.sample import files as sample_files
from experiments.sample import images as sample_images
from experiments.tasks.label_names import allowed, labels_by_word
from experiments.tasks.task import Task

STILLS, ANIMATIONS, ARRAYS = (".png",), (".gif", ".apng"), (".npz",)
_NUMBER = 4


@dataclass(frozen=True)
class SampleOptions:
    """Which samples, and how many."""

    labels: Annotated[tuple[str, ...], optional("LABEL [LABEL ...]", "each label that was trained on once")] = ()
    """Label of each sample in turn, repeated as needed, by number or by name; K, or null, is the null label."""
    num_samples: Annotated[int | None, optional("INT", "one for each of --labels")] = None
    """Number of samples."""
    seed: int = 0
    """Seed of the noise, from 0; sample i is the same in any number of samples."""
    chunk: Annotated[int | None, optional("INT", "as many as the device's memory is quick with")] = None
    """Samples computed together."""


@dataclass(frozen=True)
class GuidanceOptions:
    """How the labelled and the null field are put together; docs/guidance.md shows each rule."""

    scale: float = 2.0
    """Guidance scale w: 0 null, 1 labelled, above 1 guided; at 0 and at 1 one field is evaluated, else both."""
    rule: RuleName = "classifier_free"
    """What is done with the labelled and the null field."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times, from 0 noise to 1 data, between which guidance acts; outside the labelled field alone is evaluated."""
    negative_label: Annotated[str | None, optional("LABEL", "the null label")] = None
    """Label to lead away from in the null label's place, by number or by name."""
    worse: Annotated[Path | None, optional("FOLDER", "the run's own null field")] = None
    """Folder of a run of a worse network on the same data, to lead away from in the null label's place."""
    classifier: Annotated[Path | None, optional("FOLDER", "classifier-free")] = None
    """Folder of a run of a noisy classifier, to guide the null field by its gradient."""


@dataclass(frozen=True)
class SolverOptions:
    """How noise becomes data."""

    solver: SolverName = "heun"
    """Of the SDE with sigma_t^2 = 2 beta_t: the two stochastic ones; of the ODE: the others (adaptive: diffrax's)."""
    grid: GridName = "uniform"
    """How the times of the steps are spread over 0..1."""
    num_steps: int = 32
    """Solver steps from noise to data; adaptive chooses its own."""


@dataclass(frozen=True)
class LoadOptions:
    """What is read."""

    ema_width: Annotated[float | None, optional("FLOAT", "the run's own average")] = None
    """Relative width of the moving average of the parameters, made of the run's snapshots."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; needed only for runs whose config lacks the data's shape."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written, whole or not at all. A file is overwritten, a folder must be new or empty."""

    out: Annotated[str, tyro.conf.arg(metavar="PATH")] = "samples.png"
    """File to write (.png, .npz; for a trajectory .gif, .apng, .npz), or a folder with a slash at its end."""
    trajectory: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show every sample at all times of its solve, noise first: num_steps + 1 frames."""
    show: Literal["state", "denoised"] = "state"
    """What a trajectory shows: x_t, or the data that the guided field expects at the end of it."""


@dataclass(frozen=True)
class Options:
    """What to draw."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    sample: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SampleOptions)
    guidance: Annotated[GuidanceOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=GuidanceOptions)
    solver: Annotated[SolverOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SolverOptions)
    run: Annotated[LoadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=LoadOptions)
    output: Annotated[OutputOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=OutputOptions)


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise UserError(message)


def _check_numbers(options: Options) -> None:
    which, guided, solving = options.sample, options.guidance, options.solver
    _require(abs(guided.scale) <= 1e4, f"scale must be finite, in -10000..10000, got {guided.scale}")
    _require(0 <= which.seed < 2**32, f"seed must be in 0..{2**32 - 1}, got {which.seed}")
    counts = {"num_steps": solving.num_steps, "num_samples": which.num_samples, "chunk": which.chunk}
    for name, count in counts.items():
        _require(count is None or count >= 1, f"{name} must be at least 1, got {count}")
    data.check_memory("num_steps", 2 * _NUMBER * solving.num_steps)
    start, stop = guided.interval
    _require(0 <= start < stop <= 1, f"interval must be 0 <= start < stop <= 1, got {start:g} {stop:g}")
    is_enough = solving.grid != "karras" or solving.num_steps >= 2
    _require(is_enough, "num_steps must be at least 2 for the grid karras, got 1")


def _check_output(output: OutputOptions) -> Path:
    """The path to write, once its kind fits and it can be written."""
    path, is_folder = Path(output.out), sample_files.is_folder(output.out)
    _require(output.trajectory or output.show == "state", "show is for a --trajectory")
    if output.trajectory:
        is_right = not is_folder and path.suffix in ANIMATIONS + ARRAYS
        _require(is_right, f"out must end in .gif, .apng or .npz for a trajectory, got {output.out}")
    else:
        _require(
            path.suffix not in ANIMATIONS or is_folder, f"{path.suffix} is for a --trajectory, got out {output.out}"
        )
        is_right = is_folder or path.suffix in STILLS + ARRAYS
        _require(is_right, f"out must end in .png or .npz, or be a folder with a slash at its end, got {output.out}")
    return sample_files.require_writable(output.out)


def _called(option: str, words: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    """The labels that an option calls so, of labels of these names."""
    known = labels_by_word(names) if words else {}
    for word in words:
        _require(word in known, f"{option} must be {allowed(names, known)}, got {word}")
    return [known[word] for word in words]


def _labels(which: SampleOptions, names: tuple[str, ...], absent: tuple[int, ...] = ()) -> np.ndarray:
    """The label of each sample, of labels of these names; by default of all but those that were absent in training."""
    chosen = _called("labels", which.labels, names) or np.setdiff1d(np.arange(len(names)), absent)
    data.check_memory("num_samples", _NUMBER * (which.num_samples or len(chosen)))
    return np.resize(chosen, which.num_samples or len(chosen)).astype(np.int32)


def _worse(run: Run, worse_dir: Path, data_dir: Path | None) -> LabelledField:
    """The field of the worse run."""
    worse = restore_run(worse_dir, data_dir, reads="shapes")
    is_alike = (worse.task.shape, worse.task.num_classes) == (run.task.shape, run.task.num_classes)
    is_field = worse.task.objective.is_field
    is_alike = is_alike and is_field and path_of_field(worse.experiment) == path_of_field(run.experiment)
    _require(is_alike, f"worse must be a run on the same kind of data and path, got {worse_dir}")
    warn_of_other_data("worse", worse, run)
    require_rows(worse, worse.task.labels[:1], "worse")
    return worse.field


def _led_from(guided: GuidanceOptions, run: Run) -> int:
    """The label to lead away from: the null label, or the negative one."""
    negative, null = guided.negative_label, run.task.num_classes
    if negative is None:
        return null
    is_alone = guided.worse is None and guided.classifier is None
    _require(is_alone, "negative_label must be left out where a worse network or a classifier is given")
    (label,) = _called("negative_label", (negative,), run.task.label_texts)
    return label


def _require_trained(guided: GuidanceOptions, run: Run, labels: np.ndarray) -> None:
    """Refuses labels, null among them, whose rows the run never trained."""
    others = (_led_from(guided, run),) if guided.worse is None else ()
    if guided.classifier is not None:
        require_rows(run, others, "classifier")
        return
    is_plain = guided.rule == "classifier_free" and guided.interval == (0.0, 1.0)
    used = rows_of(guided.scale, labels, others) | (set() if is_plain else set(labels.tolist()))
    require_rows(run, used, f"w = {guided.scale:g}")


def _rule_of(guided: GuidanceOptions, run: Run, data_dir: Path | None) -> RuleOf:
    """The function that makes the guidance of the run's field, and of the worse one."""
    null, path = _led_from(guided, run), run.model.path
    if guided.classifier is None:
        worse = None if guided.worse is None else _worse(run, guided.worse, data_dir)

        def rule_of(placed: Callable[[LabelledField], LabelledField]) -> Rule:
            field = placed(run.field)
            pair = guidance.pair(field, null) if worse is None else guidance.autoguidance_pair(field, placed(worse))
            return by_name(guided.rule, path, pair, guided.interval)

        return rule_of
    _require(guided.worse is None, "classifier must be left out where a worse network is given")
    is_plain = guided.rule == "classifier_free" and guided.interval == (0.0, 1.0)
    _require(is_plain, "classifier must be left out where a rule or an interval is asked for")
    log_classifier = load_classifier(guided.classifier, run, data_dir, "shapes")
    return lambda placed: by_classifier(placed(run.field), null, log_classifier, path)


def _check_size(options: Options, task: Task, num_samples: int, num_frames: int, out: Path) -> None:
    """All that is drawn must fit this machine and its kind of file."""
    is_animation, shape = options.output.trajectory, task.shape
    name = "num_samples x num_steps" if is_animation else "num_samples"
    data.check_memory(name, 2 * _NUMBER * num_samples * num_frames * int(np.prod(shape)))
    if sample_files.is_folder(options.output.out):
        is_image = len(shape) == 3 and shape[-1] in (1, 3)
        _require(is_image, f"out must be a file for samples of shape {shape}: they are no images")
    elif out.suffix not in ARRAYS:
        sample_images.require_drawable(task.samples, shape, num_samples, num_frames)


def _write(options: Options, run: Run, samples: np.ndarray, labels: np.ndarray, num_frames: int, out: Path) -> None:
    made = provenance.of_run(run)
    if sample_files.is_folder(options.output.out):
        sample_images.write_each(samples, labels, run.task.num_classes, made, out)
    elif out.suffix in ARRAYS:
        sample_images.write_arrays(out, made, **run.task.samples.arrays(samples, labels))
    elif options.output.trajectory:
        sample_images.write_animation(run.task.samples.frames(samples, labels), num_frames, made, out)
    else:
        sample_images.write_picture(run.task.samples.picture(samples, labels), made, out)


def sample(options: Options) -> None:
    """Draws the samples and writes them."""
    _check_numbers(options)
    out = _check_output(options.output)
    data_dir, solving = options.run.data_dir, options.solver
    run = restore_field(options.run_dir, data_dir, options.run.ema_width)
    path, shape = run.model.path, run.task.shape
    labels = _labels(options.sample, run.task.label_texts, run.task.absent_labels)
    _require_trained(options.guidance, run, labels)
    ts = times(path, solving.num_steps, solving.grid, options.guidance.interval)
    num_frames = len(ts) if options.output.trajectory else 1
    _check_size(options, run.task, len(labels), num_frames, out)
    rule_of, watch, scale = _rule_of(options.guidance, run, data_dir), None, options.guidance.scale
    if options.output.trajectory:
        watch = denoised(path) if options.output.show == "denoised" else states
    draw = make_draw(one_sided(rule_of(lambda field: field), scale), path, shape, solving.solver, ts, watch)
    count = num_evaluations(rule_of, run.field, path, shape, solving.solver, ts, scale)
    cost = "" if count is None else f" ({count} evaluations each)"
    (samples,) = draw_all(draw, options.sample.seed, labels, (scale,), options.sample.chunk, f"sampling{cost}")
    _write(options, run, samples, labels, num_frames, out)
    frames = f", {num_frames} frames" if options.output.trajectory else ""
    print(f"wrote {len(samples)} samples at w = {scale:g}{cost}{frames} to {out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(sample, Options, "experiments.sample", __doc__, args)


if __name__ == "__main__":
    main()
