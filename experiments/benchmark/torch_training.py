"""Training in PyTorch: flow matching, AdamW and a moving average. Only imported where torch is installed."""

from collections.abc import Callable
from typing import Any

import torch

from experiments.benchmark.torch_networks import autocast, device, network_of, wait
from experiments.benchmark.workloads import Inputs, Workload

Point = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(t [B], noise, data) -> (the points on the path, their velocities)."""


def trainer_of(work: Workload, inputs: Inputs, point: Point, compiles: bool) -> Callable[[], None]:
    """A function that takes train_steps steps; ``compiles`` wraps the network in ``torch.compile``."""
    network = network_of(work, inputs.weights)
    average = [weight.detach().clone() for weight in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)
    forward: Any = torch.compile(network) if compiles else network
    data, labels = (torch.tensor(each, device=device()) for each in (inputs.data, inputs.data_labels))

    def step() -> None:
        noise, t = torch.randn_like(data), torch.rand(len(data), device=device())
        drops = torch.rand(len(data), device=device()) < 0.1
        kept = torch.where(drops, work.num_classes, labels)
        x, velocity = point(t, noise, data)
        with autocast(work):
            found = forward(x, t, kept)
        loss = (found.float() - velocity).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(network.parameters()), 0.001)

    def run() -> None:
        for _ in range(work.train_steps):
            step()
        wait()

    return run
