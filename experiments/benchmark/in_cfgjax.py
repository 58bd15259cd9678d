"""The library's implementation of the workloads, put together as its users would."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import guidance, losses, paths, solvers, training
from cfgjax.analysis.sweep import sweep
from cfgjax.types import Array, Number, Scale, Tree
from experiments.benchmark.workloads import Inputs, Workload
from experiments.config.samplers import SOLVERS

PATH = paths.linear()


def draw_of(
    work: Workload, method: str, ts: np.ndarray, ends: tuple[float, float] | None = None
) -> Callable[..., Array]:
    """(weights, key, noise [*D], y [], w []) -> ONE sample [*D]."""
    network: Any = work.network

    def draw(weights: Tree, key: Array, noise: Array, y: Array, scale: Number) -> Array:
        wanted: Scale = scale if ends is None else guidance.interval(scale, *ends)
        field = guidance.classifier_free(lambda x, t, y: network.apply(weights, x, t, y), wanted, work.num_classes)
        return solvers.integrate(SOLVERS[method](PATH, guidance.given(field, y)), key, noise, ts)

    return draw


def sampler_of(draw: Callable[..., Array], chunk: int | None) -> Callable[..., Array]:
    """(weights, key, noise [B, *D], labels [B], w [] or [B]) -> samples [B, *D], by mapping ``draw``."""

    def sample(weights: Tree, key: Array, noise: Array, labels: Array, scale: Array) -> Array:
        keys = jax.random.split(key, len(noise))

        def one(each: tuple[Array, ...]) -> Array:
            return draw(weights, *each, *(() if jnp.ndim(scale) else (scale,)))

        each = (keys, noise, labels, *((scale,) if jnp.ndim(scale) else ()))
        return jax.lax.map(one, each, batch_size=chunk or len(noise))

    return sample


def sweep_of(draw: Callable[..., Array], chunk: int) -> Callable[..., Array]:
    """(weights, key, noise [n, *D], labels [n], scales [S]) -> samples [S, n, *D] in one call."""

    def sample(weights: Tree, key: Array, noise: Array, labels: Array, scales: Array) -> Array:
        each = (jax.random.split(key, len(noise)), noise, labels)
        return sweep(lambda scale, one: draw(weights, *one, scale), scales, each, chunk=chunk)

    return sample


def loss_of(work: Workload) -> Callable[[Tree, Array, tuple[Array, Array]], Array]:
    """(weights, key, (z, y)) -> the guided flow-matching loss of one example."""
    network: Any = work.network

    def loss(weights: Tree, key: Array, example: tuple[Array, Array]) -> Array:
        z, y = example
        label_key, noise_key = jax.random.split(key)
        y = guidance.drop_condition(label_key, y, 0.1, work.num_classes)
        return losses.flow_matching(PATH, lambda x, t, y: network.apply(weights, x, t, y), noise_key, z, y)

    return loss


def train_step_of(work: Workload, optimizer: optax.GradientTransformation, num_microbatches: int) -> training.Step:
    """The library's pure step on the work's network."""
    return training.make_step(loss_of(work), optimizer, 0.999, num_microbatches)


def train_inputs(work: Workload, inputs: Inputs, optimizer: optax.GradientTransformation, num_steps: int) -> tuple:
    """(the first state, the indices of so many batches, sharded, and the data that they name, on the devices)."""
    weights = jax.tree.map(jnp.asarray, inputs.weights)
    state = training.replicate(training.init_state(weights, optimizer, jax.random.key(0)))
    batches = [np.arange(work.train_batch)] * num_steps
    source = training.replicate((inputs.data, inputs.data_labels))
    return state, training.shard_stacked(batches, jax.local_device_count()), source
