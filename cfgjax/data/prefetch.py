"""Batches of a set that does not fit into memory, read ahead by grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np

from cfgjax.checks import require_kind
from cfgjax.contracts import Contract, NonNegativeInt, PositiveInt, checked, instance
from cfgjax.data.shuffle import batch_indices, require_batch_size
from cfgjax.data.untrusted import DataError


def _require_steps(name: str, steps: Any) -> None:
    require_kind(name, steps, range, "a range of steps, as range(num_steps) is")
    if steps.step != 1 or steps.start < 0:
        raise ValueError(f"{name} must go up by 1 from 0 or more, got {steps}")


@checked
def prefetch(
    read: Callable[[np.ndarray], Any],
    seed: NonNegativeInt,
    steps: Annotated[range, Contract(_require_steps)],
    batch_size: int,
    num_examples: PositiveInt,
    share: Annotated[slice, instance(slice, "a slice of a batch's rows")] = slice(None),
    num_threads: PositiveInt = 8,
) -> Iterator[Any]:
    """The batches of some steps, in order, read ahead on other threads.

    The order is that of ``batch_indices``: batch n depends on (seed, n) alone, so a resumed stream starts at its step.

    Args:
        read: indices [b] -> a batch.
        seed: of the order.
        steps: which batches, for example range(first, num_steps).
        batch_size: examples of a batch, over all hosts.
        num_examples: of the set.
        share: the rows of each batch that this host takes.
        num_threads: that read.

    Raises:
        TypeError, ValueError: a batch that is not of 1 to num_examples examples.
        DataError: grain is not installed.
    """
    require_batch_size(batch_size, num_examples)
    try:
        import grain
    except ImportError:
        raise DataError("batches read ahead need grain: python -m pip install 'cfgjax[grain]'") from None
    batches = grain.MapDataset.range(steps.start, steps.stop).map(
        lambda step: read(batch_indices(seed, int(step), batch_size, num_examples)[share])
    )
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(batches.to_iter_dataset(options))
