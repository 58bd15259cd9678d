"""Batches of a set that does not fit into memory, read ahead by grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cfgjax.checks import require_count, require_function, require_kind
from cfgjax.data.errors import DataError
from cfgjax.data.shuffle import batch_indices


def prefetch(
    read: Callable[[np.ndarray], Any],
    seed: int,
    steps: range,
    batch_size: int,
    num_examples: int,
    share: slice = slice(None),
    num_threads: int = 8,
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
        TypeError, ValueError: no function; steps that are no range, begin before 0 or do not go up by 1; numbers that
            ``batch_indices`` refuses; no slice; under one thread.
        DataError: grain is not installed.
    """
    require_function("read", read)
    require_kind("steps", steps, range, "a range of steps, as range(num_steps) is")
    if steps.step != 1 or steps.start < 0:
        raise ValueError(f"steps must go up by 1 from 0 or more, got {steps}")
    require_count("seed", seed, 0)
    require_count("num_examples", num_examples, 1)
    require_count("batch_size", batch_size, 1, num_examples)
    require_kind("share", share, slice, "a slice of a batch's rows")
    require_count("num_threads", num_threads, 1)
    try:
        import grain
    except ImportError:
        raise DataError("batches read ahead need grain: python -m pip install 'cfgjax[grain]'") from None
    batches = grain.MapDataset.range(steps.start, steps.stop).map(
        lambda step: read(batch_indices(seed, int(step), batch_size, num_examples)[share])
    )
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    return iter(batches.to_iter_dataset(options))
