"""Weighted particles whose law is p_t e^(r_t), for any field and any reward r_t(x) of ``rewards``.

(P1) ``tilted``: in continuous time  dX = [u + sigma^2 (s + grad r_t) / 2] dt + sigma dW,
     dA = (d_t r_t + u . grad r_t) dt,  A = r_0 at t = 0:  the law at every t, for every path and every sigma.
     u, s and p_t are those of ONE law: a field that guidance made is not the field of any law that is known.
(P2) ``twisted``: in steps. With the plain chain's step p(x'|x) = N(x + h f, sigma^2 h I), f = u + sigma^2 s / 2, the
     proposal is q(x'|x) = N(x + h (f + sigma^2 grad r_t(x)), sigma^2 h I) and each step's increment
     r_t'(x') - r_t(x) + log p(x'|x) - log q(x'|x) = r_t'(x') - r_t(x) - a . n - |a|^2 / 2,  a = sigma sqrt(h) grad r_t,
     n the step's noise. The law at t' is the plain chain's times e^(r_t'), whatever field, step and r_t before.
(P3) ``fk_steering``: the plain chain of any stochastic solver, the reward in the weights alone: module ``fk_steering``.
Of (P2) and (P3) the law at t = 1 is the solver's own times e^(r_1): its errors are those of the steps, and O(1/n).
(P4) A guess r_t that is surer of itself than x_t allows loses particles that would have come right. The estimates
     stay unbiased, but most populations are then off one way and a rare one far off the other, at effective sizes
     that look well: compare populations, resample less, let the guess rise more slowly.

``draws`` takes plain draws, and refuses where the weights are lost.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced
from cfgjax.contracts import Key, PositiveInt, StateField, UnitInterval, checked, instance
from cfgjax.paths import noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers.diffusions import AdmissibleSchedule
from cfgjax.solvers.population import Particle, ParticleCarry, population, systematic_resampling
from cfgjax.solvers.sde import drift_of
from cfgjax.steering.rewards import ScalarReward
from cfgjax.types import Array, GaussianPath, Solver, State, WeightedSolver


def zero_of(x: Array) -> Array:
    """0 in the type of the weights of particles like x, []."""
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
        return Particle(State(x), reward(x, zero_of(x)))

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
        value, gradient = rewarded(x, zero_of(x))
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
        ValueError: weights that are NaN, weights that are all 0, an effective size that was under 2 at any time.
    """
    log_weights = particles.log_weights
    if not is_traced((log_weights, particles.least_size)):
        _require_weights(log_weights, particles.least_size)
    index = systematic_resampling(key, log_weights, num_draws)
    return jnp.where(jnp.isfinite(jnp.max(log_weights)), particles.x[index], jnp.nan)


def _require_weights(log_weights: Array, least_size: Array) -> None:
    values = np.asarray(log_weights, np.float64)
    if np.any(np.isnan(values)):
        raise ValueError("particles must have weights, got NaN: the reward was NaN or +inf for one of them")
    if np.all(values == -np.inf):
        raise ValueError("particles must not all have the weight 0, as they have: the reward was -inf for all of them")
    weights = np.exp(values - np.max(values))
    size = min(float(least_size), np.sum(weights) ** 2 / np.sum(weights**2))
    if size < 2:
        raise ValueError(
            f"particles must have an effective size of at least 2 at all times, got {size:.3g} of {len(values)}: take "
            "more of them, more steps, a larger diffusion, or a reward that before t = 1 says more of the one at t = 1"
        )
