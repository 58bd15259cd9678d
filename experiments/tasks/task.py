"""The record of a problem: a source of labelled data points, as training, sampling and reports need it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfgjax.types import Array, Tree


@dataclass(frozen=True)
class Problem:
    """A source of labelled data points.

    Attributes:
        shape: of one data point.
        num_classes: K; label K is the null label.
        batches: steps -> their batches in order, each this host's share of batch_size examples; batch n is a pure
            function of n.
        example: (key, one example of a batch) -> (z, y), inside the step.
        held_out: this host's share of a batch that is never learned from, for the loss during training.
        source: what lies whole on every device; the batches are indices into it. None where they hold the examples.
        label_names: the labels' names in order; None where they are called by their numbers.
        absent_labels: those without a training example: never learned, so neither drawn unasked nor measured.
        train_digest, test_digest: of the data, as ``experiments.tasks.digests`` makes them; None where none are read.
    """

    shape: tuple[int, ...]
    num_classes: int
    batches: Callable[[range], Iterator[Tree]]
    example: Callable[[Array, Any], tuple[Array, Array]]
    held_out: Tree
    source: Tree = None
    label_names: tuple[str, ...] | None = None
    absent_labels: tuple[int, ...] = ()
    train_digest: str | None = None
    test_digest: str | None = None

    @property
    def labels(self) -> np.ndarray:
        """The labels that have training examples, in order; all of them where that is not known."""
        return np.setdiff1d(np.arange(self.num_classes), self.absent_labels)
