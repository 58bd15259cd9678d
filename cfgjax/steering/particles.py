"""Weighted particles whose law is p_t e^(r_t), for any field and any reward r_t(x) of ``rewards``.

(P1) ``tilted``: in continuous time  dX = [u + sigma^2 (s + grad r_t) / 2] dt + sigma dW,
     dA = (d_t r_t + u . grad r_t) dt,  A = r_0 at t = 0:  the law at every t, for every path and every sigma.
     u, s and p_t are those of ONE law: a field that guidance made is not the field of any law that is known.
(P2) ``twisted``: in steps. With the plain chain's step p(x'|x) = N(x + h f, sigma^2 h I), f = u + sigma^2 s / 2, the
     proposal is q(x'|x) = N(x + h (f + sigma^2 grad r_t(x)), sigma^2 h I) and each step's increment
     r_t'(x') - r_t(x) + log p(x'|x) - log q(x'|x) = r_t'(x') - r_t(x) - a . n - |a|^2 / 2,  a = sigma sqrt(h) grad r_t,
     n the step's noise. The law at t' is the plain chain's e^(r_t'), whatever field, step and r_t before.
(P3) ``fk_steering``: the plain chain of any stochastic solver, the reward in the weights alone. Its product of
     potentials up to the last step is brought to e^(r_1) there.
Of (P2) and (P3) the law at t = 1 is the solver's own with e^(r_1): its errors are those of the steps, and O(1/n).
(P4) A guess r_t that is surer of itself than x_t allows loses particles that would have come right. The estimates
     stay unbiased, but most populations are then off one way and a rare one far off the other, at effective sizes
     that look well: compare populations, resample less, let the guess rise more slowly.

``draws`` takes plain draws, and refuses where the weights are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_scalar
from cfgjax.contracts import Key, PositiveInt, StateField, UnitInterval, checked, instance
from cfgjax.paths import noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers.diffusions import AdmissibleSchedule
from cfgjax.solvers.population import (
    Particle,
    ParticleCarry,
    counted_population,
    population,
    systematic_resampling,
)
from cfgjax.solvers.sde import drift_of
from cfgjax.steering.rewards import ScalarReward
from cfgjax.types import Array, GaussianPath, Reward, Solver, State, WeightedSolver


def _zero_of(x: Array) -> Array:
    return jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))


def _where_alive(value: Array, gradient: Array) -> Array:
    """The gradient of a reward, 0 where that is not finite: what has no weight goes on without it."""
    return jnp.where(jnp.isfinite(value), gradient, 0)


@piecewise
@checked
def tilted(
    path: GaussianPath,
    field: StateField,
    reward: ScalarReward,
    diffusion: AdmissibleSchedule,
    threshold: UnitInterval = 0.5,
    axis_name: str | None = None,
) -> WeightedSolver:
    """Particles of the law p_t e^(r_t) at every t, by (P1) in steps of weak order 1: one evaluation, one product each.

    The gradient in x and the derivative in t come from one reverse pass, which a reward of a network must allow. Exact
    for small steps, whatever the reward; a reward that rises steeply within a step wants ``twisted``. Where the field
    is the null one and r = w (log p_y - log p_null), the law is that of ``solvers.feynman_kac``, which needs no
    gradient, and follows the guided field.

    Args:
        path: the path of the field.
        field: the vector field of p_t, (x, t): of a label or of the null one.
        reward: r_t(x), (x, t) -> [], differentiable in both.
        diffusion: sigma_t, as for ``euler_maruyama``.
        threshold: [], the share of n under which the effective size leads to resampling, as for ``population``.
        axis_name: the mapped axis over which the particles are sharded, as for ``population``.

    Returns:
        A WeightedSolver for increasing grids that start at t = 0 from standard normal noise.

    Source: Skreta et al., arXiv 2503.02819, section 3.
    """

    def init(x: Array) -> Particle:
        return Particle(State(x), reward(x, _zero_of(x)))

    def step(key: Array, carry: Particle, t: Array, t_next: Array) -> Particle:
        x, h = carry.x, t_next - t
        value, (gradient, slope) = jax.value_and_grad(reward, argnums=(0, 1))(x, t)
        gradient = _where_alive(value, gradient)
        speed = field(x, t)
        drift = drift_of(path, lambda x, t: speed, diffusion)(x, t) + 0.5 * diffusion(t) ** 2 * gradient
        moved = x + h * drift + diffusion(t) * jnp.sqrt(h) * noise_like(key, x)
        growth = jnp.where(jnp.isfinite(value), h * (slope + jnp.sum(speed * gradient)), value)
        return Particle(State(moved.astype(x.dtype)), growth.astype(carry.log_increment.dtype))

    return population(Solver(init, step, is_forward_only=True), threshold, axis_name)


@piecewise
@checked
def twisted(
    path: GaussianPath,
    field: StateField,
    reward: ScalarReward,
    diffusion: AdmissibleSchedule,
    threshold: UnitInterval = 0.5,
    axis_name: str | None = None,
) -> WeightedSolver:
    """The twisted diffusion sampler (P2): Euler-Maruyama steps led by the reward's gradient, weighted exactly.

    The law at each time is that of the plain chain of ``euler_maruyama`` with e^(r_t), for any reward: steps that are
    too long for a sharp reward cost equal weights, never the law. With r_t the exact log p_t(m|x) and sigma that of
    ``memoryless`` the weights stay equal for small steps. One evaluation of the field and one of the reward with its
    gradient a step; the reward is evaluated at t = 1, the field is not.

    Args:
        path: the path of the field.
        field: the vector field (x, t), guided or not.
        reward: r_t(x), (x, t) -> [], differentiable in x; at t = 1 what the law is tilted by.
        diffusion: sigma_t, as for ``euler_maruyama``; where it is small the gradient leads little.
        threshold: [], the share of n under which the effective size leads to resampling, as for ``population``.
        axis_name: the mapped axis over which the particles are sharded, as for ``population``.

    Returns:
        A WeightedSolver for increasing grids that start at t = 0.

    Source: Wu et al., arXiv 2306.17775, algorithm 1.
    """
    drift = drift_of(path, field, diffusion)

    def rewarded(x: Array, t: Array) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(reward)(x, t)
        return value, _where_alive(value, gradient)

    def init(x: Array) -> Particle:
        value, gradient = rewarded(x, _zero_of(x))
        return Particle(State(x), value, (value, gradient))

    def step(key: Array, carry: Particle, t: Array, t_next: Array) -> Particle:
        x, h, (value, gradient) = carry.x, t_next - t, carry.memory
        noise, spread = noise_like(key, x), diffusion(t) * jnp.sqrt(h)
        lead = spread * gradient
        moved = (x + h * drift(x, t) + spread * (noise + lead)).astype(x.dtype)
        new_value, new_gradient = rewarded(moved, t_next)
        ratio = -jnp.sum(lead * noise) - 0.5 * jnp.sum(jnp.square(lead))
        memory = new_value.astype(value.dtype), new_gradient.astype(gradient.dtype)
        growth = new_value - value + ratio
        return Particle(State(moved), growth.astype(carry.log_increment.dtype), memory)

    return population(Solver(init, step, is_forward_only=True), threshold, axis_name)


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
    """The solver of one particle of (P3), its ``num_steps + 1``-th step.

    Its memory is what was seen, and the log of the product of its potentials.
    """

    def init(x: Array) -> Particle:
        zero = _zero_of(x)
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
    """Feynman-Kac steering (P3): a solver's own steps, weighted by potentials of the reward, and resampled.

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


@checked
def draws(
    particles: Annotated[ParticleCarry, instance(ParticleCarry, "a ParticleCarry, as solvers.solve gives it")],
    key: Key,
    num_draws: PositiveInt | None = None,
) -> Array:
    """Plain draws of the particles' law, [num_draws, *D]: by systematic resampling, copies of one beside each other.

    Where only a trace knows the weights and they are lost, the draws are NaN.

    Args:
        particles: what ``solvers.solve`` gives of a WeightedSolver; over several devices, gathered before.
        key: a key.
        num_draws: how many; None for as many as there are particles.

    Raises:
        ValueError: weights that are NaN, weights that are all 0, an effective size under 2 at the end or before the
            last resampling.
    """
    log_weights = particles.log_weights
    if not is_traced((log_weights, particles.effective_size)):
        _require_weights(log_weights, particles.effective_size)
    index = systematic_resampling(key, log_weights, num_draws)
    return jnp.where(jnp.isfinite(jnp.max(log_weights)), particles.x[index], jnp.nan)


def _require_weights(log_weights: Array, size_before: Array) -> None:
    values = np.asarray(log_weights, np.float64)
    if np.any(np.isnan(values)):
        raise ValueError("particles must have weights, got NaN: the reward was NaN or +inf for one of them")
    if np.all(values == -np.inf):
        raise ValueError("particles must not all have the weight 0, as they have: the reward was -inf for all of them")
    weights = np.exp(values - np.max(values))
    size = min(float(size_before), np.sum(weights) ** 2 / np.sum(weights**2))
    if size < 2:
        raise ValueError(
            f"particles must have an effective size of at least 2, got {size:.3g} of {len(values)}: take more of them, "
            "more steps or a larger diffusion, or a reward that before t = 1 says more of the one at t = 1"
        )
