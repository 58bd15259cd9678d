"""What kinds of data have in common: the share of a batch that a host takes, and what is required of examples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import short_repr
from cfgjax.types import Loss, Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.run.folder import first_difference
from experiments.runtime import distributed
from experiments.tasks.label_names import said_of_absent

NUM_HELD_OUT = 1024
"""How many held-out examples give the loss during training."""


def local_share(batch_size: int) -> slice:
    """The rows of the global batch that this process's devices take."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def abstract_examples(num_examples: int, shape: tuple[int, ...], dtype: Any) -> Tree:
    """The shapes of so many data points and their labels."""
    points = jax.ShapeDtypeStruct((num_examples, *shape), dtype)
    return points, jax.ShapeDtypeStruct((num_examples,), jnp.int32)


def require_as_configured(name: str, configured: Any, found: Any) -> None:
    """Compares a setting that describes the data, where it is given, with what they are.

    Raises:
        UserError: they differ, naming the setting.
    """
    if configured is not None and configured != found:
        where, ours, its = first_difference(name, configured, found)
        raise UserError(f"data.{where} is {short_repr(ours)}, but the data set has {short_repr(its)}")


def require_batch(experiment: Experiment, num_examples: int) -> None:
    """Finds out whether the training set holds a batch.

    Raises:
        UserError: it does not.
    """
    if experiment.batch_size > num_examples:
        raise UserError(f"batch_size must be in 1..{num_examples}, the training set; got {experiment.batch_size}")


def held_out_share(name: str, num_held_out: int) -> tuple[np.ndarray, int]:
    """The rows of the held-out examples that give this host's share of the loss, as many for each device.

    The first NUM_HELD_OUT are taken, on any number of devices: the last row is repeated until all have as many. How
    often, over all hosts, is the second number.

    Raises:
        UserError: fewer examples than devices, naming the setting.
    """
    num_devices, num_taken = jax.device_count(), min(num_held_out, NUM_HELD_OUT)
    if num_taken < num_devices:
        raise UserError(f"data.{name} has {num_held_out} examples, fewer than the {num_devices} devices")
    num_repeated = -num_taken % num_devices
    rows = np.minimum(np.arange(num_taken + num_repeated), num_taken - 1)
    return rows[local_share(len(rows))], num_repeated


def weighted(loss: Loss) -> Loss:
    """The loss of (weight, example): weight times the loss of the example, 0 where the weight is."""
    return lambda params, key, one: jnp.where(one[0] > 0, one[0] * loss(params, key, one[1]), 0.0)


def with_weights(examples: Tree, num_repeated: int) -> Tree:
    """This host's share as (weights, examples): the mean over all hosts is that of all but the last ``num_repeated``.

    Args:
        examples: of ``held_out_share``, whose second number is the next argument.
        num_repeated: rows of all hosts together that count nothing.
    """
    share = len(jax.tree.leaves(examples)[0])
    total, first = share * jax.process_count(), share * jax.process_index()
    counts = first + np.arange(share) < total - num_repeated
    return np.float32(counts * (total / (total - num_repeated))), examples


def warn_of_absent(present: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The labels that are not present, named in a warning."""
    absent = tuple(np.setdiff1d(np.arange(num_classes), present).tolist())
    if absent:
        distributed.warn(said_of_absent(absent, num_classes))
    return absent
