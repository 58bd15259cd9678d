"""flaxdiff: steps are integers of 1000, the last is noise; networks predict noise; scale 0 is off."""

import contextlib
import io
from functools import lru_cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from flaxdiff.inputs import DiffusionInputConfig
from flaxdiff.predictors import EpsilonPredictionTransform
from flaxdiff.samplers import ddim, ddpm, euler, heun_sampler, multistep_dpm
from flaxdiff.schedulers import CosineNoiseScheduler
from flaxdiff.utils import RandomMarkovState

from experiments.conformance.bridge import Draw, Velocity, guider, law, moved, solver
from experiments.conformance.figures import figures
from experiments.conformance.identities import CONTINUOUS_AT_ZERO
from experiments.conformance.names import CALL, END, LIMIT, NULL, ORDER, law_at
from experiments.conformance.records import Record

SCHEDULE = CosineNoiseScheduler(1000)
FIRST = 980
"""The first step: the schedule's last ones are all but noise."""


class Labels:
    """A condition whose null input is 0."""

    def get_unconditional(self) -> Any:
        """The null input."""
        return jnp.zeros((1, 1))


class Says:
    """What stands for a network: its parameters are both sides, [n, 1, D, 1] each; 2 n rows come in one call."""

    def apply(self, params: tuple[Any, Any], x: Any, time: Any, label: Any) -> Any:
        """A side for each row."""
        labelled, null = (jnp.concatenate([side] * (len(x) // len(side))) for side in params)
        both = label[:, :, None, None]
        return both * labelled + (1 - both) * null


@lru_cache
def sampler_of(w: float, dimension: int) -> Any:
    """The sampler that guides by w."""
    with contextlib.redirect_stdout(io.StringIO()):
        inputs = DiffusionInputConfig("image", (1, dimension, 1), [Labels()])
        return ddim.DDIMSampler(Says(), SCHEDULE, EpsilonPredictionTransform(), inputs, guidance_scale=w)


def guide(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
    """The guided output of a network, whatever it predicts."""
    params = tuple(jnp.asarray(side)[:, None, :, None] for side in sides)
    state, steps, labels = jnp.zeros_like(params[0]), jnp.full(len(x), 500), jnp.ones((len(x), 1))
    found = sampler_of(w, x.shape[1]).sample_model(params, state, steps, labels)
    return np.asarray(found[2])[:, 0, :, 0]


class Noise(linen.Module):
    """A network that is never called."""

    @linen.compact
    def __call__(self, x: Any, time: Any) -> Any:
        """Its input."""
        return x


def levels(step: Any) -> tuple[float, float]:
    """alpha and sigma at a step."""
    alpha, sigma = (float(np.asarray(part).reshape(-1)[0]) for part in SCHEDULE.get_rates(step))
    return alpha, sigma


def draw(kind: Any, **settings: float) -> Draw:
    """A sampler's steps, from step 980, to which the flow brings the state."""

    def sample(velocity: Velocity, x: np.ndarray, n_steps: int, seed: int) -> np.ndarray:
        def model(x: Any, step: Any, *_: Any) -> tuple[Any, Any, Any]:
            alpha, sigma = levels(step)
            time, scale = alpha / (alpha + sigma), alpha + sigma
            state = np.asarray(x)[:, 0, :, 0] / scale
            noise = (state - time * velocity(state, time))[:, None, :, None]
            return (x - sigma * noise) / alpha, jnp.asarray(noise), noise

        inputs = DiffusionInputConfig("image", (1, x.shape[1], 1), [])
        sampler = kind(Noise(), SCHEDULE, EpsilonPredictionTransform(), inputs, **settings)
        sampler.sample_model = lambda params, *rest: model(*rest)
        state, steps = RandomMarkovState(jax.random.key(seed)), np.linspace(FIRST, 0, n_steps + 1).astype(np.int16)
        alpha, sigma = levels(jnp.asarray([FIRST]))
        now = jnp.asarray(moved(velocity, x, 0.0, alpha / (alpha + sigma)))[:, None, :, None] * (alpha + sigma)
        for step, after in pairwise(steps):
            now, state = sampler.sample_step(model, now, int(step), (), int(after), state)
        return np.asarray(now)[:, 0, :, 0]

    return sample


def guided_number(w: float) -> float:
    """The guided output where the labelled side is 1 and the null one 0."""
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    return float(guide((one, zero), w, zero, 0.5)[0, 0])


_HISTORY = (
    "No alpha in its step, which a variance-exploding schedule does not need; and it keeps its history between calls. "
)
_KNOWN = "[`flaxdiff_samplers_of_another_law`]"
RECORDS: list[Record] = [
    guider(
        "DDIMSampler(..., guidance_scale=w).sample_model",
        guide,
        fails=(NULL, CONTINUOUS_AT_ZERO),
        remark="0 is off, the labelled side; .001 is the null one but for .001. [`flaxdiff_scale_zero`]",
    ),
    solver("DDIMSampler(...).sample_step", draw(ddim.DDIMSampler), 1),
    solver("EulerSampler(...).sample_step", draw(euler.EulerSampler), 1),
    solver("HeunSampler(...).sample_step", draw(heun_sampler.HeunSampler), 2),
    solver(
        "MultiStepDPM(...).sample_step",
        draw(multistep_dpm.MultiStepDPM),
        2,
        fails=(END, LIMIT, ORDER),
        remark=_HISTORY + _KNOWN,
    ),
    law("DDIMSampler(...).sample_step", draw(ddim.DDIMSampler)),
    law(
        "DDIMSampler(..., eta=1.).sample_step",
        draw(ddim.DDIMSampler, eta=1.0),
        fails=tuple(f"{n} steps, {CALL}" for n in (64, 256)),
        remark="A jax array has no `.sqrt()`.",
    ),
    law(
        "EulerAncestralSampler(...).sample_step",
        draw(euler.EulerAncestralSampler),
        fails=law_at(64, 256),
        remark="Its two noise levels are those of a variance-exploding model, on a variance-preserving schedule. "
        + _KNOWN,
    ),
    law("SimpleDDPMSampler(...).sample_step", draw(ddpm.SimpleDDPMSampler)),
    law(
        "DDPMSampler(...).sample_step",
        draw(ddpm.DDPMSampler),
        fails=tuple(f"{n} steps, {CALL}" for n in (64, 256)),
        remark="Raises in its first step.",
    ),
    law(
        "MultiStepDPM(...).sample_step",
        draw(multistep_dpm.MultiStepDPM),
        fails=law_at(64, 256),
        remark=_HISTORY + _KNOWN,
    ),
    law("HeunSampler(...).sample_step", draw(heun_sampler.HeunSampler)),
    figures(
        "DDIMSampler(..., guidance_scale=w).sample_model, labelled 1, null 0",
        {
            f"w = {w:g}": (lambda w=w: guided_number(w), before, 1e-5)
            for w, before in {0.0: 1.0, 0.001: 0.001, 0.5: 0.5, 1.0: 1.0, 3.0: 3.0}.items()
        },
        "0 is off. [`flaxdiff_scale_zero`]",
    ),
]
