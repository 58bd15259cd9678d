"""The numbers that networks are given here: made on the host, in less time than compiling an initialisation takes."""

import math
from typing import Any

import jax
import numpy as np

from experiments.benchmark.workloads import Inputs, Workload, shapes_of


def _weight(rng: np.random.Generator, path: tuple, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers: of kernels with variance 1 / inputs, of gains around 1, of biases around 0; none is zero."""
    drawn = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
        return drawn / np.float32(math.sqrt(math.prod(shape[:-1])))
    name: Any = path[-1]
    return np.float32(name.key == "scale") + np.float32(0.02) * drawn


def inputs_of(work: Workload) -> Inputs:
    """Weights, noise, data and labels of a work, by a fixed seed."""
    rng = np.random.default_rng(0)

    def normal(count: int) -> np.ndarray:
        return rng.standard_normal((count, *work.shape), np.float32)

    def labels(count: int) -> np.ndarray:
        return rng.integers(0, work.num_classes, count, np.int32)

    weights = jax.tree_util.tree_map_with_path(lambda path, leaf: _weight(rng, path, leaf.shape), shapes_of(work)[0])
    batch, count = work.batch, work.train_batch
    return Inputs(weights, normal(batch), labels(batch), normal(count), labels(count))
