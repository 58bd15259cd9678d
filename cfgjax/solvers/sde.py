"""Solvers of the SDE dX = [u + sigma_t^2 s / 2] dt + sigma_t dW.

(D1) With s = -E / beta the drift is  f = u - (sigma^2 / 2 beta) E.  At w = 0 and w = 1 the SDE has the path's marginals
     for every sigma_t; a guided one has not.
(D2) Heun's rule for (D1), with W the Brownian motion since t and sigma read at the step's middle:
     k = f(x, t),  k' = f(x + c h k + sigma W(c h), t + c h),  x + h [(1 - 1/2c) k + (1/2c) k'] + sigma W(h),
     of weak order 2 for every c in (0, 1], because the noise does not depend on x.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cfgjax.checks import require_scalar
from cfgjax.contracts import StateField, checked
from cfgjax.conversions import from_field
from cfgjax.paths import before_end, noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers.diffusions import AdmissibleSchedule
from cfgjax.types import Array, Field, GaussianPath, Schedule, Solver, State


def _at(diffusion: Schedule, t: Array) -> Array:
    value = diffusion(t)
    require_scalar("diffusion(t)", value)
    return value


@checked
def drift_of(path: GaussianPath, field: StateField, diffusion: Schedule) -> Field:
    """The drift u - (sigma^2 / 2 beta) E of (D1), from one evaluation of the vector field."""

    def drift(x: Array, t: Array) -> Array:
        prediction = from_field(path, field(x, t), x, t)
        return prediction.field - _at(diffusion, t) ** 2 / (2 * path.beta(before_end(t))) * prediction.noise

    return drift


@piecewise
@checked
def euler_maruyama(path: GaussianPath, field: Field, diffusion: AdmissibleSchedule) -> Solver:
    """The Euler-Maruyama rule for (D1): x + h [u - (sigma^2 / 2 beta) E] + sigma sqrt(h) noise, weak order 1.

    One evaluation of the field a step, never at the end of a step; the noise prediction E follows from it. The noise
    is drawn in the scan, from the step's own key.

    Args:
        path: the path of the field.
        field: the vector field, guided or not.
        diffusion: sigma_t, a function of t; see ``diffusions`` for admissible ones. The grid must increase.

    Source: MIT 6.S184 notes (arXiv 2506.02070v3), theorem 17.
    """
    drift = drift_of(path, field, diffusion)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        noise = noise_like(key, x)
        return State((x + h * drift(x, t) + diffusion(t) * jnp.sqrt(h) * noise).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)


@piecewise
@checked
def stochastic_heun(path: GaussianPath, field: Field, diffusion: AdmissibleSchedule) -> Solver:
    """Heun's rule for (D1), (D2) with c = 1: weak order 2, two evaluations of the field a step.

    A step that ends at t = 1 takes c = 1/2, so that neither field nor diffusion is read at t = 1 there; the order is
    the same. With sigma = 0 it is ``heun``.

    Args:
        path: the path of the field.
        field: the vector field, guided or not.
        diffusion: sigma_t, a function of t; see ``diffusions`` for admissible ones. One with a kink, as a held
            ``memoryless`` has, keeps the order where the kink lies on the grid. The grid must increase.

    Source: Kloeden & Platen, Numerical Solution of Stochastic Differential Equations, section 15.1, the simplified
    rule of weak order 2 for additive noise.
    """
    drift = drift_of(path, field, diffusion)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        c = jnp.where(t_next >= 1, 0.5, 1.0).astype(h.dtype)
        early_key, late_key = jax.random.split(key)
        sigma = diffusion(t + 0.5 * h)
        early = sigma * jnp.sqrt(c * h) * noise_like(early_key, x)
        later = sigma * jnp.sqrt((1 - c) * h) * noise_like(late_key, x)
        first = drift(x, t)
        second = drift((x + c * h * first + early).astype(x.dtype), t + c * h)
        late = 0.5 / c
        return State((x + h * ((1 - late) * first + late * second) + early + later).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)
