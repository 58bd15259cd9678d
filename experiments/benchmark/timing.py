"""Rounds: every implementation is timed once in each, in an order that rotates, with a matrix product before each.

A run is repeated until it has lasted long enough, which gives the seconds of one run. The matrix products tell a
noisy machine from a quiet one, and what an implementation's speed is a percentage of.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.timed_functions import TimedFunction

CPU_SIZE, DEVICE_SIZE = 2048, 8192


class Rounds(NamedTuple):
    """Seconds of one run for each implementation, by round; and the matrix product's FLOP/s, by round."""

    seconds: dict[str, np.ndarray]
    products: np.ndarray


def repeat(run: Callable[[], Any], least_seconds: float) -> float:
    """Seconds of one run, the mean over as many as last ``least_seconds``."""
    start, count = time.perf_counter(), 0
    while True:
        run()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= least_seconds:
            return elapsed / count


def product_of(dtype: Any, size: int | None = None) -> Callable[[float], float]:
    """A probe: (least seconds) -> FLOP/s of one matrix product of random numbers, in a type and of a size."""
    size = size or (CPU_SIZE if jax.default_backend() == "cpu" else DEVICE_SIZE)
    left, right = (jax.random.normal(key, (size, size)).astype(dtype) for key in jax.random.split(jax.random.key(0)))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(left, right))
    return lambda least: 2 * size**3 / repeat(lambda: jax.block_until_ready(product(left, right)), least)


def time_rounds(
    implementations: Mapping[str, TimedFunction],
    product: Callable[[float], float],
    num_rounds: int,
    least_seconds: float,
) -> Rounds:
    """All rounds, after one run of every implementation that does not count."""
    names = list(implementations)
    for function in implementations.values():
        function.run()
    seconds, products = {name: [] for name in names}, []
    for number in range(num_rounds):
        products.append(product(least_seconds))
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(repeat(implementations[name].run, least_seconds))
    return Rounds({name: np.array(values) for name, values in seconds.items()}, np.array(products))
