"""The same transformers in PyTorch beside ours, where PyTorch sees the same device."""

import functools
import importlib
import importlib.util
from typing import Any

import jax
import numpy as np

from experiments.accelerator_check import throughput
from experiments.accelerator_check.checks import Check
from experiments.accelerator_check.inputs import inputs_of
from experiments.accelerator_check.rows import Value
from experiments.accelerator_check.sizes import Sizes
from experiments.accelerator_check.throughput import Found
from experiments.benchmark import prepared
from experiments.benchmark.timed_functions import Skipped
from experiments.benchmark.workloads import Workload

GROUP = "PyTorch"


def _peer() -> Any:
    """The module of PyTorch's programs, or why there is none."""
    if importlib.util.find_spec("torch") is None:
        return Skipped("torch is not installed")
    peer = importlib.import_module("experiments.accelerator_check.torch_peer")
    kind = jax.default_backend()
    return peer if peer.is_on(kind) else Skipped(f"PyTorch sees no {kind}")


def _train(name: str, work: Workload, sizes: Sizes, found: Found, backend: str) -> dict[str, Value] | Skipped:
    peer = _peer()
    if isinstance(peer, Skipped):
        return peer

    def build(batch: int) -> Any:
        smaller = work._replace(train_batch=batch)
        return peer.trainer(smaller, inputs_of(smaller), sizes.compiles)

    with peer.attention(backend):
        batch, function, _ = throughput.first_that_fits(found.batches.get(name, work.train_batch), build)
        values = throughput.speed(function, work, found, 1, sizes.turn_seconds)
    return {"batch": batch, "steps_per_s": 1e3 / values["ms"], **values}


def _sample(name: str, work: Workload, sizes: Sizes, found: Found, backend: str) -> dict[str, Value] | Skipped:
    peer = _peer()
    if isinstance(peer, Skipped):
        return peer
    with peer.attention(backend):
        ts = prepared.times_of(work, "heun")
        function = peer.sampler(work, inputs_of(work), ts, sizes.compiles)
        values = throughput.speed(function, work, found, 1, sizes.turn_seconds)
    ours, difference = found.samples.get(name), None
    if ours is not None:
        difference = float(np.max(np.abs(function.output - ours)) / np.max(np.abs(ours)))
    return {"batch": work.batch, "largest_difference_from_ours": difference, **values}


def checks_of(sizes: Sizes, found: Found) -> list[Check]:
    """Training and sampling with each kind of attention."""
    checks = []
    for backend in sizes.backends:
        how = f"{'torch.compile' if sizes.compiles else 'eager'}, {backend} attention"
        for name, work in sizes.trained.items():
            run = functools.partial(_train, name, work, sizes, found, backend)
            checks.append(Check(GROUP, f"{name}, training, {how}", run))
        for name, work in sizes.sampled.items():
            run = functools.partial(_sample, name, work, sizes, found, backend)
            checks.append(Check(GROUP, f"{name}, guided samples by Heun, {how}", run))
    return checks
