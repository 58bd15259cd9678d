"""Samplers and training steps in JAX, compiled for a work's inputs and ready to be timed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmark import reference, timed_functions
from experiments.benchmark.timed_functions import TimedFunction
from experiments.benchmark.workloads import SCALE, Inputs, Workload, compiler_options, grid

UNCOMPARED = ("euler_maruyama", "interval")
"""Methods whose samples are not the first implementation's: by other noise, or guided on half of the steps."""


def times_of(work: Workload, method: str) -> np.ndarray:
    """The grid on which a method makes the work's number of evaluations."""
    return grid(max(1, work.evaluations // reference.EVALUATIONS.get(method, 1)))


def arguments_of(inputs: Inputs, scale: Any = None) -> tuple:
    """What every sampler in JAX is given: weights, key, noise, labels, scale."""
    scale = jnp.float32(SCALE) if scale is None else scale
    return inputs.weights, jax.random.key(0), inputs.noise, inputs.labels, scale


def sampler(
    work: Workload, program: Callable, method: str, inputs: Inputs, scale: Any = None, options: Any = None
) -> TimedFunction:
    """A sampler (weights, key, noise, labels, w) of all examples of the work."""
    is_exact = method not in UNCOMPARED
    program = jax.jit(program, compiler_options=compiler_options(work) if options is None else options)
    return timed_functions.sampling(program, arguments_of(inputs, scale), work.batch, 2 * work.evaluations, is_exact)


def reference_sampler(work: Workload, method: str, inputs: Inputs, scale: Any = None) -> TimedFunction:
    """The hand-written sampler."""
    ts = jnp.asarray(times_of(work, method))
    program = partial(reference.sampler_of(work, method, work.sample_chunk), ts=ts)
    return sampler(work, program, method, inputs, scale)


def reference_trainer(work: Workload, inputs: Inputs, loss: reference.Loss) -> TimedFunction:
    """The hand-written training step on a loss."""
    optimizer = optax.adamw(1e-4)
    weights = jax.tree.map(jnp.array, inputs.weights)
    state = (weights, optimizer.init(weights), jax.tree.map(jnp.copy, weights), jax.random.key(0))
    steps = reference.train_step_of(loss, optimizer, work.train_chunks, work.train_steps)
    program = jax.jit(steps, donate_argnums=0)
    data = jax.device_put((inputs.data, inputs.data_labels))
    return timed_functions.training(
        program, state, data, work.train_batch * work.train_steps, 1, compiler_options(work)
    )
