"""The task that an experiment names: the one place that asks for its kind of data and its objective."""

from dataclasses import fields, replace
from typing import Any

from experiments.cli.main import UserError
from experiments.config.kinds import (
    ConditionedData,
    DescribedDigits,
    ImageData,
    LatentData,
    MeasuredDigits,
    MixtureData,
)
from experiments.config.schema import Experiment
from experiments.config.values import MOST_ABSENT
from experiments.tasks import conditioned, described, images, latents, measured, mixture, without_field
from experiments.tasks.task import Reads, Task, TaskFacts
from experiments.tasks.texts import Tokenizer


def _require_images(experiment: Experiment) -> None:
    """Raises UserError for what is learned from images alone, and other data."""
    if experiment.objective in without_field.REPORTS and not isinstance(experiment.data, ImageData):
        raise UserError(f"objective {experiment.objective!r} needs pictures: a preset of an image data set")


def image_data_of(experiment: Experiment) -> ImageData:
    """The settings of the data set of images that a run learned from.

    Raises:
        UserError: it learned from something else.
    """
    if not isinstance(experiment.data, ImageData):
        kind = type(experiment.data).__name__
        raise UserError(f"run_dir must hold a run of labelled pictures, got {experiment.run_dir} of {kind}")
    return experiment.data


def task_of(experiment: Experiment, reads: Reads = "all", tokenizer: Tokenizer | None = None) -> Task:
    """The task that an experiment names.

    Args:
        experiment: the settings.
        reads: with "all" everything that training needs is read; with "measures" what samples are measured by; with
            "shapes" nothing, where the experiment tells the data's shape and number of labels: batches and source are
            shapes in the place of numbers.
        tokenizer: reads texts, as the command line names it; the name that an experiment tells is not imported.

    Raises:
        DataError: its data set is not prepared.
        UserError: its data set is not as the experiment says, or none for its objective.
    """
    _require_images(experiment)
    settings = experiment.data
    match settings:
        case MixtureData():
            found = mixture.task_of(experiment, settings)
        case ImageData():
            of_images = without_field if experiment.objective in without_field.REPORTS else images
            found = of_images.task_of(experiment, settings, reads)
        case LatentData():
            found = latents.task_of(experiment, settings, reads)
        case MeasuredDigits():
            found = measured.task_of(experiment, settings, reads)
        case DescribedDigits():
            found = described.task_of(experiment, settings, reads)
        case ConditionedData():
            found = conditioned.task_of(experiment, settings, reads, tokenizer)
    return found


def facts_of(experiment: Experiment, tokenizer: Tokenizer | None = None) -> TaskFacts:
    """What sampling needs of the task that an experiment names; read only where the experiment does not tell it.

    Raises:
        DataError: its data set is needed, and not prepared.
        UserError: its data set is not as the experiment says, or none for its objective.
    """
    _require_images(experiment)
    settings = experiment.data
    match settings:
        case MixtureData():
            return mixture.facts_of(experiment, settings)
        case ImageData():
            return images.facts_of(experiment, settings)
        case LatentData():
            return latents.facts_of(experiment, settings)
        case MeasuredDigits():
            return measured.facts_of(experiment, settings)
        case DescribedDigits():
            return described.facts_of(experiment, settings)
        case ConditionedData():
            return conditioned.facts_of(experiment, settings, tokenizer)


def with_facts(experiment: Experiment, task: Task) -> Experiment:
    """The experiment with what its task is found to be, as "shapes" needs: shape, labels, digests, what it learned."""
    facts = {
        "shape": task.shape,
        "num_classes": task.num_classes,
        "label_names": task.class_names,
        "absent_labels": task.absent_labels if len(task.absent_labels) <= MOST_ABSENT else None,
        "train_digest": task.train_digest,
        "test_digest": task.test_digest,
        **task.learned,
    }
    found: dict[str, Any] = {each.name: facts[each.name] for each in fields(experiment.data) if each.name in facts}
    return replace(experiment, data=replace(experiment.data, **found))
