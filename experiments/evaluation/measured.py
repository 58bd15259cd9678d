"""The report on digits told by their properties: how far these are from what was asked."""

from pathlib import Path
from typing import Any

import numpy as np

from cfgjax.data.latents import Spread
from cfgjax.data.measured import PROPERTIES
from experiments.evaluation.guided_samples import FREE, draws_of
from experiments.evaluation.image_figures import write_samples
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.conditions import all_known, concatenated, count_of
from experiments.tasks.digits import Digits, properties_of
from experiments.tasks.task import Learned


def errors(asked: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """The root of the mean square of found - asked, of each property and of all; both [n, 4]."""
    squares = np.mean(np.square(found - asked), axis=0)
    of_each = {name: float(np.sqrt(square)) for name, square in zip(PROPERTIES, squares, strict=True)}
    return {"all": float(np.sqrt(np.mean(squares)))} | of_each


def evaluate(run: Learned, spread: Spread, test: Digits, options: EvaluationOptions, out_dir: Path) -> dict[str, Any]:
    """The errors of the properties that are asked, those of the digits held out, in standard deviations.

    Writes samples.png, of the task's own conditions.
    """
    told, scales = run.task.conditions, run.experiment.sampling.scales
    asked = (test.properties - spread.mean) / spread.deviation
    drawn = draws_of(run, options, concatenated([told.rows, all_known(asked.astype(np.float32))]), 1)
    num_shown = count_of(told.rows)
    rows = []
    for solver, samples in drawn.items():
        for scale, its in zip(scales, samples[:, num_shown:, 0], strict=True):
            found = (np.asarray(properties_of(its)) - spread.mean) / spread.deviation
            rows.append({"solver": solver, "scale": scale, **errors(asked, found)})
    shown = {(FREE, solver): samples[:, :num_shown] for solver, samples in drawn.items()}
    write_samples(shown, {FREE: scales}, told.texts, out_dir)
    return {"num_samples": len(asked), "property_errors": rows, "samples": []}
