"""The mixture: points of a ring of Gaussians, drawn inside the step; the exact field is known."""

from functools import partial

import jax
import numpy as np

from cfgjax import mixtures
from cfgjax.types import Array
from experiments.config.kinds import MixtureData
from experiments.config.schema import Experiment
from experiments.evaluation import mixture as report
from experiments.figures import points
from experiments.tasks.examples import local_share
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Samples, Task, TaskFacts

_LIMIT = 1.8
"""Half the width of a panel of points, in radii of the ring."""


def mixture_of(settings: MixtureData) -> mixtures.LabelledMixture:
    """The oracle of a mixture's settings."""
    return mixtures.ring(settings.num_classes, settings.radius, settings.std)


def samples_of(radius: float) -> Samples:
    """How points about a ring are shown and stored."""
    return Samples(
        bound=4.0,
        most_in_grid=64,
        num_pixels=points.num_pixels,
        picture=points.picture,
        frames=points.frames,
        sample_grid=partial(points.sample_grid, _LIMIT * radius),
        arrays=lambda samples, labels: {"x": samples, "y": labels},
    )


def facts_of(experiment: Experiment, settings: MixtureData) -> TaskFacts:
    """What sampling needs to know of a mixture."""
    return TaskFacts(
        shape=(2,),
        num_classes=settings.num_classes,
        objective=OBJECTIVES[experiment.objective],
        samples=samples_of(settings.radius),
    )


def task_of(experiment: Experiment, settings: MixtureData) -> Task:
    """The task of a mixture; there is nothing to be read."""
    mixture = mixture_of(settings)

    def example(key: Array, index: Array) -> tuple[Array, Array]:
        label_key, sample_key = jax.random.split(key)
        y = mixture.sample_label(label_key)
        return mixture.sample(sample_key, y), y

    share = np.zeros(experiment.batch_size, np.int32)[local_share(experiment.batch_size)]
    return Task(
        **vars(facts_of(experiment, settings)),
        batches=lambda steps: (share for _ in steps),
        example=example,
        held_out=share,
        exact=mixture.vector_field,
        needs=report.needs,
        evaluate=lambda run, options, out_dir, missing: report.evaluate(run, mixture, options, out_dir),
    )
