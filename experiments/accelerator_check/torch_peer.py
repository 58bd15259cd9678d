"""PyTorch's transformers, compiled, with one kind of fused attention. Only imported where torch is installed."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.benchmark import timed_functions, torch_training
from experiments.benchmark.timed_functions import TimedFunction
from experiments.benchmark.torch_networks import Guided, autocast, device, network_of, wait
from experiments.benchmark.workloads import Inputs, Workload

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def is_on(kind: str) -> bool:
    """Whether PyTorch sees a device of JAX's kind."""
    return kind == "cpu" or (kind == "gpu" and torch.cuda.is_available())


def _point(t: Any, noise: Any, data: Any) -> tuple[Any, Any]:
    """The straight path: (1 - t) noise + t data, and its velocity."""
    t = t.view(-1, *(1 for _ in data.shape[1:]))
    return (1 - t) * noise + t * data, data - noise


def _sampler_of(work: Workload, inputs: Inputs, ts: np.ndarray, compiles: bool) -> Callable[[], np.ndarray]:
    """All samples of the work by Heun's rule."""
    guided: Any = Guided(network_of(work, inputs.weights), work.num_classes)
    field: Any = torch.compile(guided) if compiles else guided
    noise, labels = torch.tensor(inputs.noise, device=device()), torch.tensor(inputs.labels, device=device()).long()
    times = torch.tensor(ts, device=device())

    def run() -> np.ndarray:
        x = noise
        with torch.no_grad(), autocast(work):
            for t, t_next in itertools.pairwise(times):
                first = field(x, t, labels)
                second = field(x + (t_next - t) * first, t_next, labels)
                x = x + 0.5 * (t_next - t) * (first + second)
        wait()
        return x.cpu().numpy()

    return run


@contextlib.contextmanager
def attention(backend: str) -> Iterator[None]:
    """A context with attention by this kernel or by none; at its end the memory is given back."""
    try:
        with sdpa_kernel(BACKENDS[backend]):
            yield
    finally:
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def trainer(work: Workload, inputs: Inputs, compiles: bool) -> TimedFunction:
    """Training steps, ready to be timed."""
    run = torch_training.trainer_of(work, inputs, _point, compiles)
    return timed_functions.eager(run, work.train_batch * work.train_steps, 3, is_exact=False)


def sampler(work: Workload, inputs: Inputs, ts: np.ndarray, compiles: bool) -> TimedFunction:
    """Guided samples, ready to be timed."""
    run = _sampler_of(work, inputs, ts, compiles)
    return timed_functions.eager(run, work.batch, 2 * work.evaluations, is_exact=True)
