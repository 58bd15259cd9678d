"""The library's networks sampled and trained through hackable_diffusion, whose time t' = 1 - t runs from noise to data.

Only imported where hackable_diffusion is installed. On the straight path its DDIM is Euler's rule, without what its
velocity step divides by zero where t' = 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hackable_diffusion.lib import jax_helpers
from hackable_diffusion.lib.corruption import GaussianProcess, RFSchedule
from hackable_diffusion.lib.inference import GuidedDiffusionInferenceFn, LimitedIntervalGuidanceFn, ScalarGuidanceFn
from hackable_diffusion.lib.sampling import DDIMStep, DiffusionSampler, HeunStep, UniformTimeSchedule
from hackable_diffusion.lib.training import NoWeightGaussianLoss
from hackable_diffusion.lib.training.time_sampling import UniformTimeSampler

from cfgjax.types import Array, Tree
from experiments.benchmark.reference import EVALUATIONS, Loss
from experiments.benchmark.workloads import Workload

_PROCESS = GaussianProcess(schedule=RFSchedule())


Step = Callable[[float, int], Any]
"""(the last time t, number of evaluations) -> a step of hackable_diffusion's."""


def _times(last: float, num_evaluations: int, num_more: int = 0) -> UniformTimeSchedule:
    """From t = 0 to ``last`` in equal steps, one for each evaluation, and so many more of the same length."""
    last = last * (1 + num_more / num_evaluations)
    return UniformTimeSchedule(span=jax_helpers.SafeSpan(_minval=1 - last, _maxval=1.0))


def _ddim(stoch_coeff: float) -> Step:
    return lambda last, num_evaluations: DDIMStep(corruption_process=_PROCESS, stoch_coeff=stoch_coeff)


def _heun(last: float, num_evaluations: int) -> HeunStep:
    """Two evaluations a step; it wants an even number of times, which is one more than the sampler's."""
    times = _times(last, num_evaluations, num_more=1)
    return HeunStep(corruption_process=_PROCESS, time_schedule=times, num_steps=num_evaluations + 2)


STEPS: dict[str, Step] = {
    "euler": _ddim(0.0), "interval": _ddim(0.0), "heun": _heun, "euler_maruyama": _ddim(1.0),
}  # fmt: skip
"""Its steps by our methods; for the SDE the nearest."""
NOTES = {
    "euler_maruyama": "DDPM's ancestral steps",
    "interval": "both labels at every step",
    "train": "its loss in the hand-written step",
}
"""What differs from the others, by method."""


@dataclass(frozen=True)
class Network:
    """The work's network as hackable_diffusion calls one."""

    work: Workload
    weights: Tree

    def __call__(self, time: Array, xt: Array, conditioning: Mapping[str, Array] | None) -> dict[str, Array]:
        """The velocity in t', -u(xt, 1 - time); no condition is the null label."""
        network: Any = self.work.network
        count = len(xt)
        labels = jnp.full(count, self.work.num_classes) if conditioning is None else conditioning["label"]
        fields = jax.vmap(network.apply, (None, 0, 0, 0))
        return {"velocity": -fields(self.weights, xt, 1 - time.reshape(count), labels)}


def sampler_of(
    work: Workload, method: str, ts: np.ndarray, ends: tuple[float, float] | None = None
) -> Callable[..., Array]:
    """(weights, key, noise [B, *D], labels [B], w) -> samples [B, *D], the batch as one state.

    Args:
        work: the workload.
        method: one of ``STEPS``.
        ts: a grid of equal steps from 0.
        ends: the times of the grid from whose first up to whose second it guides; by default everywhere.
    """
    last, count = float(ts[-1]), (len(ts) - 1) * EVALUATIONS.get(method, 1)
    sampler = DiffusionSampler(
        time_schedule=_times(last, count),
        stepper=STEPS[method](last, count),
        num_steps=count + 1,
        store_trajectory=False,
    )

    def sample(weights: Tree, key: Array, noise: Array, labels: Array, scale: Any) -> Array:
        guidance: Any = ScalarGuidanceFn(guidance=scale - 1)
        if ends is not None:  # closed at both ends, which half a step earlier lie between times of the grid
            start, stop = (end - last / (len(ts) - 1) / 2 for end in ends)
            guidance = LimitedIntervalGuidanceFn(guidance=scale - 1, lower=1 - stop, upper=1 - start)
        inference = GuidedDiffusionInferenceFn(base_inference_fn=Network(work, weights), guidance_fn=guidance)
        return sampler(inference, key, noise, {"label": labels})[0].xt

    return sample


def loss_of(work: Workload) -> Loss:
    """Its loss of the velocity, unweighted, at uniform times; labels are dropped as in the hand-written one."""
    times, loss_of_each = UniformTimeSampler(), NoWeightGaussianLoss(prediction_type="velocity")

    def loss(weights: Tree, key: Array, data: Array, labels: Array) -> Array:
        noise_key, time_key, drop_key = jax.random.split(key, 3)
        time = times(time_key, data)
        labels = jnp.where(jax.random.bernoulli(drop_key, 0.1, labels.shape), work.num_classes, labels)
        xt, targets = _PROCESS.corrupt(noise_key, data, time)
        predictions = Network(work, weights)(time, xt, {"label": labels})
        return jnp.mean(loss_of_each(predictions, targets, time))

    return loss
