"""bayesflow on Keras, whose backend is JAX. FlowMatching: time 0 is noise; consistency models have their own clock.

The function that a network stands for is replaced alone; the sampler is the library's own.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
from functools import cache
from typing import Any

import keras
import numpy as np
from bayesflow.networks import FlowMatching, StableConsistencyModel

from cfgjax.types import Array, Field
from experiments.conformance.figures import figures
from experiments.conformance.jax_bridge import Draw, law, solver
from experiments.conformance.records import Record


class Flow(FlowMatching):
    """Flow matching by a field of ONE example."""

    def velocity(self, xz: Any, time: Any, *_: Any, **settings: Any) -> Any:
        """The field of a batch of one."""
        return self.field_of(xz[0], keras.ops.reshape(time, ()))[None]


def draw(method: str) -> Draw:
    """A rule of equal steps."""

    def sample(field: Field, key: Array, x: Array, n_steps: int) -> Array:
        model = Flow(subnet="time_mlp", integrate_kwargs={"method": method, "steps": n_steps})
        model.field_of = field
        return model._inverse(x[None])[0]

    return sample


class Exact(StableConsistencyModel):
    """The exact consistency function of N(1, 0.3^2) on x = cos(t) z + sin(t) e."""

    def consistency_function(self, x: Any, t: Any, *_: Any, **settings: Any) -> Any:
        """The end of the flow through x at t."""
        cos, sin = keras.ops.cos(t), keras.ops.sin(t)
        return 1.0 + (x - cos) * 0.3 / keras.ops.sqrt(0.09 * cos**2 + sin**2)


@cache
def law_of(steps: int, count: int = 20_000) -> tuple[float, float]:
    """Mean and deviation of samples, whose exact values are 1 and 0.3."""
    model = Exact()
    model.build((count, 1))
    samples = np.asarray(model(keras.random.normal((count, 1), seed=1), inverse=True, steps=steps))
    return float(samples.mean()), float(samples.std())


_BEFORE = {2: (0.0, 1.005), 5: (0.417, 0.666), 15: (0.884, 0.418), 200: (0.992, 0.306)}
_TIMES = (
    "Each step adds the noise of the step before and takes it for less: two steps draw noise, fifteen, the default, "
    "a law that is too wide. [`bayesflow_stable_consistency_steps`]"
)
RECORDS: list[Record] = [
    *(
        solver(f'FlowMatching(integrate_kwargs={{"method": "{method}", "steps": n}})', draw(method), order)
        for method, order in {"euler": 1, "rk45": 4, "tsit5": 4}.items()
    ),
    law('FlowMatching(integrate_kwargs={"method": "euler", "steps": n})', draw("euler")),
    figures(
        "StableConsistencyModel()(z, inverse=True, steps=n) of N(1, .3^2), an exact consistency function",
        {
            f"deviation, {steps} steps": (lambda steps=steps: law_of(steps)[1], std, 0.02)
            for steps, (_, std) in _BEFORE.items()
        }
        | {
            f"mean, {steps} steps": (lambda steps=steps: law_of(steps)[0], mean, 0.02)
            for steps, (mean, _) in _BEFORE.items()
            if mean
        },
        _TIMES,
    ),
]
