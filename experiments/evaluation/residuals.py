"""Whether field and classifier agree, by t: which of them is trained too little, and where.

Residuals, relative and over noisy held-out images: |b grad log p(y|x) - (u_y - u_null)| / |u_y - u_null|, and
|sum_y p(y|x) u_y - u_null| / |u_null|. The second needs no gradient of the classifier.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cfgjax import data
from cfgjax.analysis.residuals import guidance_terms, posterior_mean_field, relative_error
from cfgjax.types import Array, GaussianPath, LabelledField, LogClassifier
from experiments.evaluation.classifier import noisy_states

TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NUM_IMAGES = 512


def residuals(
    field: LabelledField, log_classifier: LogClassifier, path: GaussianPath, test: data.Images, seed: int
) -> list[dict[str, float]]:
    """Both residuals, the cosine between both guidance terms, and their lengths, at each of TIMES."""
    null = test.num_classes
    mean_field = posterior_mean_field(field, log_classifier, null)

    @jax.jit
    def at(states: Array, labels: Array, t: Array) -> dict[str, Array]:
        def one(drawn: tuple[Array, Array]) -> tuple[Array, ...]:
            x, y = drawn
            terms = guidance_terms(path, field, log_classifier, x, t, y, null)
            return *terms, mean_field(x, t), field(x, t, jnp.int32(null))

        by_classifier, by_label, mean, null_field = jax.lax.map(one, (states, labels), batch_size=32)
        lengths = [jnp.sqrt(jnp.sum(jnp.square(term))) for term in (by_classifier, by_label)]
        return {
            "guidance_residual": relative_error(by_classifier, by_label),
            "guidance_cosine": jnp.sum(by_classifier * by_label) / (lengths[0] * lengths[1]),
            "guidance_length_ratio": lengths[0] / lengths[1],
            "null_residual": relative_error(mean, null_field),
        }

    image, labels = test.image[:NUM_IMAGES], jnp.asarray(test.label[:NUM_IMAGES])
    found = [at(noisy_states(path, image, t, seed), labels, jnp.float32(t)) for t in TIMES]
    return [
        {"t": t, **{name: float(value) for name, value in row.items()}} for t, row in zip(TIMES, found, strict=True)
    ]


def draw_residuals(rows: list[dict[str, Any]], file: Path) -> None:
    """Writes the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for name in ("guidance_residual", "guidance_cosine", "guidance_length_ratio", "null_residual"):
        axes.plot(TIMES, [row[name] for row in rows], "o-", label=name.replace("_", " "))
    axes.set(xlabel="t (0 noise, 1 data)", yscale="log", title="classifier against classifier-free guidance")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=100)
