"""The stochastic sampler that steps back into the noise before each ODE step.

(N1) x = alpha z + beta noise has the noise level r = beta / alpha.  Raised to (1 + gamma) r at the earlier time t^,
     x^ = k x + k beta sqrt((1 + gamma)^2 - 1) noise',   k (alpha, (1 + gamma) beta) = (alpha, beta) at t^,
     so x^ has the law at t^ exactly; then an ODE step from t^ to the next time.
"""

from __future__ import annotations

import jax.numpy as jnp

from cfgjax.contracts import NonNegative, Time, checked
from cfgjax.conversions import time_at
from cfgjax.paths import noise_like
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ode import heun
from cfgjax.types import Array, Carry, Field, GaussianPath, Solver, State


@piecewise
@checked
def churn(
    path: GaussianPath,
    field: Field,
    amount: NonNegative,
    start: Time = 0.0,
    stop: Time = 1.0,
    noise_scale: NonNegative = 1.0,
) -> Solver:
    """The stochastic sampler of Karras et al. on any Gaussian path: (N1), then a step of ``heun`` to the next time.

    Two evaluations of the field a step, none at t = 1. At t = 0, where the noise level is infinite, (N1) replaces a
    part of the noise by new noise. The marginals are kept for every amount, up to the error of Heun's step, which is
    longer by t - t^: for an amount that stays the same the error does not vanish with the number of steps.

    Args:
        path: the path of the field.
        field: the vector field, guided or not.
        amount: [], gamma of (N1), by which the noise level rises in each step; 0 is ``heun`` exactly. Karras et al.
            take S_churn / n for n steps, and no more than sqrt(2) - 1.
        start: [], the time from which on noise is added.
        stop: [], the time from which on none is; the paper's S_tmin and S_tmax as times.
        noise_scale: [], a factor of the added noise, the paper's S_noise; only 1 keeps the marginals.

    Source: Karras et al., arXiv 2206.00364, algorithm 2.
    """
    solver = heun(field)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> Carry:
        x, alpha, beta = carry.x, path.alpha(t), path.beta(t)
        rise = jnp.where((t >= start) & (t < stop), 1 + amount, 1).astype(t.dtype)
        earlier = jnp.where(rise == 1, t, time_at(path, alpha, rise * beta).astype(t.dtype))
        ratio = jnp.hypot(path.alpha(earlier), path.beta(earlier)) / jnp.hypot(alpha, rise * beta)
        k = jnp.where(rise == 1, 1, ratio)
        noise = noise_scale * beta * jnp.sqrt(rise**2 - 1) * noise_like(key, x)
        return solver.step(key, State((k * (x + noise)).astype(x.dtype)), earlier, t_next)

    return Solver(init=State, step=step, is_forward_only=True)
