"""The record of what is learned: a kind of data and what is trained on it, as functions and facts.

Training, sampling and reports ask this record alone; which one an experiment names is given by
``experiments.tasks.registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from flax import linen
from PIL import Image

from cfgjax.conditions import as_condition
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, LogClassifier, Loss, Number, Scale, Tree
from experiments.config.networks import AnyNetwork
from experiments.config.samplers import Jumps, Rule
from experiments.config.schema import Experiment
from experiments.evaluation.measurable import Counts, Need, left_out
from experiments.evaluation.options import NOTHING_MORE, EvaluationOptions
from experiments.tasks.conditions import Conditions, of_labels
from experiments.tasks.label_names import numbers_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Reads = Literal["all", "measures", "shapes"]
"""What is read of the data: all that training needs, what samples are measured by, or nothing that the config tells."""

Example = Callable[[Array, Any], tuple[Array, Array]]
"""(key, one example of a batch) -> (z, y), inside the step."""

ToField = Callable[[GaussianPath, LabelledField], LabelledField]
"""(path, prediction) -> field."""

Kind = Literal["field", "guided_field", "flow_map", "classifier", "autoencoder"]
"""What is learned; of the first three samples are drawn, and the second and third have guidance inside."""


class Objective(NamedTuple):
    """What is trained.

    Attributes:
        network: (its settings, what is known of the task) -> the network.
        loss: (experiment, task, network, path, whether it trains) -> the loss of one example.
        to_field: makes the field of what the network predicts.
        kind: what is learned.
        told: (condition, guidance scale, r - t) -> what a field's network is told beside x and t.
    """

    network: Callable[[AnyNetwork, TaskFacts], linen.Module]
    loss: Callable[[Experiment, Task, Any, GaussianPath, bool], Loss]
    to_field: ToField
    kind: Kind = "field"
    told: Callable[[Condition, Scale, Number], Condition] = lambda y, scale, span: y

    @property
    def is_field(self) -> bool:
        """Whether a field is learned, of which samples are drawn; a flow map has one, where r = t."""
        return self.kind in _FIELDS

    @property
    def is_guided(self) -> bool:
        """Whether guidance is inside, so that the network is told its scale."""
        return self.is_field and self.kind != "field"

    @property
    def without_samples(self) -> str:
        """What is said of a run, or a preset, that draws no samples; empty of a field."""
        return _WITHOUT_SAMPLES[self.kind]


_FIELDS = "field", "guided_field", "flow_map"
_WITHOUT_SAMPLES = dict.fromkeys(_FIELDS, "") | {
    "classifier": "a noisy classifier, which draws no samples",
    "autoencoder": "an autoencoder, which draws no samples; encode with it: "
    "python -m experiments.encode NAME --autoencoder RUN_DIR --out FOLDER",
}


class Autoencoder(NamedTuple):
    """A learned autoencoder of one image.

    Attributes:
        encode: [H, W, C] on [-1, 1] -> mean and log-variance of its latent, [h, w, c] each.
        decode: a latent [h, w, c] -> its image [H, W, C].
    """

    encode: Callable[[Array], tuple[Array, Array]]
    decode: Callable[[Array], Array]


class Teacher(NamedTuple):
    """What a run with guidance inside learns from.

    Attributes:
        name: as the command line has it.
        rule_of: its parameters -> the guidance of its field, on the run's path and of the same conditions.
        params: its parameters; None of an exact field.
        start: the parameters that a run of the same network begins with, by name; None where it begins with none.
    """

    name: str
    rule_of: Callable[[Tree], Rule]
    params: Tree
    start: Mapping[str, np.ndarray] | None

    @property
    def rule(self) -> Rule:
        """The guidance of its field."""
        return self.rule_of(self.params)


class Samples(NamedTuple):
    """How samples are shown and stored.

    Attributes:
        bound: the largest absolute value of data.
        most_in_grid: samples of a label that a sample grid shows.
        num_pixels: n -> pixels of the picture of n samples; None where they are no pictures.
        picture: (samples [n, *D], their n conditions) -> one picture of them.
        frames: (what was seen of n samples at all times [n, times, *D], n conditions) -> a picture for each time.
        sample_grid: (samples [scales, K, n, *D], scales, texts of the K conditions, title) -> the figure.
        arrays: (samples, what is stored of their conditions) -> the arrays of an .npz.
    """

    bound: float
    most_in_grid: int
    num_pixels: Callable[[int], int | None]
    picture: Callable[[np.ndarray, Tree], Image.Image]
    frames: Callable[[np.ndarray, Tree], Iterator[Image.Image]]
    sample_grid: Callable[[np.ndarray, tuple[float, ...], Sequence[str], str], Figure]
    arrays: Callable[[np.ndarray, Any], dict[str, np.ndarray]]


class Learned(Protocol):
    """What a report asks of a run."""

    @property
    def experiment(self) -> Experiment:
        """Its settings."""
        ...

    @property
    def task(self) -> Task:
        """What it learned from."""
        ...

    @property
    def path(self) -> GaussianPath:
        """The path of its field."""
        ...

    @property
    def field(self) -> LabelledField:
        """The learned field."""
        ...

    @property
    def rule(self) -> Rule:
        """The guidance of the learned field: classifier-free, or what is inside."""
        ...

    @property
    def jumps(self) -> Jumps | None:
        """The learned flow map, None where there is none."""
        ...

    @property
    def log_classifier(self) -> LogClassifier:
        """The learned noisy classifier."""
        ...

    @property
    def autoencoder(self) -> Autoencoder:
        """The learned autoencoder."""
        ...


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What of a task is known where nothing is read: all that the sampling of a field needs.

    Attributes:
        shape: of one data point.
        num_classes: K; label K is the null label.
        objective: what is trained.
        samples: how samples are shown and stored.
        class_names: the labels' names in order; None where they are called by their numbers.
        absent_labels: those without a training example: never learned, so neither drawn unasked nor measured.
        told: what the field is told; None for labels.
        scaling: of latents the factor and the shift of factor (z - shift), the scale of training of an encoder's z;
            None for what needs no decoder.
    """

    shape: tuple[int, ...]
    num_classes: int
    objective: Objective
    samples: Samples
    class_names: tuple[str, ...] | None = None
    absent_labels: tuple[int, ...] = ()
    told: Conditions | None = None
    scaling: tuple[float, float] | None = None

    @property
    def conditions(self) -> Conditions:
        """What the field is told."""
        return self.told or of_labels(self.num_classes, self.labels, self.label_texts)

    @property
    def labels(self) -> np.ndarray:
        """The labels that have training examples, in order; all of them where that is not known."""
        return np.setdiff1d(np.arange(self.num_classes), self.absent_labels)

    @property
    def label_texts(self) -> tuple[str, ...]:
        """What each label is called in pictures and tables: its name, else its number."""
        names = self.class_names
        return names if names is not None and len(names) == self.num_classes else numbers_of(self.num_classes)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What the network takes of one data point: x, zero, and t but of an autoencoder, and of a field the null."""
        x, t = jnp.zeros(self.shape), jnp.zeros(())
        match self.objective.kind:
            case "field" | "guided_field" | "flow_map":
                return x, t, self.objective.told(as_condition(self.conditions.null), jnp.ones(()), jnp.zeros(()))
            case "classifier":
                return x, t
            case "autoencoder":
                return (x,)


@dataclass(frozen=True, kw_only=True)
class Task(TaskFacts):
    """A source of labelled data points, and what is done with them.

    Attributes:
        batches: steps -> their batches in order, each this host's share of batch_size examples; batch n is a pure
            function of n.
        example: (key, one example of a batch) -> (z, y), inside the step.
        held_out: this host's share of a batch that is never learned from, for the loss during training.
        num_repeated: rows at the end of all hosts' shares that fill up the devices, and count nothing in that loss.
        source: what lies whole on every device; the batches are indices into it. None where they hold the examples.
        needs: (what is asked of a report) -> the numbers that it gives.
        evaluate: (run, what is asked, folder, numbers left out with their reasons) -> the metrics; writes pictures and
            samples into the folder.
        measures_images: whether likelihoods, a classifier to compare with, and features may be asked of a report.
        num_held_out: pictures held out in all, for measures; 0 where they are not read.
        learned: more settings of the data, by their names, as they were found in these.
        train_digest, test_digest: of the data, as ``experiments.tasks.digests`` makes them; None where none are read.
        exact: path -> the exact field, None where that is not known.
        teacher: what guidance is distilled from; None where there is none.
    """

    batches: Callable[[range], Iterator[Tree]]
    example: Example
    held_out: Tree
    num_repeated: int = 0
    source: Tree = None
    needs: Callable[[EvaluationOptions], Sequence[Need]]
    evaluate: Callable[[Learned, EvaluationOptions, Path, Mapping[str, str]], dict[str, Any]]
    measures_images: bool = False
    num_held_out: int = 0
    learned: Mapping[str, Any] = field(default_factory=dict)
    train_digest: str | None = None
    test_digest: str | None = None
    exact: Callable[[GaussianPath], LabelledField] | None = None
    teacher: Teacher | None = None

    def left_out(self, num_per_class: int, options: EvaluationOptions = NOTHING_MORE) -> dict[str, str]:
        """The numbers that a report on so many samples of each label cannot give, with a reason each."""
        num_present = len(self.labels)
        there = Counts(num_present * num_per_class, self.num_held_out, num_present)
        return left_out(self.needs(options), there)
