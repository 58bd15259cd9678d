"""The scales that are compared: how each is fitted, and which solver follows it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

from cfgjax.types import Array, Tree
from experiments.learn_schedule import fitting, scales
from experiments.learn_schedule.fitting import Fit, MeanLoss
from experiments.learn_schedule.measures import MakeSolver

REWARDS = (0.0, 0.2, 0.6, 2.0)
"""Factors of learn-to-guide's reward, log p_t(y|x)."""
PREFERENCES = (0.0, 0.5, 1.0)
"""Of the annealed scale."""
NETWORK_RATE = 0.003
"""Adam's learning rate for the annealed scale's network."""
NUM_GAPS = 5


class Sizes(NamedTuple):
    """Of the comparison: the tilted law's w, knots in time, solver steps, and how parameters are fitted."""

    target: float
    num_knots: int
    num_steps: int
    through_solver: Fit
    of_data: Fit


class Learned(NamedTuple):
    """Parameters to fit: where they start, by which loss; no loss leaves them there."""

    start: Callable[[Array], Tree]
    loss: MeanLoss | None
    fit: Fit


class Rule(NamedTuple):
    """A row of the comparison: whose parameters it has, and the solver of its number of steps that follows them."""

    learned: str
    make_solver: MakeSolver
    num_steps: int


def _full(value: float, *shape: int) -> Callable[[Array], Array]:
    return lambda key: jnp.full(shape, value, jnp.float32)


def _number(params: Array) -> Array:
    return params[0]


def learned(sizes: Sizes) -> dict[str, Learned]:
    """What is fitted, by name."""
    target, knots, batch = sizes.target, sizes.num_knots, sizes.of_data.batch_size
    through = partial(
        fitting.divergence, target=target, batch_size=sizes.through_solver.batch_size, num_steps=sizes.num_steps
    )
    fits = sizes.through_solver
    rows = {
        "labelled": Learned(_full(1.0, 1), None, fits),
        "constant": Learned(_full(target, 1), None, fits),
        "fitted constant": Learned(_full(target, 1), through(_number), fits),
        "schedule": Learned(_full(target, scales.NULL, knots), through(scales.schedule), fits),
        "gap schedule": Learned(_full(target, scales.NULL, knots, NUM_GAPS), through(scales.gap_schedule), fits),
    }
    for strength in REWARDS:
        loss = fitting.consistency(scales.at_least_one, strength, batch)
        start = _full(max(target - 1, 0.5), scales.NULL, knots)
        rows[f"learn-to-guide {strength:g}"] = Learned(start, loss, sizes.of_data)
    annealing = fitting.annealing(batch, 2 * sizes.num_steps)
    return rows | {
        "annealed": Learned(scales.network_start, annealing, sizes.of_data._replace(learning_rate=NETWORK_RATE))
    }


def rules(sizes: Sizes) -> dict[str, Rule]:
    """The rows by their names: every one makes 2 n evaluations of both sides, n steps of Heun's rule or 2 n of DDIM."""
    steps, double = sizes.num_steps, 2 * sizes.num_steps

    def ode(name: str, scale_of: Callable) -> Rule:
        return Rule(name, lambda params, y: scales.guided_ode(scale_of(params), y), steps)

    rows = {
        "w = 1": ode("labelled", _number),
        f"w = {sizes.target:g}": ode("constant", _number),
        "w, fitted": ode("fitted constant", _number),
        "w(t, y), fitted": ode("schedule", scales.schedule),
        "w(t, y, gap), fitted": ode("gap schedule", scales.gap_schedule),
    }
    for strength in REWARDS:
        rows[f"learn-to-guide, reward {strength:g}"] = ode(f"learn-to-guide {strength:g}", scales.at_least_one)
    for preference in PREFERENCES:
        plain = partial(scales.gap_policy, preference=preference)
        rows[f"annealed {preference:g}, plain steps"] = ode("annealed", plain)
    for preference in PREFERENCES[:2]:
        make = partial(scales.annealed, preference=preference, num_steps=double)
        rows[f"annealed {preference:g}, CFG++ steps"] = Rule("annealed", lambda p, y, make=make: make(p, y=y), double)
    return rows
