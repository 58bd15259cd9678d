"""The report on latents: their samples, to be decoded by the network that made them."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.evaluation.guided_samples import guided_draws
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.task import Learned


def evaluate(run: Learned, factor: float, options: EvaluationOptions, out_dir: Path) -> dict[str, Any]:
    """Writes samples-GUIDANCE-SOLVER.npz, with the factor by which the encoder's latents were multiplied."""
    draws, scales = guided_draws(run, options)
    for (guidance, solver), samples in draws.items():
        labelled = {"scales": np.asarray(scales[guidance]), "labels": run.task.labels, "latents": samples}
        np.savez(out_dir / f"samples-{guidance}-{solver}.npz", **labelled, factor=np.asarray(factor))
    return {"samples": []}
