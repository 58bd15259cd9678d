"""Diffusion coefficients sigma_t for the SDE, and the check that refuses those which diverge.

The drift u - (sigma^2 / 2 beta) E is regular for any field iff sigma_t^2 = O(beta_t) at t = 1. A sigma that is merely
bounded there (``constant``) is regular for an exact field, whose E is O(beta), and never evaluated at t = 1 itself.
One that diverges at an end is refused: a grid cut at 1e-6 instead of 0 would silently give a wrong law.

SiT (arXiv 2401.08740) offers six coefficients. Its code writes drift u + d s and noise sqrt(2 d) dW, in this library's
time, so that d = sigma^2 / 2; its paper counts time from data to noise and has w = sigma^2. With c SiT's factor of d:

    SiT's name             d                       here
    constant               c                       ``constant(sqrt(2 c))``
    SBDM                   b = beta W / alpha      ``memoryless(path, start)``, for c = 1
    sigma                  c beta                  ``root_beta(path, sqrt(c))``
    linear                 c (1 - t)               ``root_linear(sqrt(c))``
    decreasing             (cos(pi t) + 1)^2 / 4   ``decreasing()``; the c within SiT's cosine leaves noise at t = 1
    increasing-decreasing  c sin(pi t)^2           ``increasing_decreasing(sqrt(c))``

SBDM diverges at t = 0 and is admissible once held; the others are admissible as they are. The last three do not know
the path: sigma^2 is 2 (1 - t) or less near t = 1, which is O(beta) on every path of ``paths``.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import is_traced, require_function, require_scalar
from cfgjax.contracts import Contract, NonNegative, Time, checked
from cfgjax.paths import before_end, coefficients
from cfgjax.types import Array, GaussianPath, Schedule

_GROWTH = 10.0
"""The ratio sigma^2(1e-4) / sigma^2(1e-2) from an end over which sigma counts as divergent; 1/distance gives 100."""


@checked
def constant(value: NonNegative) -> Schedule:
    """sigma_t = ``value`` at all times; admissible, but sigma^2/beta grows at t = 1: better for exact fields."""
    return lambda t: jnp.asarray(value, jnp.result_type(t))


@checked
def root_beta(path: GaussianPath, strength: NonNegative = 1.0) -> Schedule:
    """sigma_t = strength sqrt(2 beta_t): admissible at both ends; with strength 1 the SDE's drift is u - E."""
    return lambda t: strength * jnp.sqrt(2 * path.beta(t))


@checked
def root_linear(strength: NonNegative = 1.0) -> Schedule:
    """sigma_t = strength sqrt(2 (1 - t)): admissible at both ends; ``root_beta`` of the straight path, for any path."""
    return lambda t: strength * jnp.sqrt(2 * (1.0 - t))


@checked
def decreasing(strength: NonNegative = 1.0) -> Schedule:
    """sigma_t = strength (1 + cos(pi t)) / sqrt(2): sqrt(2) at t = 0, and 0 with its derivative at t = 1.

    It is computed as sqrt(2) sin(pi (1 - t) / 2)^2, which is exactly 0 at t = 1.
    """
    return lambda t: strength * 2.0**0.5 * jnp.sin(jnp.pi / 2 * (1.0 - t)) ** 2


@checked
def increasing_decreasing(strength: NonNegative = 1.0) -> Schedule:
    """sigma_t = strength sqrt(2) sin(pi t): 0 at both ends, exactly, and largest in the middle."""

    def sigma(t: Array) -> Array:
        return strength * 2.0**0.5 * jnp.sin(jnp.pi * jnp.minimum(t, 1.0 - t))

    return sigma


@checked
def memoryless(path: GaussianPath, start: Time = 0.0) -> Schedule:
    """sigma_t = sqrt(2 b_t) with b = beta W / alpha, held at its value in ``start`` before that time.

    It diverges at t = 0, so ``euler_maruyama`` refuses it with start = 0; from 0.01 on it is admissible.
    Source: Domingo-Enrich et al., arXiv 2409.08861, equation 14.
    """

    def sigma(t: Array) -> Array:
        c = coefficients(path, before_end(jnp.maximum(t, start)))
        return jnp.sqrt(2 * c.beta * c.wronskian / c.alpha)

    return sigma


def _probe(name: str, sigma: Schedule, t: float) -> float | None:
    with jax.ensure_compile_time_eval():
        value = sigma(jnp.asarray(t, jnp.result_type(float)))
    require_scalar(f"{name}(t)", value)
    return None if is_traced(value) else float(np.asarray(value))


def _diverges(end: float, near: float, far: float) -> bool:
    return not np.isfinite(end) or near**2 > _GROWTH * max(far**2, 1.0)


def require_admissible(name: str, diffusion: Schedule) -> None:
    """Raises ValueError where sigma_t is negative, not finite on [0, 1), or diverges at an end.

    A sigma that depends on traced numbers cannot be looked at, and passes. TypeError or ValueError for what is no
    function, or does not give one number.
    """
    require_function(name, diffusion)
    times = (0.0, 1e-4, 1e-2, 0.25, 0.5, 0.75, 1 - 1e-2, 1 - 1e-4)
    values = {t: _probe(name, diffusion, t) for t in times}
    numbers = {t: value for t, value in values.items() if value is not None}
    if len(numbers) < len(values):
        return
    for edge, end, near, far in (("0", 0.0, 1e-4, 1e-2), ("1", 1 - 1e-4, 1 - 1e-4, 1 - 1e-2)):
        if _diverges(numbers[end], numbers[near], numbers[far]):
            raise ValueError(
                f"{name} must stay bounded on [0, 1], but sigma_t diverges at t = {edge}: sigma({end:g}) = "
                f"{numbers[end]:.3g}, sigma({near:g}) = {numbers[near]:.3g}, sigma({far:g}) = {numbers[far]:.3g}; hold "
                f"it before that time, as memoryless(path, start=0.02) does, or choose one that is admissible at both "
                f"ends, as root_beta(path) is"
            )
    for t, value in numbers.items():
        if not np.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be finite and not negative, got sigma({t:g}) = {value:g}")


AdmissibleSchedule = Annotated[Schedule, Contract(require_admissible)]
"""sigma_t, where concrete finite and not negative on [0, 1), and bounded at both ends."""
