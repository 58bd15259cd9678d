"""The order in which examples are visited: a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cfgjax.checks import require_count
from cfgjax.contracts import NonNegativeInt, PositiveInt, checked


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(num_examples)
    order.setflags(write=False)
    return order


def require_batch_size(batch_size: int, num_examples: int) -> None:
    """Raises TypeError or ValueError for what is not an integer in 1..num_examples."""
    require_count("batch_size", batch_size, 1, num_examples)


@checked
def batch_indices(seed: NonNegativeInt, step: NonNegativeInt, batch_size: int, num_examples: PositiveInt) -> np.ndarray:
    """The indices of the examples in batch number ``step``, [batch_size].

    Each epoch is a new permutation of all examples; the remainder that does not fill a batch is left out of it. A run
    that resumes needs nothing but the step.

    Raises:
        TypeError, ValueError: a batch that is not of 1 to num_examples examples.

    >>> sorted(int(i) for step in range(2) for i in batch_indices(0, step, 3, 6))
    [0, 1, 2, 3, 4, 5]
    """
    require_batch_size(batch_size, num_examples)
    epoch, position = divmod(step, num_examples // batch_size)
    return _permutation(seed, epoch, num_examples)[position * batch_size : (position + 1) * batch_size]
