"""Other libraries' samplers and training steps for a work, ready to be timed where the library is installed."""

import dataclasses
import importlib.util
from typing import Any

from experiments.benchmark import prepared, timed_functions
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.workloads import Inputs, Workload


def diffrax(work: Workload, method: str, inputs: Inputs) -> TimedFunction | Skipped:
    """diffrax's sampler."""
    if importlib.util.find_spec("diffrax") is None:
        return Skipped("diffrax is not installed")
    from experiments.benchmark import in_diffrax

    if method not in in_diffrax.SOLVERS:
        return Skipped("diffrax has no such solver")
    return prepared.sampler(work, in_diffrax.sampler_of(work, method, prepared.times_of(work, method)), method, inputs)


def _hackable() -> Any:
    """The module of hackable_diffusion's implementations, or why there are none."""
    if importlib.util.find_spec("hackable_diffusion") is None:
        return Skipped("hackable_diffusion is not installed")
    return importlib.import_module("experiments.benchmark.in_hackable")


def hackable_sampler(
    work: Workload, method: str, inputs: Inputs, scale: Any = None, ends: tuple[float, float] | None = None
) -> TimedFunction | Skipped:
    """hackable_diffusion's sampler, for the method "interval" guided from the first of the ends to the second."""
    peer = _hackable()
    if isinstance(peer, Skipped):
        return peer
    if method not in peer.STEPS:
        return Skipped("hackable_diffusion has no such solver")
    program = peer.sampler_of(work, method, prepared.times_of(work, method), ends)
    function = prepared.sampler(work, program, method, inputs, scale)
    return dataclasses.replace(function, note=peer.NOTES.get(method, ""))


def hackable_trainer(work: Workload, inputs: Inputs) -> TimedFunction | Skipped:
    """hackable_diffusion's loss in the hand-written training step."""
    peer = _hackable()
    if isinstance(peer, Skipped):
        return peer
    return dataclasses.replace(prepared.reference_trainer(work, inputs, peer.loss_of(work)), note=peer.NOTES["train"])


def _torch(work: Workload) -> Any:
    """The module of the PyTorch implementations, or why the work has none."""
    for name in ("torch", "flow_matching"):
        if importlib.util.find_spec(name) is None:
            return Skipped(f"{name} is not installed")
    peer = importlib.import_module("experiments.benchmark.in_torch")
    return peer if type(work.network) in peer.NETWORKS else Skipped("there is no such network in PyTorch here")


def torch_sampler(work: Workload, method: str, inputs: Inputs, compiles: bool) -> TimedFunction | Skipped:
    """flow_matching's sampler of the network in PyTorch."""
    peer = _torch(work)
    if isinstance(peer, Skipped):
        return peer
    if method not in peer.METHODS:
        return Skipped("flow_matching has no such solver")
    run = peer.sampler_of(work, inputs, method, prepared.times_of(work, method), compiles)
    return timed_functions.eager(run, work.batch, 2 * work.evaluations, is_exact=True)


def torch_trainer(work: Workload, inputs: Inputs, compiles: bool) -> TimedFunction | Skipped:
    """PyTorch's training step on flow_matching's path."""
    peer = _torch(work)
    if isinstance(peer, Skipped):
        return peer
    run = peer.trainer_of(work, inputs, compiles)
    return timed_functions.eager(run, work.train_batch * work.train_steps, 3, is_exact=False)
