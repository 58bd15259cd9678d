"""The guided flows dx = u_w dt of the oracle, with the flows that known mistakes would solve, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import THREEFRY
from cfgjax.guidance import interpolate
from cfgjax.mixtures import LabelledMixture
from cfgjax.solvers import integrate
from cfgjax.types import Array, Field, GaussianPath, Number, Solver, State
from cfgjax.verify.scales import SCALE_MISTAKES

_STEPS = 64
"""Steps of the rule of order 4 that finds the ends of flows, in which its error is below single precision's."""


class Flow(NamedTuple):
    """What a sampler might be solving instead: dx = factor * u_w(x, t or 1 - t) dt from 0 to stop."""

    scale: Number
    null_label: Number
    factor: Number = 1.0
    is_reversed: bool | Array = False
    stop: Number = 1.0


Ends = Callable[[list[Flow], Array, Array], np.ndarray]
"""``(flows, x [n, D], y [n]) -> [flows, n, D]``: where flows end."""

_MOTIONS = {
    "the sign is wrong: it solves dx = -u dt": Flow(1.0, 0, factor=-1.0),
    "time runs backwards: the field is called at 1 - t": Flow(1.0, 0, is_reversed=True),
    "time runs backwards: it solves dx = -u(x, 1 - t) dt, from data to noise": Flow(1.0, 0, -1.0, True),
    "the state does not move": Flow(1.0, 0, factor=0.0),
    "a factor 1/2 too many": Flow(1.0, 0, factor=0.5),
    "a factor 2 too many": Flow(1.0, 0, factor=2.0),
}
"""What is solved in the place of dx = u dt, by the mistake's words."""

_STAGES = {
    "guidance acts at stage one alone, then the labelled field (or (1 + w) / 2 is used for w)": lambda w: (1 + w) / 2,
    "guidance acts at stage one alone, then the null field (or w / 2 is used for w)": lambda w: w / 2,
}


def _runge_kutta(field: Field) -> Solver:
    """The classical rule of order 4."""

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        first = field(x, t)
        second = field(x + h / 2 * first, t + h / 2)
        third = field(x + h / 2 * second, t + h / 2)
        return State(x + h / 6 * (first + 2 * (second + third) + field(x + h * third, t_next)))

    return Solver(State, step)


@partial(jax.jit, static_argnames="path")
def _ends(flows: Flow, path: GaussianPath, mixture: LabelledMixture, x: Array, y: Array) -> Array:
    field = mixture.vector_field(path)

    def end(flow: Flow, x: Array, y: Array) -> Array:
        null = jnp.asarray(flow.null_label)

        def moved(x: Array, t: Array) -> Array:
            time = jnp.where(flow.is_reversed, 1 - t, t)
            return flow.factor * interpolate(field(x, time, null), field(x, time, y), flow.scale)

        ts = flow.stop * jnp.linspace(0.0, 1.0, _STEPS + 1)
        return integrate(_runge_kutta(moved), jax.random.key(0, impl=THREEFRY), x, ts)

    by_example = jax.vmap(end, in_axes=(None, 0, 0))
    return jax.vmap(by_example, in_axes=(0, None, None))(flows, x, y)


def flow_ends(mixture: LabelledMixture, path: GaussianPath) -> Ends:
    """The exact ends of flows, from states x [n, D] with labels y [n]."""

    def ends(flows: list[Flow], x: Array, y: Array) -> np.ndarray:
        columns = Flow(*(jnp.asarray(column) for column in zip(*flows, strict=True)))
        return np.asarray(_ends(columns, path, mixture, x, y), np.float64)

    return ends


def flow_mistakes(scales: tuple[float, ...], null: int, num_steps: int) -> dict[str, list[Flow]]:
    """By the mistake's words, the flow that would be solved at each scale; of guidance where there are several."""
    right = [Flow(scale, null) for scale in scales]
    known = {
        words: [flow._replace(scale=scale, null_label=null) for scale in scales] for words, flow in _MOTIONS.items()
    }
    known["the last step is missing"] = [flow._replace(stop=1 - 1 / num_steps) for flow in right]
    if len(scales) == 1:
        return known
    halves = ("w / 2 is used", "(1 + w) / 2 is used")
    conventions = {words: used for words, used in SCALE_MISTAKES.items() if not words.startswith(halves)}
    for words, used in (conventions | _STAGES).items():
        known[words] = [
            flow._replace(scale=float(used(np.asarray(scale)))) for flow, scale in zip(right, scales, strict=True)
        ]
    for label in {0, null - 1}:
        words = f"the null label's row is that of label {label}, not of {null}"
        known[words] = [flow._replace(null_label=label) for flow in right]
    return known
