"""The networks of ``torch_networks`` sampled and trained through flow_matching.

Only imported where torch and flow_matching are installed. The compiled implementation wraps the network in
``torch.compile``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flow_matching.path import CondOTProbPath
from flow_matching.solver import ODESolver

from experiments.benchmark import torch_training
from experiments.benchmark.torch_networks import NETWORKS as NETWORKS
from experiments.benchmark.torch_networks import Guided, autocast, device, network_of, wait
from experiments.benchmark.workloads import Inputs, Workload

METHODS = {"euler": "euler", "heun": "heun2"}
"""Our solvers by the names of torchdiffeq."""


def sampler_of(work: Workload, inputs: Inputs, method: str, ts: np.ndarray, compiles: bool) -> Callable[[], np.ndarray]:
    """A function that draws all samples of the work by flow_matching's ODESolver."""
    field: Any = Guided(network_of(work, inputs.weights), work.num_classes)
    solver = ODESolver(torch.compile(field) if compiles else field)
    noise, labels = torch.tensor(inputs.noise, device=device()), torch.tensor(inputs.labels, device=device()).long()
    grid = torch.tensor(ts, device=device())

    def run() -> np.ndarray:
        with autocast(work):
            samples = solver.sample(noise, step_size=None, method=METHODS[method], time_grid=grid, label=labels)
        wait()
        return samples.cpu().numpy()

    return run


def trainer_of(work: Workload, inputs: Inputs, compiles: bool) -> Callable[[], None]:
    """A function that takes train_steps steps on flow_matching's path."""
    path = CondOTProbPath()

    def point(t: Any, noise: Any, data: Any) -> tuple[Any, Any]:
        found = path.sample(t=t, x_0=noise, x_1=data)
        return found.x_t, found.dx_t

    return torch_training.trainer_of(work, inputs, point, compiles)
