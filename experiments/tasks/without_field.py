"""What is learned of images that is no field: the label of a noisy one, or their latents and the way back."""

from dataclasses import replace
from types import ModuleType

from experiments.config.kinds import ImageData
from experiments.config.schema import Experiment
from experiments.evaluation import autoencoder, classifier
from experiments.tasks import images
from experiments.tasks.task import Reads, Task

REPORTS: dict[str, ModuleType] = {"classifier": classifier, "autoencoder": autoencoder}
"""What measures it, by the objective: how often a label is right, or how images are reconstructed."""


def task_of(experiment: Experiment, settings: ImageData, reads: Reads) -> Task:
    """The task of images, measured by the report of its objective; errors as ``images.task_of``."""
    report = REPORTS[experiment.objective]
    return replace(
        images.task_of(experiment, settings, reads),
        needs=report.needs,
        evaluate=lambda run, options, out_dir, missing: report.evaluate(
            run, images.load_test(experiment, settings), out_dir, missing
        ),
        measures_images=False,
    )
