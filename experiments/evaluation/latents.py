"""The report on latents: their samples, and with the network that made them the pictures that they are of."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluation.guided_samples import Draws, guided_draws
from experiments.evaluation.image_figures import draw_samples
from experiments.evaluation.options import EvaluationOptions
from experiments.run.decoder import Decoder
from experiments.tasks.task import Learned


def _decoded(draws: Draws, decoder: Decoder) -> Draws:
    """The first picture of each row, [scales, K, 1, H, W, C]."""
    return {rule: decoder.decode_all(samples[:, :, :1]) for rule, samples in draws.items()}


def evaluate(run: Learned, options: EvaluationOptions, out_dir: Path) -> dict[str, Any]:
    """Writes samples-GUIDANCE-SOLVER.npz, and with a decoder samples.png, the first sample of each label."""
    draws, scales = guided_draws(run, options)
    for (guidance, solver), samples in draws.items():
        factor, shift = map(np.asarray, run.task.scaling or (1.0, 0.0))
        labelled = {"scales": np.asarray(scales[guidance]), "labels": run.task.labels, "latents": samples}
        np.savez(out_dir / f"samples-{guidance}-{solver}.npz", **labelled, factor=factor, shift=shift)
    if options.decoder is not None:
        texts = run.task.conditions.texts
        draw_samples(_decoded(draws, options.decoder), scales, texts, out_dir / "samples.png")
    return {"samples": []}
