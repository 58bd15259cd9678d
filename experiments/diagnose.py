"""Look into guided solves of a run: what guidance does by class and time, as a picture and as numbers.

For each label, or other condition of the report, the mean over samples of |u_y - u_null|, the cosine of both,
CFG-Zero's s*, the guided field's divergence, and the share of the guided denoiser beyond the data's bound; and how
often the network was evaluated. Where the run dropped fewer or more conditions than this w asks for, it says so.
For example: python -m experiments.diagnose runs/digits --scale 2.5 --interval 0.2 0.8
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from cfgjax import guidance, solvers
from cfgjax.analysis.guidance_diagnostics import Diagnostics, by_label, diagnostics
from cfgjax.analysis.residuals import balanced_drop_rate
from cfgjax.piecewise import Piecewise
from cfgjax.types import Array, Condition, LabelledField, Scale, Solver
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.samplers import times
from experiments.figures.fonts import in_legend
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import equal_parts, sample_keys
from experiments.run.require_trained import require_rows
from experiments.run.restore import Run, restore_field
from experiments.runtime import progress
from experiments.runtime.batching import plan_batching
from experiments.tasks import texts
from experiments.tasks.conditions import take, unasked
from experiments.tasks.task import TaskFacts

TITLES = {
    "distance": "|u_y - u_null|",
    "cosine": "cosine of u_y and u_null",
    "cfg_zero_star": "s* of CFG-Zero*",
    "divergence": "divergence of the guided field",
    "saturation": "share of denoiser out of bounds",
}
PROBE = 0xD1


@dataclass(frozen=True)
class Options:
    """What to look at."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    scale: float = 2.0
    """Guidance scale w: 0 null, 1 labelled, above 1 guided."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Times between which guidance acts; outside them the labelled field alone is evaluated."""
    num_steps: int = 32
    """Steps of Heun's rule from noise to data."""
    num_per_class: int = 16
    """Samples of each of them."""
    bound: Annotated[float | None, optional("FLOAT", "1 for images, 4 for points")] = None
    """Largest absolute value of data."""
    seed: int = 0
    """Seed of the samples."""
    data_dir: Annotated[Path | None, optional("FOLDER", "the run's own")] = None
    """Folder of prepared data sets; needed only for runs whose config lacks the data's shape."""
    tokenizer: Annotated[str | None, optional("MODULE:FUNCTION", "none")] = None
    """What reads texts, of a run that was trained with one: text -> integers [n] or numbers [n, d]."""
    out: Path = Path("diagnostics.png")
    """Picture to write; the numbers go beside it, as .csv."""


def observe(run: Run[TaskFacts], options: Options, ts: Array) -> tuple[Diagnostics, np.ndarray]:
    """The diagnostics of each condition, [K, n + 1] each; the evaluations of each step, [n]."""
    task, path, field, told = run.task, run.path, run.field, run.task.conditions
    null, scale = told.null, guidance.interval(options.scale, *options.interval)
    bound = options.bound if options.bound is not None else task.samples.bound

    def solver_of(field: LabelledField, y: Condition, scale: Scale) -> Solver | Piecewise[Solver]:
        return solvers.heun(guidance.given(guidance.classifier_free(field, scale, null), y))

    def draw(key: Array, y: Condition) -> Diagnostics:
        noise = jax.random.normal(key, task.shape)
        look = diagnostics(path, guidance.pair(field, null), jax.random.fold_in(key, PROBE), scale, y, bound)
        return solvers.integrate(solver_of(field, y, scale), key, noise, ts, look)[1]

    row = np.tile(np.arange(len(told.texts)), options.num_per_class)
    keys, ys = sample_keys(options.seed, len(row)), jax.tree.map(jnp.asarray, take(unasked(told), row))
    one = jax.tree.map(lambda leaf: leaf[0], ys)
    chunk = min(plan_batching(draw, keys[0], one).chunk, len(row))
    program = jax.jit(lambda *each: jax.lax.map(lambda one: draw(*one), each, batch_size=chunk))
    parts = equal_parts(len(row), 1, chunk)
    looks = [
        jax.tree.map(np.asarray, program(keys[part], take(ys, part)))
        for part in progress.each(parts, "parts of the samples", "looking")
    ]
    seen = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(row)], *looks)
    each = solvers.num_function_evaluations(
        lambda field: solver_of(field, one, scale), field, jnp.zeros(task.shape), ts
    )
    return by_label(seen, jnp.asarray(row), len(told.texts)), each


def _draw(seen: Diagnostics, each: np.ndarray, ts: np.ndarray, labels: dict[int, str], file: Path) -> None:
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    *panels, last = figure.subplots(2, 3).flat
    for axes, (name, title) in zip(panels, TITLES.items(), strict=True):
        rows = np.asarray(getattr(seen, name))
        for row, (y, label) in zip(rows, labels.items(), strict=True):
            axes.plot(ts[:-1], row[:-1], label=in_legend(y, label), color=f"C{y % 10}", linewidth=1)
        axes.set(title=title, xlabel="t (0 noise, 1 data)")
    panels[0].legend(title="label", ncols=2, fontsize="x-small")
    last.step(ts, np.concatenate([[0], np.cumsum(each)]), where="post", color="black")
    last.set(title="evaluations of the network", xlabel="t (0 noise, 1 data)", ylim=(0, None))
    figure.savefig(file, dpi=100)


def _write(seen: Diagnostics, ts: np.ndarray, labels: Iterable[int], file: Path) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "t", *TITLES])
        for row, y in enumerate(labels):
            for index, t in enumerate(ts):
                values = (float(getattr(seen, name)[row, index]) for name in TITLES)
                writer.writerow([y, f"{t:g}", *(f"{value:.6g}" for value in values)])


def _check(options: Options) -> None:
    start, stop = options.interval
    if not 0 <= start < stop <= 1:
        raise UserError(f"interval must be 0 <= start < stop <= 1, got {start} {stop}")
    if not abs(options.scale) <= 1e4:
        raise UserError(f"scale must be finite, in -10000..10000, got {options.scale}")
    if options.bound is not None and not 0 < options.bound < np.inf:
        raise UserError(f"bound must be positive and finite, got {options.bound}")
    for name in ("num_steps", "num_per_class"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(options, name)}")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed must be in 0..{2**32 - 1}, got {options.seed}")
    if options.out.suffix != ".png":
        raise UserError(f"out must end in .png, got {options.out}")


def drop_rate_advice(drop_rate: float, scale: float) -> str | None:
    """What to say of a run's drop rate, for guidance by a scale; None where it is within a factor 2 of the balance."""
    balanced = float(balanced_drop_rate(scale))
    if scale in (0.0, 1.0) or 0.5 <= drop_rate / balanced <= 2:
        return None
    return (
        f"trained with {drop_rate:g} of the conditions dropped: at w = {scale:g} the errors of both sides are balanced "
        f"at {balanced:.2g} (w^2 / (1 - p) + (w - 1)^2 / p least, both sides alike); experiments.drop_rates compares "
        "runs, docs/fewer_evaluations.md"
    )


def diagnose(options: Options) -> None:
    """Looks, draws and writes."""
    _check(options)
    run = restore_field(options.run_dir, options.data_dir, tokenizer_of=partial(texts.loaded, name=options.tokenizer))
    if run.task.objective.is_guided:
        raise UserError(f"diagnose needs a labelled and a null side: guidance is inside {options.run_dir}'s network")
    require_rows(run, (*run.task.labels, run.task.num_classes), "diagnose")
    ts = times(run.path, options.num_steps, "uniform", options.interval)
    seen, each = observe(run, options, jnp.asarray(ts))
    run_folder.make_folder("out", options.out.parent)
    labels = dict(zip(run.task.conditions.numbers.tolist(), run.task.conditions.texts, strict=True))
    _draw(seen, each, ts, labels, options.out)
    _write(seen, ts, labels, options.out.with_suffix(".csv"))
    advice = drop_rate_advice(run.experiment.label_drop_rate, options.scale)
    if advice is not None and not run.experiment.null_consistency:
        print(advice)
    print(f"wrote {options.out} and {options.out.with_suffix('.csv')}; {each.sum()} evaluations a sample")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(diagnose, Options, "experiments.diagnose", __doc__, args)


if __name__ == "__main__":
    main()
