"""The report on a noisy classifier: how often it is right, and whether it knows, by t."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, metrics, paths
from cfgjax.types import Array, GaussianPath, LogClassifier
from experiments.evaluation.measurable import BY_TIME, Need
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import sample_keys
from experiments.tasks.task import Learned

TIMES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NUM_IMAGES = 2_000


def noisy_states(path: GaussianPath, image: np.ndarray, t: float, seed: int) -> Array:
    """x = alpha z + beta noise for images z [n, *D], each with its own noise."""
    keys = sample_keys(seed, len(image))
    draw = jax.vmap(lambda key, z: paths.sample(path, key, z, jnp.float32(t)).x)
    return draw(keys, jnp.asarray(image))


def by_time(log_classifier: LogClassifier, path: GaussianPath, test: data.Images, seed: int) -> list[dict[str, float]]:
    """Accuracy, cross-entropy and expected calibration error on noisy held-out images, at each of TIMES."""
    image, label = test.image[:NUM_IMAGES], test.label[:NUM_IMAGES]

    @jax.jit
    def log_probs_at(states: Array, t: Array) -> Array:
        return jax.lax.map(lambda x: log_classifier(x, t), states, batch_size=64)

    rows = []
    for t in TIMES:
        log_probs = np.asarray(log_probs_at(noisy_states(path, image, t, seed), jnp.float32(t)))
        rows.append(
            {
                "t": t,
                "accuracy": float(np.mean(np.argmax(log_probs, axis=1) == label)),
                "cross_entropy": float(-np.mean(log_probs[np.arange(len(label)), label])),
                "calibration_error": metrics.calibration_error(log_probs, label),
            }
        )
    return rows


def needs(options: EvaluationOptions) -> list[Need]:
    """The numbers of the report."""
    return [BY_TIME]


def evaluate(run: Learned, test: data.Images, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
    """The numbers by t, unless they are missing; writes classifier.png."""
    from matplotlib.figure import Figure

    if BY_TIME.numbers in missing:
        return {}
    rows = by_time(run.log_classifier, run.path, test, run.experiment.sampling.seed)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in ("accuracy", "calibration_error"):
        axes.plot(TIMES, [row[name] for row in rows], "o-", label=name.replace("_", " "))
    axes.axhline(1 / test.num_classes, color="gray", linestyle=":", label="chance")
    axes.set(xlabel="t (0 noise, 1 data)", ylim=(0, 1), title="the noisy classifier on held-out images")
    axes.legend()
    figure.savefig(out_dir / "classifier.png", dpi=100)
    return {"by_time": rows}
