"""The report on the mixture: the learned field against the oracle, and what guidance does to the density."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.analysis.residuals import relative_error
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, GaussianPath, LabelledField
from experiments.config.samplers import JUMP, ODE, SDE, classifier_free
from experiments.evaluation import by_scale
from experiments.evaluation.exact_laws import EXACT_STEPS, energy_distances, kl_divergences
from experiments.evaluation.guided_samples import EVALUATIONS, FREE, Way, guided_draws
from experiments.evaluation.measurable import RECOGNITION, Need
from experiments.evaluation.options import EvaluationOptions
from experiments.run.batch_sampling import sample_keys
from experiments.tasks.task import Learned

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TIMES = tuple(round(0.05 * index, 2) for index in range(1, 20))
NUM_STATES = 8192
NUM_DENSITY_SAMPLES = 2_000
KINDS = {ODE: "ODE", SDE: "SDE"}
"""What the solvers of a report are called in its pictures; others by their names."""


def field_errors(
    field: LabelledField, mixture: LabelledMixture, path: GaussianPath, seed: int
) -> dict[str, list[float]]:
    """The relative L2 error of a field under p_t, at each of TIMES: averaged over labels, and of the null field."""
    exact, null = mixture.vector_field(path), mixture.num_classes

    @jax.jit
    def error(labels: Array, t: Array) -> Array:
        keys = sample_keys(seed, NUM_STATES)
        states = jax.vmap(lambda key, y: mixture.sample(key, y, path, t))(keys, labels)
        at = jax.vmap(lambda field_of, x, y: field_of(x, t, y), in_axes=(None, 0, 0))
        return relative_error(at(field, states, labels), at(exact, states, labels))

    def by_time(labels: Array) -> list[float]:
        return [float(error(labels, jnp.float32(t))) for t in TIMES]

    some_label = jnp.arange(NUM_STATES) % mixture.num_classes
    return {"labelled": by_time(some_label), "null": by_time(jnp.full(NUM_STATES, null))}


def _class_accuracy(mixture: LabelledMixture, path: GaussianPath, samples: np.ndarray) -> float:
    """The share of samples [K, n, 2] whose own label is the likeliest by the exact posterior."""
    log_probs = mixture.label_log_probs(path)
    likeliest = jax.vmap(jax.vmap(lambda x: jnp.argmax(log_probs(x, jnp.float32(1)))))(jnp.asarray(samples))
    return float(np.mean(np.asarray(likeliest) == np.arange(mixture.num_classes).reshape(-1, 1)))


def _moments(samples: np.ndarray) -> dict[str, Any]:
    return {"mean": samples.mean(axis=0).tolist(), "covariance": np.cov(samples.T).tolist()}


def _density_draws(run: Learned, way: Way) -> np.ndarray:
    """Samples [scales, n, 2] of label 0."""
    settings, draw = run.experiment.sampling, way.draw_of(run)
    keys = sample_keys(settings.seed, NUM_DENSITY_SAMPLES)
    by_scale = jax.vmap(jax.vmap(draw, in_axes=(0, None, None)), in_axes=(None, None, 0))
    return np.asarray(jax.jit(by_scale)(keys, jnp.int32(0), jnp.asarray(settings.scales)))


def _contours(axes: Axes, mixture: LabelledMixture, path: GaussianPath, limit: float, label: int) -> None:
    ticks = np.linspace(-limit, limit, 81)
    points = jnp.asarray(np.stack(np.meshgrid(ticks, ticks), axis=-1), jnp.float32)
    density = mixture.log_density(path)
    values = np.exp(jax.vmap(jax.vmap(lambda x: density(x, jnp.float32(1), jnp.int32(label))))(points))
    axes.contour(ticks, ticks, values / values.max(), levels=(0.1, 0.4, 0.7), colors="tab:red", linewidths=0.8)


def _bare(axes: Axes, limit: float) -> None:
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def draw_densities(
    rows: dict[str, np.ndarray], scales: tuple[float, ...], mixture: LabelledMixture, path: GaussianPath, file: Path
) -> None:
    """Writes the picture: a row for each law, a column for each scale; red lines are the true density of label 0."""
    from matplotlib.figure import Figure

    limit = 1.8 * float(jnp.max(jnp.abs(mixture.means)))
    figure = Figure(figsize=(2.4 * len(scales) + 0.6, 2.4 * len(rows) + 0.7), layout="constrained")
    figure.suptitle("guided densities of label 0 (shaded) over the true density given label 0 (red)")
    panels = figure.subplots(len(rows), len(scales), squeeze=False)
    for panel_row, (name, samples) in zip(panels, rows.items(), strict=True):
        for axes, scale, points in zip(panel_row, scales, samples, strict=True):
            axes.hist2d(*points.T, bins=50, range=[[-limit, limit]] * 2, cmap="Blues", density=True)
            _contours(axes, mixture, path, limit, label=0)
            _bare(axes, limit)
            axes.set_title(f"w = {scale:g}")
        panel_row[0].set_ylabel(name)
    figure.savefig(file, dpi=100)


def draw_samples(draws: dict[str, np.ndarray], scales: tuple[float, ...], file: Path) -> None:
    """Writes the picture: for each solver a row for each label and a column for each scale, one noise along a row."""
    from matplotlib.figure import Figure

    limit = 1.05 * max(float(np.abs(samples).max()) for samples in draws.values())
    num_classes = next(iter(draws.values())).shape[1]
    num_columns = len(draws) * len(scales)
    figure = Figure(figsize=(1.1 * num_columns, 1.1 * num_classes + 0.8), layout="constrained")
    panels = figure.subplots(num_classes, num_columns, squeeze=False)
    columns = [(solver, index) for solver in draws for index in range(len(scales))]
    for column, (solver, index) in enumerate(columns):
        panels[0, column].set_title(f"{solver}, w = {scales[index]:g}".replace(", ", "\n"), fontsize=9)
        for label in range(num_classes):
            axes = panels[label, column]
            axes.scatter(*draws[solver][index, label].T, s=2, color=f"C{label % 10}", linewidths=0)
            _bare(axes, limit)
    for label in range(num_classes):
        panels[label, 0].set_ylabel(f"label {label}", fontsize=9)
    figure.savefig(file, dpi=100)


def needs(options: EvaluationOptions) -> list[Need]:
    """The numbers of the report that labels are needed for."""
    return [RECOGNITION]


def _laws(run: Learned, mixture: LabelledMixture) -> dict[str, Way]:
    """The ways to draw of the exact guided laws, and of those that were learned, by their names."""
    exact = classifier_free(mixture.vector_field(run.path), mixture.num_classes)
    num_steps = run.experiment.sampling.num_steps
    if run.jumps is None:
        rules = {"exact field": exact, "learned field": run.rule}
        return {
            f"{name}, {kind}": Way(rule, solver, num_steps)
            for solver, kind in KINDS.items()
            for name, rule in rules.items()
        }
    maps = {
        f"flow map, {count} evaluation{'s' if count > 1 else ''}": Way(run.rule, JUMP, count, run.jumps)
        for count in EVALUATIONS
    }
    return {"exact field, ODE": Way(exact, ODE, EXACT_STEPS), **maps}


def evaluate(run: Learned, mixture: LabelledMixture, options: EvaluationOptions, out_dir: Path) -> dict[str, Any]:
    """The metrics of a field and of its samples; writes samples.png and densities.png.

    Which label a sample has is asked of two labels or more.
    """
    draws, _ = guided_draws(run, options)
    path, scales = run.path, run.experiment.sampling.scales
    errors = field_errors(run.field, mixture, path, run.experiment.sampling.seed)
    laws = {name: _density_draws(run, way) for name, way in _laws(run, mixture).items()}
    is_guided = run.task.objective.is_guided
    figures = energy_distances(run, mixture, draws, options) if is_guided else {}
    divergences = kl_divergences(run, mixture, options) if is_guided else {}
    draw_densities(laws, scales, mixture, path, out_dir / "densities.png")
    shown = {KINDS.get(solver, f"{guidance}, {solver}"): samples for (guidance, solver), samples in draws.items()}
    draw_samples(shown, scales, out_dir / "samples.png")
    by_scale.write(out_dir, shown, [scales] * len(shown), run.task.conditions.texts)
    guided = [
        {"law": name, "scale": scale, **_moments(points)}
        for name, samples in laws.items()
        for scale, points in zip(scales, samples, strict=True)
    ]
    has_labels = mixture.num_classes >= RECOGNITION.least.labels

    def accuracy(samples: np.ndarray) -> dict[str, float]:
        return {"recognised": _class_accuracy(mixture, path, samples)} if has_labels else {}

    return {
        "relative_error": {name: float(np.mean(values)) for name, values in errors.items()},
        "relative_error_by_time": {"t": list(TIMES), **errors},
        "guided_label_0": guided,
        "samples": [
            {
                **({} if guidance == FREE else {"guidance": guidance}),
                "scale": scale,
                "solver": solver,
                **accuracy(samples[index]),
                **figures.get((guidance, solver, scale), {}),
                **divergences.get((guidance, solver, scale), {}),
            }
            for (guidance, solver), samples in draws.items()
            for index, scale in enumerate(scales)
        ],
    }
