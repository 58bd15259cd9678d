"""rectified-flow-pytorch: the exact flow map of a mixture in the place of a network, model(x, t, t - r).

The modules of flow maps alone are imported, without what networks and pictures need.
"""

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch

from cfgjax import flow_maps, solvers, verify
from cfgjax.types import Array
from cfgjax.verify import Check
from cfgjax.verify.reference import skewed_mixture
from experiments.conformance.bridge import LAW_SAMPLES, package_folders, seed_of
from experiments.conformance.names import LAW
from experiments.conformance.records import Record
from experiments.conformance.spaces import STRAIGHT


def _flow_maps() -> tuple[Any, Any]:
    """MeanFlow and SplitMeanFlow, their package stubbed."""
    package = types.ModuleType("rectified_flow_pytorch")
    package.__path__ = package_folders("rectified_flow_pytorch")
    sys.modules["rectified_flow_pytorch"] = package
    mean_flow = importlib.import_module("rectified_flow_pytorch.mean_flow")
    split = importlib.import_module("rectified_flow_pytorch.split_mean_flow")
    return mean_flow.MeanFlow, split.SplitMeanFlow


MEAN_FLOW, SPLIT_MEAN_FLOW = _flow_maps()
MIXTURE = skewed_mixture()
MAP = jax.jit(jax.vmap(flow_maps.of_field(solvers.rk4, MIXTURE.vector_field(STRAIGHT), 16)))


class Exact(torch.nn.Module):
    """The average velocity in the arguments of training: state, time, and time less the interval's other end."""

    def __init__(self, y: np.ndarray, is_noise_first: bool) -> None:
        super().__init__()
        self.y, self.is_noise_first, self.weight = y, is_noise_first, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Any, times: Any, delta: Any) -> Any:
        """The map of a batch."""
        t, r = times.numpy(), (times - delta).numpy()
        ours = (t, r) if self.is_noise_first else (1 - t, 1 - r)
        value = torch.from_numpy(np.array(MAP(x.numpy(), *(np.clip(each, 0, 1) for each in ours), self.y)))
        return value if self.is_noise_first else -value


def sampler(kind: Any, steps: int, is_noise_first: bool) -> Callable[[Array, Array], Array]:
    """(key, y [n]) -> [n, 2] by so many steps of the library's own."""

    def sample(key: Array, y: Array) -> Any:
        noise_key, key = jax.random.split(key)
        torch.manual_seed(seed_of(key))
        noise = torch.from_numpy(np.array(jax.random.normal(noise_key, (len(y), 2))))
        made = kind(Exact(np.asarray(y), is_noise_first), data_shape=(2,))
        return made.sample(batch_size=len(y), noise=noise, steps=steps).detach().numpy()

    return sample


def record(kind: Any, name: str, steps: int, is_noise_first: bool = False, **more: Any) -> Record:
    """The record of a flow map's sampler by its law; the map is exact, so that nothing is allowed for steps."""

    def checks() -> Iterator[Check]:
        yield from verify.samples(sampler(kind, steps, is_noise_first), MIXTURE, num_samples=LAW_SAMPLES).checks

    return Record(f"{name}(model, data_shape).sample(noise=x, steps={steps})", "law", checks, **more)


_SPLIT = (
    "Several steps ask the network with a third argument of another meaning than in one step; in work there, by its "
    "pull requests 17 and 18."
)
_MORE = (
    "Several steps ask the map for the velocity alone, by Euler's rule, and from noise of their own. "
    "[`rectified_flow_pytorch_mean_flow_steps`]"
)
_BACKWARDS = "One step runs the map from data to noise. [`rectified_flow_pytorch_mean_flow_steps`]"
RECORDS: list[Record] = [
    record(MEAN_FLOW, "MeanFlow", 1),
    *(record(MEAN_FLOW, "MeanFlow", n, fails=(LAW,), remark=_MORE) for n in (2, 4, 16)),
    record(SPLIT_MEAN_FLOW, "SplitMeanFlow", 1, True, fails=(LAW,), remark=_BACKWARDS),
    *(record(SPLIT_MEAN_FLOW, "SplitMeanFlow", n, True, fails=(LAW,), remark=_SPLIT) for n in (4, 16)),
]
