"""Images of a prepared data set, held in memory or read ahead from disk."""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.types import Array, Tree
from experiments.config.kinds import ImageData
from experiments.config.schema import Experiment
from experiments.evaluation import images as report
from experiments.evaluation.options import EvaluationOptions
from experiments.figures import image_grid
from experiments.tasks import digests
from experiments.tasks.examples import (
    abstract_examples,
    held_out_share,
    local_share,
    require_as_configured,
    require_batch,
    warn_of_absent,
)
from experiments.tasks.label_names import names_to_tell
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Example, Learned, Reads, Samples, Task, TaskFacts

MOST_IMAGES = 50_000
"""How many training images a report looks at, of a set that is not held in memory."""

NOMINAL_EXAMPLES = 60_000
"""The size of a training set in memory, where it is not read."""

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


def arrays(samples: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """x, y, and of images [n, H, W, C] their pixels as arr_0, the name that FID tools read."""
    found = {"x": samples, "y": labels}
    return found | {"arr_0": data.to_pixels(samples)} if samples.ndim == 4 else found


def samples_of(shape: tuple[int, ...]) -> Samples:
    """How images are shown and stored."""
    return Samples(
        bound=1.0,
        most_in_grid=1,
        num_pixels=partial(image_grid.num_pixels, shape),
        picture=lambda samples, labels: image_grid.grid(samples),
        frames=image_grid.frames,
        sample_grid=image_grid.sample_grid,
        arrays=arrays,
    )


def _example(settings: ImageData) -> Example:
    def example(key: Array, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        pixels, y = drawn
        noise_key, flip_key = jax.random.split(key)
        z = data.dequantise(noise_key, pixels) if settings.dequantise else data.normalize(pixels)
        return data.random_flip(flip_key, z) if settings.flip else z, y

    return example


def _told(experiment: Experiment, settings: ImageData) -> TaskFacts | None:
    """What the config tells of the data set; None where it lacks the shape or the number of labels."""
    if settings.shape is None or settings.num_classes is None:
        return None
    return TaskFacts(
        shape=settings.shape,
        num_classes=settings.num_classes,
        objective=OBJECTIVES[experiment.objective],
        samples=samples_of(settings.shape),
        class_names=settings.label_names,
        absent_labels=settings.absent_labels or (),
    )


def facts_of(experiment: Experiment, settings: ImageData) -> TaskFacts:
    """What sampling needs to know of a data set of images, which is read where the config does not tell it.

    Raises:
        DataError: the data set is needed, and not prepared.
        UserError: it is not as the experiment says.
    """
    return _told(experiment, settings) or _read(experiment, settings)


def _kind(experiment: Experiment, settings: ImageData, facts: TaskFacts) -> partial[Task]:
    """The task of images, but for their examples."""

    def evaluate(run: Learned, options: EvaluationOptions, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
        train, test = load_train(experiment, settings), load_test(experiment, settings)
        return report.evaluate(run, settings, train, test, options, out_dir, missing)

    return partial(
        Task,
        **vars(facts),
        example=_example(settings),
        needs=report.needs,
        evaluate=evaluate,
        measures_images=True,
    )


def _from_settings(experiment: Experiment, settings: ImageData, told: TaskFacts) -> Task:
    """The task of what the config tells; batches and source are shapes."""
    count = experiment.batch_size
    batch, source = abstract_examples(count, told.shape, jnp.uint8), None
    if settings.in_memory:
        batch = jax.ShapeDtypeStruct((count,), jnp.int32)
        source = abstract_examples(NOMINAL_EXAMPLES, told.shape, jnp.uint8)
    return _kind(experiment, settings, told)(
        batches=lambda steps: (batch for _ in steps), held_out=batch, source=source
    )


def _in_memory(experiment: Experiment, settings: ImageData, num_examples: int) -> dict[str, Any]:
    """Batches of indices into the images, which lie on every device."""
    share, images = local_share(experiment.batch_size), load_train(experiment, settings)

    def rows(step: int) -> np.ndarray:
        indices = data.batch_indices(experiment.seed, step, experiment.batch_size, num_examples)
        return indices[share].astype(np.int32)

    source = jnp.asarray(images.pixels), jnp.asarray(images.label)
    return {
        "batches": lambda steps: map(rows, steps), "source": source, "train_digest": digests.of_images(images),
    }  # fmt: skip


def _read_ahead(experiment: Experiment, training: data.Split) -> dict[str, Any]:
    """Batches of images, read from disk."""
    share = local_share(experiment.batch_size)

    def read(indices: np.ndarray) -> Tree:
        records = training.__getitems__(indices.tolist())
        return np.stack([r["image"] for r in records]), np.asarray([r["label"] for r in records], np.int32)

    def batches(steps: range) -> Iterator[Tree]:
        return data.prefetch(read, experiment.seed, steps, experiment.batch_size, len(training), share)

    return {"batches": batches, "train_digest": digests.of_split(training)}


def _read(experiment: Experiment, settings: ImageData) -> Task:
    """The task of what the data set is found to hold."""
    training = data.open_split(settings.name, settings.train_split, experiment.data_dir)
    test = load_test(experiment, settings)
    shape, num_classes = test.pixels.shape[1:], test.num_classes
    require_as_configured("shape", settings.shape, shape)
    require_as_configured("num_classes", settings.num_classes, num_classes)
    names = names_to_tell(training.label_names)
    if names is not None:
        require_as_configured("label_names", settings.label_names, names)
    require_batch(experiment, len(training))
    facts = TaskFacts(
        shape=shape,
        num_classes=num_classes,
        objective=OBJECTIVES[experiment.objective],
        samples=samples_of(shape),
        class_names=names or settings.label_names,
        absent_labels=warn_of_absent(data.present_labels(training), num_classes),
    )
    rows, num_repeated = held_out_share("test_split", len(test.label))
    test_digest = digests.of_images(test)
    found = _in_memory(experiment, settings, len(training)) if settings.in_memory else _read_ahead(experiment, training)
    return _kind(experiment, settings, facts)(
        held_out=(test.pixels[rows], test.label[rows]),
        num_repeated=num_repeated,
        num_held_out=len(test.label),
        test_digest=test_digest,
        **found,
    )


def task_of(experiment: Experiment, settings: ImageData, reads: Reads) -> Task:
    """The task of a data set of images; one whose shape the config does not tell is read in any case.

    Raises:
        DataError: the data set is not prepared.
        UserError: it is not as the experiment says.
    """
    told = _told(experiment, settings) if reads == "shapes" else None
    return _read(experiment, settings) if told is None else _from_settings(experiment, settings, told)
