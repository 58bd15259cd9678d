"""The handwritten digits told by what is measured of them: y is the vector of standardised properties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax import conditions, data
from cfgjax.data import measured
from cfgjax.data.latents import Spread
from cfgjax.data.measured import PROPERTIES
from cfgjax.models import VectorEmbedding
from cfgjax.types import Array, Tree
from experiments.config.kinds import MeasuredDigits
from experiments.config.schema import Experiment
from experiments.evaluation import measured as report
from experiments.tasks import digits
from experiments.tasks.conditions import Conditions, all_known
from experiments.tasks.properties import reader_of
from experiments.tasks.task import Example, Reads, Task, TaskFacts

_MOST = 1e3
"""The largest absolute value of a property that may be asked for."""
_ASIDE = 1.5
"""How far the conditions that are drawn unasked lie from the average, in standard deviations."""


def spread_of(settings: MeasuredDigits) -> Spread:
    """Means and standard deviations, as the settings tell them."""
    return Spread(np.asarray(settings.mean, np.float32), np.asarray(settings.deviation, np.float32))


def _rows() -> tuple[np.ndarray, tuple[str, ...]]:
    """The average, and each property below and above it, with what they are called."""
    aside = _ASIDE * np.eye(len(PROPERTIES))
    rows = np.concatenate([np.zeros((1, len(PROPERTIES))), np.stack([-aside, aside], axis=1).reshape(-1, len(aside))])
    sides = [f"{name} {side}" for name in PROPERTIES for side in ("low", "high")]
    return rows, ("average", *sides)


def conditions_of(settings: MeasuredDigits) -> Conditions:
    """Standardised properties as conditions."""
    spread, (rows, texts) = spread_of(settings), _rows()

    def embedding(width: int) -> linen.Module:
        return VectorEmbedding(width, settings.num_features, settings.max_frequency)

    return Conditions(
        null=conditions.unknown(jnp.zeros(len(PROPERTIES))),
        rows=all_known(rows.astype(np.float32)),
        numbers=np.arange(len(texts)),
        texts=texts,
        parts={"properties": reader_of(spread, PROPERTIES, _MOST)},
        join=lambda given: given["properties"],
        labels=lambda ys: np.zeros(len(ys.is_known), np.int32),
        stored=lambda ys: spread.mean + spread.deviation * np.asarray(ys.value),
        names=lambda ys: ["properties"] * len(ys.is_known),
        embedding=embedding,
    )


def facts_of(experiment: Experiment, settings: MeasuredDigits) -> TaskFacts:
    """What sampling needs to know of measured digits."""
    return digits.facts_of(experiment, conditions_of(settings))


def _example() -> Example:
    def example(key: Array, drawn: tuple[Array, Array]) -> tuple[Array, Tree]:
        pixels, standardised = drawn
        return data.normalize(pixels), conditions.known(standardised)

    return example


def task_of(experiment: Experiment, settings: MeasuredDigits, reads: Reads) -> Task:
    """The task of measured digits.

    Raises:
        DataError: the digits are not prepared.
        UserError: they are not as the experiment says.
    """
    told, spread = conditions_of(settings), spread_of(settings)
    if reads == "shapes":
        one = jax.ShapeDtypeStruct((len(PROPERTIES),), jnp.float32)
        return digits.from_settings(experiment, told, _example(), one)
    train, test = digits.read(experiment.data_dir)
    standardise = jax.vmap(lambda properties: measured.standardised(properties, spread))
    return digits.from_data(
        experiment,
        told,
        _example(),
        lambda its: np.asarray(standardise(its.properties)),
        train,
        test,
        lambda run, options, out_dir: report.evaluate(run, spread, test, options, out_dir),
    )
