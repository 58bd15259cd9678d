"""What is learned: a problem gives batches on the host and, inside the step, the data point of one example."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cfgjax import data, mixtures
from cfgjax.types import Array, Tree
from experiments.command import UserError
from experiments.presets import Experiment, ImageData, MixtureData


@dataclass(frozen=True)
class Problem:
    """A source of labelled data points.

    Attributes:
        shape: of one data point.
        num_labels: K; label K is the null label.
        batch: step -> the host's batch, a tree with leading axis batch_size; a pure function of the step.
        example: (key, one example of a batch) -> (z, y), inside the step.
        held_out: a batch that is never learned from, for the loss during training.
    """

    shape: tuple[int, ...]
    num_labels: int
    batch: Callable[[int], Tree]
    example: Callable[[Array, Any], tuple[Array, Array]]
    held_out: Tree


def mixture_of(settings: MixtureData) -> mixtures.LabelledMixture:
    """The oracle of a mixture's settings."""
    return mixtures.ring(settings.num_classes, settings.radius, settings.std)


def _mixture_problem(experiment: Experiment, settings: MixtureData) -> Problem:
    mixture = mixture_of(settings)

    def example(key: Array, index: Array) -> tuple[Array, Array]:
        label_key, sample_key = jax.random.split(key)
        y = mixture.sample_label(label_key)
        return mixture.sample(sample_key, y), y

    blank = np.zeros(experiment.batch_size, np.int32)
    return Problem((2,), mixture.num_labels, lambda step: blank, example, blank)


def load_images(experiment: Experiment, settings: ImageData) -> tuple[data.Images, data.Images]:
    """The training and the held-out images."""
    train = data.load(settings.name, settings.train_split, experiment.data_dir)
    return train, data.load(settings.name, settings.test_split, experiment.data_dir)


def _image_problem(experiment: Experiment, settings: ImageData) -> Problem:
    train, test = load_images(experiment, settings)
    if experiment.batch_size > len(train.label):
        raise UserError(f"batch_size must be in 1..{len(train.label)}, the training set; got {experiment.batch_size}")

    def batch(step: int) -> Tree:
        rows = data.batch_indices(experiment.seed, step, experiment.batch_size, len(train.label))
        return train.image[rows], train.label[rows]

    def example(key: Array, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        return drawn

    usable = len(test.label) - len(test.label) % jax.device_count()
    if usable == 0:
        raise UserError(f"data.test_split has {len(test.label)} images, fewer than the {jax.device_count()} devices")
    return Problem(train.image.shape[1:], train.num_labels, batch, example, (test.image[:usable], test.label[:usable]))


def problem_of(experiment: Experiment) -> Problem:
    """The problem that an experiment names.

    Raises:
        DataError: its data set is not prepared.
    """
    match experiment.data:
        case MixtureData() as settings:
            return _mixture_problem(experiment, settings)
        case ImageData() as settings:
            return _image_problem(experiment, settings)
