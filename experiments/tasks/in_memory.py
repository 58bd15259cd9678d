"""The task of examples that lie whole on every device, in batches of indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.types import Tree
from experiments.config.schema import Experiment
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.examples import held_out_share, local_share, require_batch
from experiments.tasks.images import NOMINAL_EXAMPLES
from experiments.tasks.task import Example, Learned, Task, TaskFacts

Evaluate = Callable[[Learned, EvaluationOptions, Path], dict[str, Any]]
"""(run, what is asked, folder) -> the metrics."""


def from_settings(experiment: Experiment, facts: TaskFacts, example: Example, of_one: Tree) -> Task:
    """The task by its config alone; batches and source are shapes.

    Args:
        experiment: the settings.
        facts: what the config tells.
        example: as of a Task.
        of_one: the shapes of what is said of one image.
    """
    one = jax.ShapeDtypeStruct(facts.shape, jnp.uint8), of_one
    source = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((NOMINAL_EXAMPLES, *leaf.shape), leaf.dtype), one)
    rows = jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32)
    return Task(
        **vars(facts),
        batches=lambda steps: (rows for _ in steps),
        example=example,
        held_out=rows,
        source=source,
        needs=lambda options: [],
        evaluate=lambda run, options, out_dir, missing: {},
    )


def from_data(
    experiment: Experiment,
    facts: TaskFacts,
    example: Example,
    train: Tree,
    test: Tree,
    evaluate: Evaluate,
    digests: Mapping[str, Any],
    learned: Mapping[str, Any] | None = None,
) -> Task:
    """The task of examples that are there.

    Args:
        experiment: the settings.
        facts: what sampling needs.
        example: as of a Task.
        train: the examples to learn from, a tree of [n, ...].
        test: those held out, likewise.
        evaluate: measures a run.
        digests: of both, by their names in a Task.
        learned: as of a Task.

    Raises:
        UserError: a batch larger than the set, fewer held out than devices.
    """
    count, num_held_out = (len(jax.tree.leaves(each)[0]) for each in (train, test))
    require_batch(experiment, count)
    share = local_share(experiment.batch_size)
    held_out, num_repeated = held_out_share("test_split", num_held_out)

    def rows(step: int) -> np.ndarray:
        return data.batch_indices(experiment.seed, step, experiment.batch_size, count)[share].astype(np.int32)

    def measure(run: Learned, options: EvaluationOptions, out_dir: Path, missing: Mapping[str, str]) -> dict[str, Any]:
        return evaluate(run, options, out_dir)

    return Task(
        **vars(facts),
        batches=lambda steps: map(rows, steps),
        example=example,
        held_out=jax.tree.map(lambda leaf: leaf[held_out], test),
        num_repeated=num_repeated,
        source=jax.tree.map(jnp.asarray, train),
        needs=lambda options: [],
        evaluate=measure,
        num_held_out=num_held_out,
        learned=learned or {},
        **digests,
    )
