"""What a finished run says of itself: samples.png, and metrics.json."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import LabelledField
from experiments import runs
from experiments.presets import ImageData, MixtureData
from experiments.report_images import report_images
from experiments.report_mixture import report_mixture
from experiments.restored import Run
from experiments.sampling import ODE, SDE, make_draw, sample_keys, sweep


def draw_sweep(run: Run, field: LabelledField, solver: str) -> np.ndarray:
    """Samples [scales, K, num_per_class, *D] of a field by one solver, in one compiled call.

    Within a label, sample i has the same noise at every scale.
    """
    problem, settings = run.problem, run.experiment.sampling
    draw = make_draw(field, run.model.path, problem.shape, problem.num_labels, solver, settings.num_steps)
    num_samples = problem.num_labels * settings.num_per_class
    labels = jnp.repeat(jnp.arange(problem.num_labels), settings.num_per_class)
    keys = sample_keys(settings.seed, num_samples)
    samples = jax.jit(lambda *arguments: sweep(draw, *arguments))(keys, labels, jnp.asarray(settings.scales))
    split = (len(settings.scales), problem.num_labels, settings.num_per_class, *problem.shape)
    return np.asarray(samples).reshape(split)


def _headline(metrics: dict[str, Any]) -> str:
    rows = [f"  {'w':>5} {'solver':>16} {'recognised':>10}"]
    rows += [f"  {row['scale']:>5g} {row['solver']:>16} {100 * row['recognised']:>9.1f}%" for row in metrics["samples"]]
    return "\n".join(rows)


def report(run: Run, out_dir: Path) -> dict[str, Any]:
    """Samples the run's field, writes pictures and metrics.json into the folder, and returns the metrics."""
    experiment = run.experiment
    start = time.perf_counter()
    field = run.field
    draws = {solver: draw_sweep(run, field, solver) for solver in (ODE, SDE)}
    match experiment.data:
        case MixtureData() as settings:
            metrics = report_mixture(run, settings, draws, out_dir)
        case ImageData() as settings:
            metrics = report_images(experiment, settings, draws, out_dir)
    metrics |= {
        "preset": experiment.preset,
        "num_steps": experiment.sampling.num_steps,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "jax": jax.__version__,
        "report_seconds": round(time.perf_counter() - start, 1),
    }
    runs.write_metrics(out_dir, metrics)
    print(_headline(metrics))
    print(f"wrote {', '.join(sorted(file.name for file in out_dir.glob('*.png')))}, metrics.json in {out_dir}")
    return metrics
