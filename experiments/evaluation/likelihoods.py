"""Bits per dimension of held-out images by the ODE's likelihood, labelled and null."""

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, guidance, solvers
from cfgjax.analysis import likelihood
from cfgjax.types import Array, LabelledField
from experiments.run.batch_sampling import equal_parts
from experiments.runtime import progress
from experiments.runtime.batching import plan_batching


def bits_per_dimension(
    field: LabelledField, test: data.Images, num_images: int, num_steps: int, seed: int
) -> dict[str, dict[str, float]]:
    """Mean and standard error of -log p / (D log 2) + 7 over the first two or more images of a set, dequantised.

    The divergence is Hutchinson's with one probe per image; labelled and null share noise and probe.
    """
    pixels, labels = jnp.asarray(test.pixels[:num_images]), jnp.asarray(test.label[:num_images])
    keys = jax.random.split(jax.random.key(seed), len(labels))
    ts = jnp.linspace(1.0, 0.0, num_steps + 1)

    def bits(drawn: tuple[Array, Array, Array]) -> Array:
        key, image, y = drawn
        noise_key, probe_key = jax.random.split(key)
        divergence = likelihood.estimated_divergence(guidance.given(field, y), probe_key)
        log_density, _ = likelihood.log_density(solvers.heun, divergence, data.dequantise(noise_key, image), ts)
        return likelihood.bits_per_dimension(log_density, image.size)

    plan = plan_batching(bits, (keys[0], pixels[0], labels[0]))
    chunk = min(len(labels), plan.chunk)
    together = jax.jit(
        lambda *drawn: jax.lax.map(bits, drawn, batch_size=chunk), compiler_options=plan.compiler_options
    )
    parts = equal_parts(len(labels), 1, chunk)

    def measured(wanted: Array, what: str) -> np.ndarray:
        shown = progress.each(parts, "chunks", f"likelihoods, {what}")
        return np.concatenate([np.asarray(together(keys[part], pixels[part], wanted[part])) for part in shown])

    found = {"labelled": measured(labels, "labelled")}
    found["null"] = measured(jnp.full_like(labels, test.num_classes), "null")
    return {name: _summary(values[: len(labels)].astype(np.float64)) for name, values in found.items()}


def _summary(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std(ddof=1) / np.sqrt(len(values))),
        "num_images": len(values),
    }
