"""The tilted law p_t(x)^(1-w) p_t(x|y)^w, sampled exactly by weighted particles (Feynman-Kac correction).

(T1) Particles follow the guided SDE  dX = [u_w + sigma^2 s_w / 2] dt + sigma dW  for any sigma_t, 0 included.
(T2) Each carries a log-weight  dA = w (w - 1) (u_y - u_null) . (s_y - s_null) dt
                                   = w (w - 1) alpha / (beta W) |u_y - u_null|^2 dt,   A = 0 at t = 0.
(T3) The weighted particles have the tilted law, normalised, at every t; exp(A) has the mean
     Z_t = integral of p_t(x)^(1-w) p_t(x|y)^w dx.
(T4) For a w that depends on t, dA would have the further term w' log p_t(x|y) / p_t(x), which no field tells.

Source: Skreta et al., arXiv 2503.02819 (there for diffusion, here for any Gaussian path and sigma_t);
Bradley & Nakkiran, arXiv 2408.09000, for what guidance without a correction samples.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from cfgjax.checks import HUGE, is_traced, require_number, require_real, short_repr
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, Contract, Key, UnitInterval, checked
from cfgjax.paths import as_float, before_end, coefficients
from cfgjax.solvers.diffusions import AdmissibleSchedule
from cfgjax.solvers.sde import euler_maruyama
from cfgjax.solvers.stateful import with_field_state
from cfgjax.types import Array, Condition, GaussianPath, Number, Pair, StatefulField, Tree, WeightedSolver


class ParticleCarry(NamedTuple):
    """A weighted population of n states, as a solver's carry.

    ``each`` is the carry of the particles' own solver, with a leading axis n; ``log_weights`` [n] are normalised to a
    mean weight of 1; ``effective_size`` is (sum exp A)^2 / sum exp 2A over all particles before the last resampling,
    in [1, n]; ``log_normaliser`` estimates log Z_t of (T3).
    """

    each: Any
    log_weights: Array
    effective_size: Array
    log_normaliser: Array

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
def systematic_resampling(key: Key, log_weights: LogWeights) -> Array:
    """The indices of n particles drawn by systematic resampling, [n]: particle i is drawn n W_i times, rounded.

    One uniform number u places the n points (i + u) / n in the cumulated normalised weights W: every number of copies
    is the floor or the ceiling of n W_i, and is unbiased.

    Args:
        key: for the one number.
        log_weights: [n], log W up to a constant; -inf is never drawn.

    Source: Douc et al., arXiv cs/0507025, section 2.4.
    """
    log_weights = as_float(log_weights)
    size = log_weights.shape[0]
    cumulated = jnp.cumsum(jax.nn.softmax(log_weights))
    points = (jnp.arange(size) + jax.random.uniform(key, dtype=cumulated.dtype)) / size
    return jnp.minimum(jnp.searchsorted(cumulated / cumulated[-1], points, side="right"), size - 1)


def _effective_size(log_weights: Array) -> Array:
    return jnp.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights))


def _growth(path: GaussianPath, scale: Number, null: Array, labelled: Array, t: Array) -> Array:
    """dA/dt of (T2), []; 0 where alpha = 0."""
    c = coefficients(path, before_end(t))
    is_zero = c.wronskian == 0
    slope = jnp.where(is_zero, 0, c.alpha / (c.beta * jnp.where(is_zero, 1, c.wronskian)))
    return scale * (scale - 1) * slope * jnp.sum(jnp.square(labelled - null))


def _tilting(path: GaussianPath, pair: Pair, y: Condition, scale: Number) -> StatefulField:
    """The guided field, which records the growth of the log-weight where it was evaluated."""
    y = as_condition(y)

    def apply(x: Array, t: Array, memory: Tree) -> tuple[Array, Tree]:
        null, labelled = pair.both(x, t, y)
        growth = _growth(path, scale, null, labelled, t).astype(memory.dtype)
        return null + scale * (labelled - null), growth

    return StatefulField(lambda x: jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32)), apply)


def _require_constant(name: str, scale: Any) -> None:
    if callable(scale) or isinstance(scale, tuple):
        raise ValueError(f"{name} of the tilted law must be one number, got a function of time or an interval")
    require_number(name, scale)


ConstantScale = Annotated[Number, Contract(_require_constant)]
"""A guidance scale that is one number, finite where concrete."""


@checked
def feynman_kac(
    path: GaussianPath,
    pair: Pair,
    y: AnyCondition,
    scale: ConstantScale,
    diffusion: AdmissibleSchedule,
    threshold: UnitInterval = 0.5,
    axis_name: str | None = None,
) -> WeightedSolver:
    """The rule that moves a population of particles by (T1), weights it by (T2), and resamples it.

    The one solver whose state is a population [n, *D]. ``solve`` returns its ParticleCarry, ``observe`` sees it at each
    time; ``integrate``, which would return the states without their weights, refuses it. Plain draws of the law are
    ``particles.x[systematic_resampling(key, particles.log_weights)]``. Particle i of step k has the key
    fold_in(step's key, i), i counted over all devices. ``vmap`` over y makes a population for each condition. Errors:
    those of the fields and of the steps (weak order 1), and O(1/n) of weights.

    Args:
        path: the path of the fields.
        pair: the null and the labelled vector field, exact or learned, with no rule upon them.
        y: the condition.
        scale: [], w, constant in time (T4); may be traced.
        diffusion: sigma_t, as for ``euler_maruyama``; larger ones need more steps and smaller weights.
        threshold: [], the share of n under which the effective sample size leads to systematic resampling; 0 never
            resamples, 1 does at each step.
        axis_name: the mapped axis over which the particles are sharded, n on each device: sizes, weights and
            resampling are then those of all of them, and the same on every device.

    Returns:
        A WeightedSolver for increasing grids that start at t = 0 from standard normal noise.

    Raises:
        ValueError: at the start of a solve, an x that is no population.
    """
    one = with_field_state(lambda field: euler_maruyama(path, field, diffusion), _tilting(path, pair, y, scale))

    def all_of(value: Array) -> Array:
        return value if axis_name is None else jax.lax.all_gather(value, axis_name, tiled=True)

    def indices(size: int) -> Array:
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        return first + jnp.arange(size)

    def init(x: Array) -> ParticleCarry:
        if x.ndim == 0 or x.shape[0] == 0:
            raise ValueError(f"x must be a population [n, *D] with n at least 1, got the shape {x.shape}")
        size, dtype = all_of(jnp.ones(x.shape[0])).shape[0], jnp.promote_types(x.dtype, jnp.float32)
        zeros = jnp.zeros(x.shape[0], dtype)
        return ParticleCarry(jax.vmap(one.init)(x), zeros, jnp.asarray(size, dtype), jnp.zeros((), dtype))

    def step(key: Array, carry: ParticleCarry, t: Array, t_next: Array) -> ParticleCarry:
        own = indices(carry.log_weights.shape[0])
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(own)
        each: Any = jax.vmap(one.step, in_axes=(0, 0, None, None))(keys, carry.each, t, t_next)
        log_weights = all_of(carry.log_weights + ((t_next - t) * each.memory).astype(carry.log_weights.dtype))
        total = log_weights.shape[0]
        mean = logsumexp(log_weights) - jnp.log(total)
        size = _effective_size(log_weights)
        is_poor = size < threshold * total

        def resampled(each: Any) -> Any:
            ancestors = systematic_resampling(jax.random.fold_in(key, total), log_weights)[own]
            return jax.tree.map(lambda leaf: all_of(leaf)[ancestors], each)

        each = jax.lax.cond(is_poor, resampled, lambda each: each, each)
        kept = jnp.where(is_poor, 0, (log_weights - mean)[own])
        return ParticleCarry(each, kept, size.astype(kept.dtype), carry.log_normaliser + mean)

    return WeightedSolver(init, step)
