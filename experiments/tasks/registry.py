"""What is learned: a problem gives batches on the host and, inside the step, the data point of one example."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, mixtures
from cfgjax.checks import short_repr
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.config.schema import MOST_ABSENT, Experiment, ImageData, LatentData, MixtureData
from experiments.run.folder import first_difference
from experiments.runtime import distributed
from experiments.tasks import digests, latent_scale
from experiments.tasks.label_names import names_to_tell, said_of_absent
from experiments.tasks.memory_limit import require_affordable
from experiments.tasks.task import Problem

NUM_HELD_OUT = 1024
"""How many images of the test split give the loss during training."""

MOST_IMAGES = 50_000
"""How many training images a report looks at, of a set that is not held in memory."""

NOMINAL_EXAMPLES = 60_000
"""The size of a training set in memory, where it is not read."""


def mixture_of(settings: MixtureData) -> mixtures.LabelledMixture:
    """The oracle of a mixture's settings."""
    return mixtures.ring(settings.num_classes, settings.radius, settings.std)


def local_share(batch_size: int) -> slice:
    """The rows of the global batch that this process's devices take."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def _mixture_problem(experiment: Experiment, settings: MixtureData) -> Problem:
    mixture = mixture_of(settings)

    def example(key: Array, index: Array) -> tuple[Array, Array]:
        label_key, sample_key = jax.random.split(key)
        y = mixture.sample_label(label_key)
        return mixture.sample(sample_key, y), y

    blank = np.zeros(experiment.batch_size, np.int32)
    share = blank[local_share(experiment.batch_size)]
    return Problem((2,), mixture.num_classes, lambda steps: (share for _ in steps), example, share)


_load = lru_cache(maxsize=2)(data.load)


def load_test(experiment: Experiment, settings: ImageData) -> data.Images:
    """The held-out images, decoded once in a process."""
    return _load(settings.name, settings.test_split, experiment.data_dir)


def load_train(experiment: Experiment, settings: ImageData) -> data.Images:
    """The training images, decoded once in a process; of a set that is not held in memory the first MOST_IMAGES."""
    split = settings.train_split
    if not settings.in_memory and "[" not in split:
        count = len(data.open_split(settings.name, split, experiment.data_dir))
        split = f"{split}[:{min(count, MOST_IMAGES)}]"
    return _load(settings.name, split, experiment.data_dir)


def _pixel_example(settings: ImageData) -> Callable[[Array, Any], tuple[Array, Array]]:
    def example(key: Array, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        pixels, y = drawn
        noise_key, flip_key = jax.random.split(key)
        z = data.dequantise(noise_key, pixels) if settings.dequantise else data.normalize(pixels)
        return data.random_flip(flip_key, z) if settings.flip else z, y

    return example


def _require_as_told(name: str, told: Any, found: Any) -> None:
    if told is not None and told != found:
        where, ours, its = first_difference(name, told, found)
        raise UserError(f"data.{where} is {short_repr(ours)}, but the data set has {short_repr(its)}")


def _usable(name: str, num_held_out: int) -> int:
    usable = min(num_held_out, NUM_HELD_OUT) // jax.device_count() * jax.device_count()
    if usable == 0:
        raise UserError(f"data.{name} has {num_held_out} examples, fewer than the {jax.device_count()} devices")
    return usable


def _require_batch(experiment: Experiment, num_examples: int) -> None:
    if experiment.batch_size > num_examples:
        raise UserError(f"batch_size must be in 1..{num_examples}, the training set; got {experiment.batch_size}")


def _absent_of(present: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The other labels, told."""
    absent = tuple(np.setdiff1d(np.arange(num_classes), present).tolist())
    if absent:
        distributed.warn(said_of_absent(absent, num_classes))
    return absent


def _image_problem(experiment: Experiment, settings: ImageData) -> Problem:
    training = data.open_split(settings.name, settings.train_split, experiment.data_dir)
    test = load_test(experiment, settings)
    shape, num_classes = test.pixels.shape[1:], test.num_classes
    _require_as_told("shape", settings.shape, shape)
    _require_as_told("num_classes", settings.num_classes, num_classes)
    names = names_to_tell(training.label_names)
    if names is not None:
        _require_as_told("label_names", settings.label_names, names)
    _require_batch(experiment, len(training))
    absent = _absent_of(data.present_labels(training), num_classes)
    share = local_share(experiment.batch_size)
    usable = local_share(_usable("test_split", len(test.label)))
    held_out, test_digest = (test.pixels[usable], test.label[usable]), digests.of_images(test)

    def rows(step: int) -> np.ndarray:
        return data.batch_indices(experiment.seed, step, experiment.batch_size, len(training))[share].astype(np.int32)

    if settings.in_memory:
        images = load_train(experiment, settings)
        source = jnp.asarray(images.pixels), jnp.asarray(images.label)
        in_order = lambda steps: map(rows, steps)  # noqa: E731
        told = names, absent, digests.of_images(images), test_digest
        return Problem(shape, num_classes, in_order, _pixel_example(settings), held_out, source, *told)

    def read(indices: np.ndarray) -> Tree:
        records = training.__getitems__(indices.tolist())
        return np.stack([r["image"] for r in records]), np.asarray([r["label"] for r in records], np.int32)

    def batches(steps: range) -> Iterator[Tree]:
        return data.prefetch(read, experiment.seed, steps, experiment.batch_size, len(training), share)

    told = names, absent, digests.of_split(training), test_digest
    return Problem(shape, num_classes, batches, _pixel_example(settings), held_out, None, *told)


def _latent_example(settings: LatentData) -> Callable[[Array, Any], tuple[Array, Array]]:
    def example(key: Array, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        latent, y = drawn
        return settings.factor * latent, y

    return example


def _latent_rows(num_examples: int, num_held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows held out and those trained on: the same random ones for every seed, as files are sorted by label."""
    if num_held_out >= num_examples:
        raise UserError(f"data.num_held_out must be less than the {num_examples} latents, got {num_held_out}")
    order = np.random.default_rng(0).permutation(num_examples)
    return order[:num_held_out], np.sort(order[num_held_out:])


def _latent_problem(experiment: Experiment, settings: LatentData) -> Problem:
    latents = data.open_latents(experiment.data_dir / settings.folder, experiment.data_dir)
    _require_as_told("shape", settings.shape, latents.latent.shape[1:])
    low, high = int(latents.label.min()), int(latents.label.max())
    if low < 0 or high >= settings.num_classes:
        raise UserError(f"data.num_classes is {settings.num_classes}, but the labels lie in {low}..{high}")
    latent_scale.tell(latents, settings)
    test_rows, train_rows = _latent_rows(len(latents.label), settings.num_held_out)
    _require_batch(experiment, len(train_rows))
    share = local_share(experiment.batch_size)

    def batches(steps: range) -> Iterator[Tree]:
        shuffled = lambda indices: latents.rows(train_rows[indices])  # noqa: E731
        return data.prefetch(shuffled, experiment.seed, steps, experiment.batch_size, len(train_rows), share)

    held_out = latents.rows(test_rows[local_share(_usable("num_held_out", len(test_rows)))])
    absent = _absent_of(np.unique(latents.label[train_rows]), settings.num_classes)
    told = None, absent, digests.of_latents(latents)
    return Problem(settings.shape, settings.num_classes, batches, _latent_example(settings), held_out, None, *told)


def _require_objective(experiment: Experiment) -> None:
    if experiment.objective == "classifier" and not isinstance(experiment.data, ImageData):
        raise UserError("objective 'classifier' needs pictures: a preset of an image data set")


def problem_of(experiment: Experiment) -> Problem:
    """The problem that an experiment names.

    Raises:
        DataError: its data set is not prepared.
        UserError: its data set is not as the experiment says, or none for its objective; or memory is too small.
    """
    _require_objective(experiment)
    match experiment.data:
        case MixtureData() as settings:
            problem = _mixture_problem(experiment, settings)
        case ImageData() as settings:
            problem = _image_problem(experiment, settings)
        case LatentData() as settings:
            problem = _latent_problem(experiment, settings)
    require_affordable(experiment, problem.shape, problem.num_classes)
    return problem


def _arrays(num_examples: int, shape: tuple[int, ...], dtype: Any) -> Tree:
    """The shapes of so many data points and their labels."""
    points = jax.ShapeDtypeStruct((num_examples, *shape), dtype)
    return points, jax.ShapeDtypeStruct((num_examples,), jnp.int32)


def _of_shapes(
    shape: tuple[int, ...],
    num_classes: int,
    example: Callable[[Array, Any], tuple[Array, Array]],
    batch: Tree,
    source: Tree,
) -> Problem:
    return Problem(shape, num_classes, lambda steps: (batch for _ in steps), example, batch, source)


def abstract_problem_of(experiment: Experiment) -> Problem:
    """The problem with the shapes of batches and source in the place of their numbers; nothing is read.

    Raises:
        UserError: a data set whose shape or number of labels the experiment does not tell, or none for its objective.
    """
    _require_objective(experiment)
    count = experiment.batch_size
    indices = jax.ShapeDtypeStruct((count,), jnp.int32)
    match experiment.data:
        case MixtureData() as settings:
            problem = _mixture_problem(experiment, settings)
            return _of_shapes(problem.shape, problem.num_classes, problem.example, indices, None)
        case LatentData() as settings:
            batch = _arrays(count, settings.shape, jnp.float32)
            problem = _of_shapes(settings.shape, settings.num_classes, _latent_example(settings), batch, None)
            return replace(problem, absent_labels=settings.absent_labels or ())
        case ImageData() as settings:
            if settings.shape is None or settings.num_classes is None:
                raise UserError("data.shape and data.num_classes must be given where the data are not read")
            source = _arrays(NOMINAL_EXAMPLES, settings.shape, jnp.uint8) if settings.in_memory else None
            batch = indices if settings.in_memory else _arrays(count, settings.shape, jnp.uint8)
            problem = _of_shapes(settings.shape, settings.num_classes, _pixel_example(settings), batch, source)
            return replace(problem, label_names=settings.label_names, absent_labels=settings.absent_labels or ())


def problem_to_sample(experiment: Experiment) -> Problem:
    """The problem as sampling needs it: shape and number of labels by the experiment's own word, nothing is read.

    Only where the experiment does not tell them, as runs of early versions do not, its data set is asked.

    Raises:
        DataError, UserError: as ``problem_of``.
    """
    settings = experiment.data
    if isinstance(settings, ImageData) and (settings.shape is None or settings.num_classes is None):
        return problem_of(experiment)
    problem = abstract_problem_of(experiment)
    require_affordable(experiment, problem.shape, problem.num_classes)
    return problem


def with_shapes(experiment: Experiment, problem: Problem) -> Experiment:
    """The experiment that tells what its problem is: shape and labels, as ``problem_to_sample`` needs, and digests."""
    if isinstance(experiment.data, MixtureData):
        return experiment
    absent = problem.absent_labels if len(problem.absent_labels) <= MOST_ABSENT else None
    told = replace(experiment.data, absent_labels=absent, train_digest=problem.train_digest)
    if isinstance(told, ImageData):
        height, width, channels = problem.shape
        names, shape = problem.label_names, (height, width, channels)
        told = replace(told, shape=shape, num_classes=problem.num_classes, label_names=names)
        told = replace(told, test_digest=problem.test_digest)
    return replace(experiment, data=told)
