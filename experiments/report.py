"""What a finished run says of itself: samples.png, and metrics.json."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.types import LabelledField, Tree
from experiments import runs
from experiments.model import Model
from experiments.presets import Experiment, ImageData, MixtureData
from experiments.problems import Problem
from experiments.report_images import report_images
from experiments.report_mixture import report_mixture
from experiments.sampling import ODE, SDE, make_draw, sample_keys, sweep


def draw_sweep(experiment: Experiment, problem: Problem, model: Model, field: LabelledField, solver: str) -> np.ndarray:
    """Samples [scales, K, num_per_class, *D] of a field by one solver, in one compiled call.

    Within a label, sample i has the same noise at every scale.
    """
    settings = experiment.sampling
    draw = make_draw(field, model.path, problem.shape, problem.num_labels, solver, settings.num_steps)
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


def report(experiment: Experiment, problem: Problem, model: Model, params: Tree, out_dir: Path) -> dict[str, Any]:
    """Samples the field of these parameters, writes pictures and metrics.json into the folder, and returns the metrics.

    Args:
        experiment: with ``sampling`` as wanted.
        problem: the experiment's.
        model: the experiment's.
        params: the moving average of a run.
        out_dir: where pictures and metrics.json go.
    """
    start = time.perf_counter()
    field = model.field(jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params))
    draws = {solver: draw_sweep(experiment, problem, model, field, solver) for solver in (ODE, SDE)}
    match experiment.data:
        case MixtureData() as settings:
            metrics = report_mixture(experiment, settings, model, field, draws, out_dir)
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
