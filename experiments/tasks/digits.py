"""What the tasks of measured and of described digits have in common: the images, what is measured of them, the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.data import measured
from cfgjax.types import Array, Tree
from experiments.config.kinds import ImageData
from experiments.config.schema import Experiment
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks import digests, images
from experiments.tasks.conditions import Conditions
from experiments.tasks.examples import abstract_examples, held_out_share, local_share, require_batch
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Example, Learned, Task, TaskFacts

IMAGES = ImageData("digits", shape=(8, 8, 1), num_classes=10)
SHAPE = (8, 8, 1)


class Digits(NamedTuple):
    """Images, with the properties of each [n, 4] in their own units."""

    images: data.Images
    properties: np.ndarray

    def take(self, rows: np.ndarray) -> Digits:
        """Some of them."""
        images = self.images._replace(pixels=self.images.pixels[rows], label=self.images.label[rows])
        return Digits(images, self.properties[rows])


@jax.jit
def properties_of(images: Array | np.ndarray) -> Array:
    """What is measured of images [n, 8, 8, 1] on [-1, 1], [n, 4]."""
    return jax.vmap(measured.properties)(jnp.asarray(images))


@lru_cache(maxsize=2)
def read(data_dir: Path) -> tuple[Digits, Digits]:
    """The digits to learn from and those held out, measured once in a process.

    Raises:
        DataError: they are not prepared in the folder.
    """
    splits = (data.load(IMAGES.name, split, data_dir) for split in (IMAGES.train_split, IMAGES.test_split))
    train, test = (Digits(each, np.asarray(properties_of(each.image))) for each in splits)
    return train, test


def facts_of(experiment: Experiment, told: Conditions) -> TaskFacts:
    """What sampling needs to know of digits with such conditions."""
    return TaskFacts(
        shape=SHAPE,
        num_classes=10,
        objective=OBJECTIVES[experiment.objective],
        samples=images.samples_of(SHAPE),
        told=told,
    )


Evaluate = Callable[[Learned, EvaluationOptions, Path], dict[str, Any]]
"""(run, what is asked, folder) -> the metrics."""


def from_settings(experiment: Experiment, told: Conditions, example: Example, of_one: Tree) -> Task:
    """The task by its config alone; batches and source are shapes.

    Args:
        experiment: the settings.
        told: what the field is told.
        example: as of a Task.
        of_one: the shapes of what is said of one image.
    """
    count = experiment.batch_size
    pixels, _ = abstract_examples(images.NOMINAL_EXAMPLES, SHAPE, jnp.uint8)
    said = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((images.NOMINAL_EXAMPLES, *leaf.shape), leaf.dtype), of_one)
    rows = jax.ShapeDtypeStruct((count,), jnp.int32)
    return Task(
        **vars(facts_of(experiment, told)),
        batches=lambda steps: (rows for _ in steps),
        example=example,
        held_out=rows,
        source=(pixels, said),
        needs=lambda options: [],
        evaluate=lambda run, options, out_dir, missing: {},
    )


def from_data(
    experiment: Experiment,
    told: Conditions,
    example: Example,
    says: Callable[[Digits], Tree],
    train: Digits,
    test: Digits,
    evaluate: Evaluate,
) -> Task:
    """The task of digits that are there.

    Args:
        experiment: the settings.
        told: what the field is told.
        example: as of a Task.
        says: images -> what is said of each, a tree of [n, ...].
        train: those to learn from.
        test: those held out.
        evaluate: measures a run.

    Raises:
        UserError: a batch larger than the set, fewer held out than devices.
    """
    count = len(train.properties)
    require_batch(experiment, count)
    share, usable = local_share(experiment.batch_size), held_out_share("test_split", len(test.properties))
    held_out = test.take(np.arange(len(test.properties))[usable])

    def rows(step: int) -> np.ndarray:
        return data.batch_indices(experiment.seed, step, experiment.batch_size, count)[share].astype(np.int32)

    def measure(run: Learned, options: EvaluationOptions, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
        return evaluate(run, options, out_dir)

    return Task(
        **vars(facts_of(experiment, told)),
        batches=lambda steps: map(rows, steps),
        example=example,
        held_out=(held_out.images.pixels, says(held_out)),
        source=jax.tree.map(jnp.asarray, (train.images.pixels, says(train))),
        needs=lambda options: [],
        evaluate=measure,
        num_held_out=len(test.properties),
        train_digest=digests.of_images(train.images),
        test_digest=digests.of_images(test.images),
    )
