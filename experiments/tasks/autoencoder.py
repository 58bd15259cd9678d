"""The autoencoder of images: what is learned is their latents, and the way back."""

from dataclasses import replace

from experiments.config.kinds import ImageData
from experiments.config.schema import Experiment
from experiments.evaluation import autoencoder as report
from experiments.tasks import images
from experiments.tasks.task import Reads, Task


def task_of(experiment: Experiment, settings: ImageData, reads: Reads) -> Task:
    """The task of images, measured by how they are reconstructed; errors as ``images.task_of``."""
    return replace(
        images.task_of(experiment, settings, reads),
        needs=report.needs,
        evaluate=lambda run, options, out_dir, missing: report.evaluate(
            run, images.load_test(experiment, settings), out_dir, missing
        ),
        measures_images=False,
    )
