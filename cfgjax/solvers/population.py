"""A population of weighted particles: each moves and weighs itself, together they are normalised and resampled.

(W1) Particle i has the state x_i and the log-weight A_i, to which each of its steps adds its own increment. The
     weighted particles stand for a law: its mean of f is about sum exp(A_i) f(x_i) / sum exp(A_i).
(W2) The mean of exp(A) over the particles, multiplied up over all resamplings, is an unbiased estimate of the law's
     normaliser: however few particles, and whenever they are resampled.
(W3) A weight of 0, A = -inf, stays 0 until the particle is replaced. Where all are 0 the effective size is 0, the
     normaliser's log is -inf, and nothing is resampled: the states go on. An increment of NaN or +inf makes all
     weights, the size and the normaliser NaN, for good; nothing is resampled, and no state becomes NaN by it.

Source: Del Moral, Doucet & Jasra, Journal of the Royal Statistical Society B 68 (2006), for (W2) and the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cfgjax.checks import HUGE, is_traced, require_real, short_repr
from cfgjax.contracts import Contract, Key, PositiveInt, UnitInterval, checked
from cfgjax.paths import as_float
from cfgjax.types import Array, Solver, Tree, WeightedSolver


class Particle(NamedTuple):
    """The carry of ONE particle: its solver's carry, and ``log_increment`` [], what the last step adds to A of (W1).

    After ``init`` the increment is the log-weight that the particle starts with. ``memory`` is what the weights need
    from step to step.
    """

    carry: Any
    log_increment: Array
    memory: Tree = ()

    @property
    def x(self) -> Array:
        """The state, [*D]."""
        return self.carry.x


class ParticleCarry(NamedTuple):
    """A weighted population of n states, as a solver's carry.

    ``each`` is the carry of the particles' own solver, with a leading axis n; ``log_weights`` [n] are normalised to a
    mean weight of 1; ``effective_size`` is (sum exp A)^2 / sum exp 2A over all particles after the last step, before
    it resampled, in [1, n], or 0 where all weights are 0, and ``least_size`` the least that it ever was;
    ``log_normaliser`` is the log of the estimate of (W2); ``num_steps`` [] counts the steps that were taken.
    """

    each: Any
    log_weights: Array
    effective_size: Array
    log_normaliser: Array
    num_steps: Array
    least_size: Array

    @property
    def x(self) -> Array:
        """The states, [n, *D]."""
        return self.each.x


def _require_log_weights(name: str, log_weights: Any) -> None:
    require_real(name, log_weights)
    if jnp.ndim(log_weights) != 1 or jnp.size(log_weights) == 0:
        raise ValueError(f"{name} must be a row [n] with n at least 1, got the shape {jnp.shape(log_weights)}")
    if is_traced(log_weights):
        return
    largest = np.max(np.asarray(log_weights, np.float64))
    if not -HUGE <= largest <= HUGE:
        raise ValueError(f"{name} must be under inf, and one of them finite, got {short_repr(log_weights)}")


LogWeights = Annotated[Array, Contract(_require_log_weights)]
"""Logarithms of weights, [n], where concrete under inf and at least one of them finite."""


@checked
def systematic_resampling(key: Key, log_weights: LogWeights, num_draws: PositiveInt | None = None) -> Array:
    """The indices of m particles drawn by systematic resampling, [m]: particle i is drawn m W_i times, rounded.

    One uniform number u places the m points (i + u) / m in the cumulated normalised weights W: every number of copies
    is the floor or the ceiling of m W_i, and is unbiased.

    Args:
        key: for the one number.
        log_weights: [n], log W up to a constant; -inf is never drawn.
        num_draws: m; None for n.

    Source: Douc et al., arXiv cs/0507025, section 2.4.
    """
    log_weights = as_float(log_weights)
    size = log_weights.shape[0]
    count = size if num_draws is None else num_draws
    cumulated = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(count) + jax.random.uniform(key, dtype=cumulated.dtype)) / count
    return jnp.minimum(jnp.searchsorted(cumulated / cumulated[-1], points, side="right"), size - 1)


@checked
def effective_sample_size(log_weights: LogWeights) -> Array:
    """(sum W)^2 / sum W^2 for the weights W, []: n for equal ones, 1 where one of them has it all.

    0 where a trace finds all weights 0, NaN where it finds one NaN or infinite.

    Args:
        log_weights: [n], log W up to a constant.

    Source: Kong, Liu & Wong, Journal of the American Statistical Association 89 (1994).

    >>> float(effective_sample_size(jnp.zeros(4)))
    4.0
    """
    log_weights = as_float(log_weights)
    total = logsumexp(log_weights)
    size = jnp.exp(2 * total - logsumexp(2 * log_weights))
    return jnp.where(total == -jnp.inf, 0, size)


@checked
def population(one: Solver, threshold: UnitInterval = 0.5, axis_name: str | None = None) -> WeightedSolver:
    """The rule that moves a population of particles by the solver of one, weighs it by (W1), and resamples it.

    ``solve`` returns its ParticleCarry, ``observe`` sees it at each time; ``integrate``, which would return the states
    without their weights, refuses it. Particle i of step k has the key fold_in(step's key, i), i counted over all
    devices.

    Args:
        one: a Solver of ONE particle, whose carry has ``x`` and ``log_increment``, as ``Particle`` has.
        threshold: [], the share of n under which the effective sample size leads to systematic resampling; 0 never
            resamples, 1 does at each step.
        axis_name: the mapped axis over which the particles are sharded, n on each device: sizes, weights and
            resampling are then those of all of them, and the same on every device.

    Returns:
        A WeightedSolver for increasing grids, of states [n, *D].

    Raises:
        ValueError: at the start of a solve, an x that is no population, or weights of which, where concrete, one is
            NaN or infinite or all are 0.
    """
    return counted_population(lambda num_steps: one, threshold, axis_name)


@checked
def counted_population(
    one_at: Callable[[Array], Solver], threshold: UnitInterval, axis_name: str | None
) -> WeightedSolver:
    """``population`` of a solver that may depend on how many steps were taken, [], the same for all particles."""

    def all_of(value: Array) -> Array:
        return value if axis_name is None else jax.lax.all_gather(value, axis_name, tiled=True)

    def indices(size: int) -> Array:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        return first + jnp.arange(size)

    def normalised(log_weights: Array) -> tuple[Array, Array, Array]:
        """(log-weights of mean 1, the log of their mean before, their effective size), of all particles."""
        mean = logsumexp(log_weights) - jnp.log(log_weights.shape[0])
        is_lost = mean == -jnp.inf
        return log_weights - jnp.where(is_lost, 0, mean), mean, effective_sample_size(log_weights)

    def init(x: Array) -> ParticleCarry:
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"x must be a population [n, *D] with n at least 1, got the shape {x.shape}")
        dtype, num_steps = jnp.promote_types(x.dtype, jnp.float32), jnp.zeros((), jnp.int32)
        each: Any = jax.vmap(one_at(num_steps).init)(x)
        log_weights = all_of(each.log_increment.astype(dtype))
        _require_log_weights("log-weights at the start", log_weights)
        log_weights, mean, size = normalised(log_weights)
        own, size = indices(x.shape[0]), size.astype(dtype)
        return ParticleCarry(each, log_weights[own], size, mean.astype(dtype), num_steps, size)

    def step(key: Array, carry: ParticleCarry, t: Array, t_next: Array) -> ParticleCarry:
        own, one = indices(carry.log_weights.shape[0]), one_at(carry.num_steps)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(own)
        each: Any = jax.vmap(one.step, in_axes=(0, 0, None, None))(keys, carry.each, t, t_next)
        grown = all_of(_grown(carry.log_weights, each.log_increment))
        total = grown.shape[0]
        log_weights, mean, size = normalised(grown)
        is_poor = (size < threshold * total) & (size > 0)

        def resampled(each: Any) -> Any:
            ancestors = systematic_resampling(jax.random.fold_in(key, total), grown)[own]
            return jax.tree.map(lambda leaf: all_of(leaf)[ancestors], each)

        each = jax.lax.cond(is_poor, resampled, lambda each: each, each)
        kept = jnp.where(is_poor, 0, log_weights[own])
        normaliser, size = carry.log_normaliser + mean, size.astype(kept.dtype)
        least = jnp.minimum(carry.least_size, size)
        return ParticleCarry(each, kept, size, normaliser, carry.num_steps + 1, least)

    return WeightedSolver(init, step)


def _grown(log_weights: Array, increments: Array) -> Array:
    """The log-weights after a step, by (W3)."""
    grown = jnp.where(log_weights == -jnp.inf, -jnp.inf, log_weights + increments.astype(log_weights.dtype))
    return jnp.where(grown == jnp.inf, jnp.nan, grown)
