"""Feynman-Kac steering: the particles of any stochastic solver, led by weights of a reward alone.

(F1) At some times a particle's weight is multiplied by a potential G of the rewards that it has had: of their
     ``difference``, their ``maximum``, their ``total``.
(F2) At t = 1 it is multiplied by e^(r_1) over the product of all potentials before: the law is the solver's own with
     e^(r_1), whichever the potential.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.checks import require_scalar
from cfgjax.contracts import PositiveInt, UnitInterval, checked
from cfgjax.piecewise import piecewise
from cfgjax.solvers.population import Particle, counted_population
from cfgjax.steering.particles import zero_of
from cfgjax.steering.rewards import ScalarReward
from cfgjax.types import Array, Reward, Solver, WeightedSolver


class RewardsSeen(NamedTuple):
    """What a particle remembers of its rewards, each []: the last of them, their maximum and their sum.

    Before the first one these are 0, -inf and 0.
    """

    last: Array
    largest: Array
    total: Array


Potential = Callable[[RewardsSeen, Array], Array]
"""``(rewards seen before, reward []) -> []``: the logarithm of the potential G at an intermediate time."""


def difference(seen: RewardsSeen, reward: Array) -> Array:
    """log G = r_t - r_s with s the time before: the product is e^(r_t) at each time."""
    return reward - seen.last


def maximum(seen: RewardsSeen, reward: Array) -> Array:
    """log G = the largest reward up to t: prefers particles that once were good."""
    return jnp.maximum(seen.largest, reward)


def total(seen: RewardsSeen, reward: Array) -> Array:
    """log G = the sum of the rewards up to t: prefers particles that were good for long."""
    return seen.total + reward


def _steered(solver: Solver, reward: Reward, potential: Potential, every: int, num_steps: Array) -> Solver:
    """The solver of one particle of (F1, F2), its ``num_steps + 1``-th step.

    Its memory is what was seen, and the log of the product of its potentials.
    """

    def init(x: Array) -> Particle:
        zero = zero_of(x)
        return Particle(solver.init(x), zero, (RewardsSeen(zero, zero - jnp.inf, zero), zero))

    def step(key: Array, carry: Particle, t: Array, t_next: Array) -> Particle:
        moved: Any = solver.step(key, carry.carry, t, t_next)
        is_last = t_next >= 1

        def weighed(memory: tuple[RewardsSeen, Array]) -> tuple[Array, tuple[RewardsSeen, Array]]:
            seen, product = memory
            value = reward(moved.x, t_next).astype(product.dtype)
            log_potential = potential(seen, value)
            require_scalar("potential", log_potential)
            growth = jnp.where(is_last, value - product, log_potential).astype(product.dtype)
            seen = RewardsSeen(value, jnp.maximum(seen.largest, value), seen.total + value)
            return growth, (seen, product + growth)

        is_due = ((num_steps + 1) % every == 0) | is_last
        growth, memory = jax.lax.cond(is_due, weighed, lambda memory: (0 * memory[1], memory), carry.memory)
        return Particle(moved, growth, memory)

    return Solver(init, step, is_forward_only=True)


@piecewise
@checked
def fk_steering(
    solver: Solver,
    reward: ScalarReward,
    potential: Potential = difference,
    every: PositiveInt = 1,
    threshold: UnitInterval = 0.5,
    axis_name: str | None = None,
) -> WeightedSolver:
    """Feynman-Kac steering (F1, F2): a solver's own steps, weighted by potentials of the reward, and resampled.

    At t = 1 the law is the solver's with e^(r_1), whichever the potential; before, with ``difference`` it is that with
    e^(r_t). The reward is evaluated, not differentiated, and not at t = 0. A grid that ends before t = 1 ends with the
    potentials as they are.

    Args:
        solver: the steps' rule, stochastic: copies of a particle that no noise parts stay copies.
        reward: r_t(x), (x, t) -> [], as ``of_denoised``; at t = 1 what the law is tilted by.
        potential: ``difference``, ``maximum``, ``total``, or a function (rewards seen before, reward) -> [] of the
            logarithm of a potential.
        every: how many steps lie between two weighings; between them the reward is not evaluated. t = 1 is one.
        threshold: [], the share of n under which the effective size leads to resampling; 1 resamples at each weighing.
        axis_name: the mapped axis over which the particles are sharded, as for ``population``.

    Returns:
        A WeightedSolver for increasing grids that start at t = 0.

    Source: Singhal et al., arXiv 2501.06848, section 3 and algorithm 1.
    """
    return counted_population(
        lambda num_steps: _steered(solver, reward, potential, every, num_steps), threshold, axis_name
    )


@piecewise
@checked
def smc(
    solver: Solver, reward: ScalarReward, threshold: UnitInterval = 0.5, axis_name: str | None = None
) -> WeightedSolver:
    """Sequential Monte Carlo with a solver's own steps as proposals: ``fk_steering`` by ``difference`` at each step.

    Args:
        solver: the steps' rule, stochastic.
        reward: r_t(x), (x, t) -> [].
        threshold: [], the share of n under which the effective size leads to resampling.
        axis_name: the mapped axis over which the particles are sharded, as for ``population``.
    """
    return fk_steering(solver, reward, difference, 1, threshold, axis_name)
