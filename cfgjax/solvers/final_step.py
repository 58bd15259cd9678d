"""The noise-free last step of a stochastic solver, in one of three ways.

For the exact law at t = 1 - h, an exact regular field and h -> 0 the error of the end's law is
(E1) Euler, x + h u(x, t):  O(h^2) in mean and variance.
(E2) Tweedie, D(x, t):  none in the mean; the variance falls short by S beta^2 / (alpha^2 S + beta^2) for data of
     variance S, which is O(beta^2), as a denoiser is no sample.
(E3) mean, x + h [u + sigma^2 s / 2](x, t):  O(h^2) in the mean; the variance falls short by the noise left out, about
     h sigma^2, which is O(h^2) where sigma^2 = O(h), and only O(h) for a constant sigma.
So each keeps a solver's weak order 1. Order 2 is kept by (E1), by (E2) where beta = O(h), and by (E3) where
sigma^2 = O(h) as well.

Source: Ma et al., arXiv 2401.08740, whose code names them; the errors are this module's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cfgjax.checks import require_like
from cfgjax.contracts import StateField, checked
from cfgjax.conversions import denoiser_of
from cfgjax.piecewise import piecewise
from cfgjax.solvers.sde import drift_of
from cfgjax.types import Array, Carry, Field, GaussianPath, Schedule, Solver

FinalStep = Callable[[Array, Array, Array], Array]
"""``(x [*D], t [], t_next []) -> [*D]``: a step without noise."""


@piecewise
@checked
def euler_step(field: StateField) -> FinalStep:
    """The step x + h u(x, t) of (E1)."""
    return lambda x, t, t_next: x + (t_next - t) * field(x, t)


@piecewise
def tweedie_step(path: GaussianPath, field: Field) -> FinalStep:
    """The step to the denoiser D(x, t) of (E2), whatever the step's end is: only meant for t_next = 1."""
    denoiser = denoiser_of(path, field)
    return lambda x, t, t_next: denoiser(x, t)


@piecewise
@checked
def mean_step(path: GaussianPath, field: Field, diffusion: Schedule) -> FinalStep:
    """The step x + h [u + sigma^2 s / 2](x, t) of (E3): the Euler-Maruyama rule's, its noise left out."""
    return euler_step(drift_of(path, field, diffusion))


@piecewise
@checked
def with_final_step(solver: Solver, last: FinalStep) -> Solver:
    """The solver whose step to t = 1 is ``last``; every other step is its own.

    Only the one of the two that is at work is computed, where t is shared by all examples.

    Args:
        solver: a stochastic solver, whose carry has its state in a field x.
        last: ``euler_step(field)``, ``tweedie_step(path, field)`` or ``mean_step(path, field, diffusion)``. A grid
            that ends before 1 never takes it.

    Raises:
        TypeError, ValueError: at a step, a last state that is not like x.
    """

    def step(key: Array, carry: Any, t: Array, t_next: Array) -> Carry:
        def end(carry: Any) -> Carry:
            value = require_like("last", last(carry.x, t, t_next), carry.x)
            return carry._replace(x=jnp.asarray(value, carry.x.dtype))

        return jax.lax.cond(t_next >= 1, end, lambda carry: solver.step(key, carry, t, t_next), carry)

    return solver._replace(step=step)
