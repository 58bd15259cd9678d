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

from typing import Annotated, Any

import jax.numpy as jnp

from cfgjax.checks import require_number
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, Contract, UnitInterval, checked
from cfgjax.paths import before_end, coefficients
from cfgjax.solvers.diffusions import AdmissibleSchedule
from cfgjax.solvers.population import Particle, population
from cfgjax.solvers.sde import euler_maruyama
from cfgjax.solvers.stateful import with_field_state
from cfgjax.types import Array, Condition, GaussianPath, Number, Pair, Solver, StatefulField, Tree, WeightedSolver


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
    """The rule that moves a population of particles by (T1), weights it by (T2), and resamples it: a ``population``.

    Plain draws of the law are ``particles.x[systematic_resampling(key, particles.log_weights)]``. ``vmap`` over y makes
    a population for each condition. Errors: those of the fields and of the steps (weak order 1), and O(1/n) of weights.

    Args:
        path: the path of the fields.
        pair: the null and the labelled vector field, exact or learned, with no rule upon them.
        y: the condition.
        scale: [], w, constant in time (T4); may be traced.
        diffusion: sigma_t, as for ``euler_maruyama``; larger ones need more steps and smaller weights.
        threshold: [], as for ``population``: 0 never resamples, 1 does at each step.
        axis_name: the mapped axis over which the particles are sharded, as for ``population``.

    Returns:
        A WeightedSolver for increasing grids that start at t = 0 from standard normal noise.

    Raises:
        ValueError: at the start of a solve, an x that is no population.
    """
    mover = with_field_state(lambda field: euler_maruyama(path, field, diffusion), _tilting(path, pair, y, scale))

    def init(x: Array) -> Particle:
        carry: Any = mover.init(x)
        return Particle(carry, jnp.zeros_like(carry.memory))

    def step(key: Array, carry: Particle, t: Array, t_next: Array) -> Particle:
        moved: Any = mover.step(key, carry.carry, t, t_next)
        return Particle(moved, ((t_next - t) * moved.memory).astype(carry.log_increment.dtype))

    return population(Solver(init, step, is_forward_only=True), threshold, axis_name)
