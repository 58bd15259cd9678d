"""What the tasks of measured and of described digits have in common: the images, what is measured of them, the task."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.data import measured
from cfgjax.types import Array, Tree
from experiments.config.kinds import ImageData
from experiments.config.schema import Experiment
from experiments.tasks import digests, images, in_memory
from experiments.tasks.conditions import Conditions
from experiments.tasks.in_memory import Evaluate
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Example, Task, TaskFacts

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


def from_settings(experiment: Experiment, told: Conditions, example: Example, of_one: Tree) -> Task:
    """The task by its config alone; of_one are the shapes of what is said of one image."""
    return in_memory.from_settings(experiment, facts_of(experiment, told), example, of_one)


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
    return in_memory.from_data(
        experiment,
        facts_of(experiment, told),
        example,
        (train.images.pixels, says(train)),
        (test.images.pixels, says(test)),
        evaluate,
        {"train_digest": digests.of_images(train.images), "test_digest": digests.of_images(test.images)},
    )
