"""What a finished run says of itself: pictures, and metrics.json."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.config.samplers import ODE_SOLVERS, SDE_SOLVERS
from experiments.evaluation import by_evaluations, by_scale, frechet, measurable
from experiments.evaluation.guided_samples import FREE
from experiments.evaluation.options import NOTHING_MORE, EvaluationOptions
from experiments.run import folder as run_folder
from experiments.run.require_trained import with_known_scales
from experiments.run.restore import Run
from experiments.tasks.task import Task

_OF_REPORTS = (
    "samples.png",
    "densities.png",
    "curves.png",
    "curves.csv",
    "residuals.png",
    "classifier.png",
    by_scale.NAME,
)
"""What reports write beside metrics.json and samples-*.npz."""
_SOLVERS = *ODE_SOLVERS, *SDE_SOLVERS
_COLUMNS = {"recognised": ".1%", "frechet": ".3f", "coverage": ".3f"}
"""Numbers of a row of samples, and how they are written."""


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    return f"{row[name]:>10{form}}" if name in row else f"{'-':>10}"


def _table(rows: Sequence[Mapping[str, Any]], of_rows: tuple[str, ...], form: str) -> list[str]:
    """Rows as lines under the names of their columns: those that tell the rows apart, and numbers."""
    if not rows:
        return []
    numbers = [name for name in rows[0] if name not in of_rows]
    head = "  " + " ".join([f"{name:>14}" for name in of_rows] + [f"{name:>10}" for name in numbers])
    return [head] + [
        "  " + " ".join([f"{row[name]!s:>14}" for name in of_rows] + [_number(row, name, form) for name in numbers])
        for row in rows
    ]


def _reconstruction(metrics: Mapping[str, Any]) -> list[str]:
    """Lines on what an autoencoder loses, and on its latents."""
    if "reconstruction" not in metrics:
        return []
    its, count = metrics["reconstruction"], metrics["num_images"]
    numbers = ", ".join(f"{name} {its[name]:.4g}" for name in ("rms", "psnr", "kl") if name in its)
    return [f"  {count} held-out pictures: {numbers}", *_table(metrics["latents"], ("channel",), ".3f")]


def _real_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Real images, and what an autoencoder makes of them, under the samples."""
    lines = []
    if "real_against_real" in metrics:
        real = metrics["real_against_real"]
        numbers = _number(real, "frechet", ".3f"), _number(real, "coverage", ".3f")
        lines.append(f"  {'real against real':>47} {' '.join(numbers)}")
    if "reconstructions" in metrics:
        found = metrics["reconstructions"]
        numbers = (_number(found, name, form) for name, form in _COLUMNS.items())
        lines.append(f"  {'real, encoded and decoded':>36} {' '.join(numbers)}")
        error = f"rms error {found['rms']:.4f}, PSNR {found['psnr']:.2f} dB"
        lines.append(f"  {found['num_images']} held-out pictures encoded and decoded: {error}")
    return lines


def _headline(metrics: Mapping[str, Any]) -> str:
    lines = []
    if "recogniser_test_accuracy" in metrics:
        lines.append(f"  feature classifier's own test accuracy {100 * metrics['recogniser_test_accuracy']:.1f}%")
    if metrics.get("samples"):
        lines.append(f"  {'guidance':>15} {'solver':>14} {'w':>5} {'accuracy':>10} {'Frechet':>10} {'coverage':>10}")
    for row in metrics.get("samples", ()):
        start = f"  {row.get('guidance', FREE):>15} {row['solver']:>14} {row['scale']:>5g}"
        numbers = (_number(row, name, form) for name, form in _COLUMNS.items())
        lines.append(" ".join((start, *numbers)))
    lines += frechet.lines(metrics)
    lines += by_evaluations.lines(metrics)
    lines += _table(metrics.get("property_errors", ()), ("solver", "scale"), ".3f")
    lines += _table(metrics.get("words_met", ()), ("prompts", "solver", "scale"), ".1%")
    lines += _real_lines(metrics)
    for row in metrics.get("at_equal_recognition", ()):
        at = f"  at {row['recognised']:.1%} class accuracy, {row['solver']}"
        start = f"{at}, {row['guidance']} at w = {row['scale']:.2f}:"
        numbers = (
            f"{name} {row[key]:.3f}" for name, key in (("Frechet", "frechet"), ("coverage", "coverage")) if key in row
        )
        lines.append(f"{start} {', '.join(numbers)}")
    for row in metrics.get("by_time", ()):
        found = f"{row['accuracy']:.1%} right, calibration error {row['calibration_error']:.3f}"
        lines.append(f"  t = {row['t']:.1f}: {found}")
    lines += _reconstruction(metrics)
    for name, bits in metrics.get("bits_per_dimension", {}).items():
        lines.append(f"  {name}: {bits['mean']:.3f} +- {bits['standard_error']:.3f} bits per dimension")
    return "\n".join(lines)


def report(run: Run[Task], out_dir: Path, options: EvaluationOptions = NOTHING_MORE) -> dict[str, Any]:
    """Samples the run's field, writes pictures and metrics.json into the folder, and returns the metrics.

    Numbers that the data or the samples cannot carry are left out of the metrics, and named in one line before they are
    measured, or after where only then it is known.
    """
    run = with_known_scales(run)
    experiment, start = run.experiment, time.perf_counter()
    before = _written(out_dir)
    missing = run.task.left_out(experiment.sampling.num_per_class, options)
    measurable.tell(missing)
    metrics = run.task.evaluate(run, options, out_dir, missing)
    rows = by_evaluations.by_evaluations(run, options, metrics.get("samples", ()))
    metrics, names = measurable.finite(metrics | ({"by_evaluations": rows} if rows else {}))
    _remove_former(out_dir, before)
    also = metrics.get("left_out", {}) | dict.fromkeys(names, "not finite")
    measurable.tell(also)
    metrics |= {"left_out": missing | also} if missing or also else {}
    metrics |= {
        "preset": experiment.preset,
        "num_steps": experiment.sampling.num_steps,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "jax": jax.__version__,
        "report_seconds": round(time.perf_counter() - start, 1),
    }
    run_folder.write_metrics(out_dir, metrics)
    headline = _headline(metrics)
    if headline:
        print(headline)
    print(f"wrote {', '.join(sorted(name for name, _ in _written(out_dir) - before))} in {out_dir}")
    return metrics


def _remove_former(out_dir: Path, before: set[tuple[str, int]]) -> None:
    """Removes what only an earlier report wrote, as pictures by an autoencoder that this one has not."""
    names = {name for name, _ in before}
    if "metrics.json" not in names:
        return
    for name, _ in _written(out_dir) & before:
        is_of_solver = name.startswith("samples-") and name.endswith(tuple(f"-{solver}.npz" for solver in _SOLVERS))
        if name in _OF_REPORTS or is_of_solver:
            (out_dir / name).unlink()


def _written(out_dir: Path) -> set[tuple[str, int]]:
    """The files of a report in a folder, and when they were written."""
    files = (file for form in ("*.png", "*.csv", "*.npz", "metrics.json") for file in out_dir.glob(form))
    return {(file.name, file.stat().st_mtime_ns) for file in files}
