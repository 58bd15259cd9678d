"""Latents of a folder: images encoded by another network, which decodes what is drawn."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.schema import Experiment
from experiments.evaluation import latents as report
from experiments.run.decoder import Decoder
from experiments.tasks import digests, images, latent_pictures, latent_scale
from experiments.tasks.examples import (
    abstract_examples,
    held_out_share,
    local_share,
    require_as_configured,
    require_batch,
    warn_of_absent,
)
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Example, Reads, Samples, Task, TaskFacts


def samples_of(settings: LatentData) -> Samples:
    """How latents are shown and stored: as images are, and with the factor and the shift that they were trained in."""
    factor, shift = map(np.asarray, latent_scale.scaling_of(settings))
    return images.samples_of(settings.shape)._replace(
        arrays=lambda samples, labels: {"x": samples, "y": labels, "factor": factor, "shift": shift}
    )


def _example(settings: LatentData) -> Example:
    factor, shift = latent_scale.scaling_of(settings)

    def example(key: Array, drawn: tuple[data.Views, Array]) -> tuple[Array, Array]:
        views, y = drawn
        latent = data.draw_latent(key, views)
        return factor * (latent - shift if shift else latent), y

    return example


def _rows(num_examples: int, num_held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows held out and those trained on: the same random ones for every seed, as files are sorted by label.

    A row is a picture with its mirrored twin, which are held out together.
    """
    if num_held_out >= num_examples:
        raise UserError(f"data.num_held_out must be less than the {num_examples} latents, got {num_held_out}")
    order = np.random.default_rng(0).permutation(num_examples)
    return order[:num_held_out], np.sort(order[num_held_out:])


def facts_of(experiment: Experiment, settings: LatentData) -> TaskFacts:
    """What sampling needs to know of latents, by the config."""
    return TaskFacts(
        shape=settings.shape,
        num_classes=settings.num_classes,
        objective=OBJECTIVES[experiment.objective],
        samples=samples_of(settings),
        absent_labels=settings.absent_labels or (),
        scaling=latent_scale.scaling_of(settings),
    )


def _kind(experiment: Experiment, settings: LatentData) -> partial[Task]:
    """The task of latents, but for their examples."""
    return partial(
        Task,
        **vars(facts_of(experiment, settings)),
        example=_example(settings),
        needs=lambda options: [],
        evaluate=lambda run, options, out_dir, missing: report.evaluate(
            run, options, out_dir, lambda: latent_pictures.pictures_of(experiment, settings)
        ),
    )


def _from_settings(experiment: Experiment, settings: LatentData) -> Task:
    """The task of what the config tells; batches are shapes."""
    latent, y = abstract_examples(experiment.batch_size, settings.shape, jnp.float32)
    batch = data.Views(latent), y
    return _kind(experiment, settings)(batches=lambda steps: (batch for _ in steps), held_out=batch)


def _read(experiment: Experiment, settings: LatentData) -> Task:
    """The task of what the folder is found to hold."""
    folder = experiment.data_dir / settings.folder
    latents = data.open_latents(folder, experiment.data_dir)
    require_as_configured("shape", settings.shape, latents.latent.shape[1:])
    low, high = int(latents.label.min()), int(latents.label.max())
    if low < 0 or high >= settings.num_classes:
        raise UserError(f"data.num_classes is {settings.num_classes}, but the labels lie in {low}..{high}")
    told = data.read_statistics(folder, experiment.data_dir)
    settings = latent_scale.with_scale(latents, told, settings)
    latent_scale.tell(latents, told, settings)
    test_rows, train_rows = _rows(len(latents.label), settings.num_held_out)
    require_batch(experiment, len(train_rows))
    share = local_share(experiment.batch_size)
    held_out, num_repeated = held_out_share("num_held_out", len(test_rows))

    def batches(steps: range) -> Iterator[Tree]:
        shuffled = lambda indices: latents.views(train_rows[indices])  # noqa: E731
        return data.prefetch(shuffled, experiment.seed, steps, experiment.batch_size, len(train_rows), share)

    return _kind(experiment, settings)(
        batches=batches,
        held_out=latents.views(test_rows[held_out]),
        num_repeated=num_repeated,
        absent_labels=warn_of_absent(np.unique(latents.label[train_rows]), settings.num_classes),
        train_digest=digests.of_latents(latents),
        learned={"factor": settings.factor, "shift": settings.shift},
    )


def task_of(experiment: Experiment, settings: LatentData, reads: Reads) -> Task:
    """The task of a folder of latents, which are measured as the pictures that they are decoded to.

    Raises:
        DataError: the folder holds none.
        UserError: they are not as the experiment says.
    """
    return _read(experiment, settings) if reads == "all" else _from_settings(experiment, settings)


def decoded_facts(facts: TaskFacts, decoder: Decoder) -> TaskFacts:
    """A task of latents as one of the pictures that they are decoded to, for what is shown and stored."""
    return replace(facts, shape=decoder.shape, samples=images.samples_of(decoder.shape), scaling=None)


def as_shown(facts: TaskFacts, samples: np.ndarray) -> np.ndarray:
    """Samples as pictures show them: those in the scale of training as x / factor + shift, such as JiT's pixels."""
    if facts.scaling is None:
        return samples
    factor, shift = facts.scaling
    return samples / factor + shift
