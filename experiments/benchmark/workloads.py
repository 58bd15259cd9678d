"""What is timed: networks with data of their size, from a toy to the published transformers."""

import functools
import math
import zlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax.models import MLP, SIZES, DiT, UNet
from cfgjax.types import Tree
from experiments.runtime.batching import plan_batching

SCALE = 3.0
LAST_TIME = 0.99
"""The end of every grid: there all peers' rules of Heun are the same, as none of ours that ends at t = 1."""


class Workload(NamedTuple):
    """One size of problem.

    Attributes:
        title: what it is.
        network: a field (x, t, y), of one example.
        shape: of one data point.
        num_classes: K; label K is the null label.
        batch: samples drawn together.
        train_batch: examples of a training step.
        evaluations: of the guided field, for one sample.
        sample_chunk: samples computed together; None for all.
        train_chunks: in how many chunks a training step takes its batch.
        train_steps: training steps in one timed run.
    """

    title: str
    network: linen.Module
    shape: tuple[int, ...]
    num_classes: int
    batch: int
    train_batch: int
    evaluations: int
    sample_chunk: int | None = None
    train_chunks: int = 1
    train_steps: int = 1


_MLP = MLP(num_classes=8, depth=1)


def _latents(size: str) -> Workload:
    network = DiT(**SIZES[size]._asdict(), patch=2, num_classes=1000, dtype=jnp.dtype(jnp.bfloat16))
    return Workload(f"DiT-{size}/2, latents 32 x 32 x 4, bfloat16", network, (32, 32, 4), 1000, 64, 256, 8)


WORKLOADS: dict[str, Workload] = {
    "tiny": Workload("MLP 16 x 1, for the tests", MLP(num_classes=3, width=16, depth=1), (2,), 3, 4, 8, 4),
    "W0": Workload("MLP of 4 layers of 256 in 2-D, overhead", _MLP, (2,), 8, 1, 128, 100, train_steps=50),
    "W1": Workload(
        "MLP of 4 layers of 256 in 2-D, throughput",
        _MLP,
        (2,),
        8,
        10_000,
        4096,
        20,
        sample_chunk=1000,
        train_chunks=2,
        train_steps=4,
    ),
    "W2": Workload("DiT-Ti/2, 32 x 32 x 1", DiT(**SIZES["Ti"]._asdict()), (32, 32, 1), 10, 64, 64, 2, 4, 32),
    "W3": Workload("U-Net of width 32, 28 x 28 x 1", UNet(32, (1, 2, 2), 1, (7,)), (28, 28, 1), 10, 32, 32, 4),
    "W4-B": _latents("B"),
    "W4-L": _latents("L"),
    "W4-XL": _latents("XL"),
}
WorkloadName = Literal["tiny", "W0", "W1", "W2", "W3", "W4-B", "W4-L", "W4-XL"]
ON_CPU: tuple[WorkloadName, ...] = ("W0", "W1", "W2", "W3")
ON_ACCELERATOR: tuple[WorkloadName, ...] = ("W0", "W1", "W2", "W4-B", "W4-L", "W4-XL")


class Case(NamedTuple):
    """One comparison: a workload by a method, with other sizes than the workload's own where they are given.

    Attributes:
        work: its name.
        method: one of ``comparisons.METHODS``.
        batch: samples drawn together, and examples of a training step.
        evaluations: of the guided field, for one sample.
        num_scales: of a sweep.
        is_for_curves: whether it is timed for a plot alone.
    """

    work: WorkloadName
    method: str
    batch: int | None = None
    evaluations: int | None = None
    num_scales: int = 16
    is_for_curves: bool = False


def _largest_divisor(number: int, most: int) -> int:
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


def workload_of(case: Case) -> Workload:
    """The work of a case on this device; chunks are for the caches of a CPU."""
    work = WORKLOADS[case.work]
    if jax.default_backend() != "cpu":
        work = work._replace(sample_chunk=None, train_chunks=1)
    if case.evaluations is not None:
        work = work._replace(evaluations=case.evaluations)
    if case.method == "dpm_solver":
        work = work._replace(evaluations=max(4, work.evaluations))  # its first two steps are of first order
    if case.batch is None:
        return work
    chunk = work.sample_chunk and _largest_divisor(case.batch, work.sample_chunk)
    train_chunks = math.gcd(work.train_chunks, case.batch)
    return work._replace(batch=case.batch, train_batch=case.batch, sample_chunk=chunk, train_chunks=train_chunks)


class Inputs(NamedTuple):
    """The numbers that every implementation is given: weights, and noise, labels and data of all examples."""

    weights: Tree
    noise: np.ndarray
    labels: np.ndarray
    data: np.ndarray
    data_labels: np.ndarray


def inputs_of(work: Workload) -> Inputs:
    """The inputs of a work, by a fixed seed; no weight is zero, so that no implementation may skip a layer."""
    rng = np.random.default_rng(zlib.crc32(work.title.encode()))
    network: Any = work.network
    shapes = jax.jit(network.init)(jax.random.key(0), jnp.zeros(work.shape), jnp.zeros(()), jnp.zeros((), jnp.int32))
    weights = jax.tree.map(lambda leaf: np.asarray(leaf + rng.normal(0, 0.02, leaf.shape), np.float32), shapes)
    return Inputs(
        weights,
        rng.normal(size=(work.batch, *work.shape)).astype(np.float32),
        rng.integers(0, work.num_classes, work.batch, np.int32),
        rng.normal(size=(work.train_batch, *work.shape)).astype(np.float32),
        rng.integers(0, work.num_classes, work.train_batch, np.int32),
    )


def shapes_of(work: Workload) -> tuple[Tree, ...]:
    """The shapes of what the work's network is given: weights, x, t and y of one example."""
    network: Any = work.network
    example = jnp.zeros(work.shape), jnp.zeros(()), jnp.zeros((), jnp.int32)
    return jax.eval_shape(network.init, jax.random.key(0), *example), *example


@functools.cache
def compiler_options(work: Workload) -> dict[str, str]:
    """What programs of the work are compiled with; everybody's in JAX."""
    network: Any = work.network
    return plan_batching(network.apply, *shapes_of(work), shared=1).compiler_options


def grid(num_steps: int) -> np.ndarray:
    """The times of a run, [n + 1]."""
    return np.linspace(0, LAST_TIME, num_steps + 1, dtype=np.float32)
