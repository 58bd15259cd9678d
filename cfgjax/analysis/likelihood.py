"""The log-density that an ODE gives its samples, state and density solved together.

(H1) along dx = u(x, t) dt:   d log p_t(x) / dt = -div u(x, t).
(H2) log p_1(x) = log N(x_0; 0, I) - integral over [0, 1] of div u(x_t, t) dt,  x_0 at the foot of x's trajectory.
(H3) div u = E[v . (du/dx) v] for a random sign vector v: unbiased with ONE v for the whole solve.
(H4) bits per dimension = -log p / (D log 2) + log2(256 / r), r the range onto which 256 levels are scaled.

Source: MIT 6.S184 notes (arXiv 2506.02070); Chen et al., arXiv 1806.07366; Grathwohl et al., arXiv 1810.01367.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax import kernels
from cfgjax.checks import THREEFRY, require_direction, require_like, require_scalar
from cfgjax.contracts import Finite, Key, Positive, PositiveInt, RealArray, StateField, TimeGrid, checked
from cfgjax.paths import as_state
from cfgjax.piecewise import piecewise
from cfgjax.solvers.integrate import integrate
from cfgjax.types import Array, Field, Solver, Times

Divergence = Callable[[Array, Array], tuple[Array, Array]]
"""``(x [*D], t []) -> (u [*D], div u [])``: a field's value with its divergence."""


@piecewise
@checked
def exact_divergence(field: StateField) -> Divergence:
    """The field's value and its exact divergence, by one derivative along each of the D axes: for small D.

    Networks are traced with ``kernels.plain``: flash attention cannot be derived along all axes at once.
    """

    def at(x: Array, t: Array) -> tuple[Array, Array]:
        x = as_state(x)

        def flat(row: Array) -> Array:
            return as_state(field(row.reshape(x.shape), t)).reshape(-1)

        row = x.reshape(-1)
        with kernels.plain():
            value, pull_back = jax.vjp(flat, row)
            slopes = jax.vmap(lambda axis: jnp.sum(pull_back(axis)[0] * axis))(jnp.eye(x.size, dtype=value.dtype))
        return value.reshape(x.shape), jnp.sum(slopes)

    return at


@piecewise
@checked
def estimated_divergence(field: StateField, key: Key) -> Divergence:
    """The field's value and Hutchinson's unbiased estimate (H3) of its divergence, at the cost of about two values.

    Differentiated backwards, as flash attention can only be.

    The key makes ONE vector of random signs: a solve that uses this function sees the same one at every time, as it
    must for the solver's order to hold.
    """

    def at(x: Array, t: Array) -> tuple[Array, Array]:
        x = as_state(x)
        signs = jax.random.rademacher(key, x.shape, x.dtype)
        value, pull_back = jax.vjp(lambda x: as_state(field(x, t)), x)
        return value, jnp.sum(pull_back(signs.astype(value.dtype))[0] * signs)

    return at


@piecewise
def _joint(make_solver: Callable[[Field], Solver], divergence: Divergence, shape: tuple[int, ...]) -> Solver:
    """The solver of state and change of log-density as one vector [D + 1], so that both are of its order."""

    def joint(packed: Array, t: Array) -> Array:
        x = packed[:-1].reshape(shape)
        both = divergence(x, t)
        if not (isinstance(both, tuple) and len(both) == 2):
            raise TypeError(f"divergence must give (value, divergence), as exact_divergence(field) does, got {both}")
        value, slope = require_like("divergence", both[0], x), both[1]
        require_scalar("divergence", slope)
        return jnp.append(value.reshape(-1), slope)

    return make_solver(joint)


def _solve(make_solver: Callable[[Field], Solver], divergence: Divergence, x: Array, ts: Times) -> tuple[Array, Array]:
    """The state at the end of the grid, and the integral of the divergence along its way."""
    start = jnp.append(x.reshape(-1), jnp.zeros((), x.dtype))
    end = integrate(_joint(make_solver, divergence, x.shape), jax.random.key(0, impl=THREEFRY), start, ts)
    return end[:-1].reshape(x.shape), end[-1]


@checked
def log_normal(x: RealArray) -> Array:
    """log N(x; 0, I), []."""
    x = as_state(x)
    return -0.5 * (jnp.sum(jnp.square(x)) + x.size * jnp.log(2 * jnp.pi))


@checked
def log_density(
    make_solver: Callable[[Field], Solver], divergence: Divergence, x: RealArray, ts: TimeGrid
) -> tuple[Array, Array]:
    """log p_1(x) by (H2), and the noise x_0 at the foot of x's trajectory.

    With the divergence of a guided field it is the guided ODE's own log p_w(x|y), which at w other than 0 and 1 is
    neither the tilted law's nor (1 - w) log p + w log p(x|y).

    Args:
        make_solver: an ODE solver of a field, for example ``solvers.heun``; it is given state and density as one
            vector [D + 1], so that both are of its order.
        divergence: the field with its divergence: ``exact_divergence`` or ``estimated_divergence``; of a field with a
            guidance interval they are piecewise, and so is the solve.
        x: [*D], the data point.
        ts: [n + 1], DEcreasing from 1 to 0. No solver calls the field at t = 1 (``solvers.ends``).

    Returns:
        (log p [], x_0 [*D]).

    Raises:
        TypeError, ValueError: a grid that does not decrease, a divergence that does not give a value like x and one
            number.
    """
    x = as_state(x)
    require_direction("ts", ts, is_to_data=False)
    noise, change = _solve(make_solver, divergence, x, ts)
    return log_normal(noise) + change, noise


@checked
def sample_log_density(
    make_solver: Callable[[Field], Solver], divergence: Divergence, noise: RealArray, ts: TimeGrid
) -> tuple[Array, Array]:
    """log p_1 of the sample that ``noise`` becomes, by (H2) forwards, and the sample: the two in one solve.

    Args:
        make_solver: as for ``log_density``.
        divergence: as for ``log_density``.
        noise: [*D], a draw of N(0, I).
        ts: [n + 1], INcreasing from 0 to 1.

    Returns:
        (log p [], x_1 [*D]).

    Raises:
        TypeError, ValueError: a grid that does not increase, and else those of ``log_density``.
    """
    noise = as_state(noise, "noise")
    require_direction("ts", ts, is_to_data=True)
    x, change = _solve(make_solver, divergence, noise, ts)
    return log_normal(noise) - change, x


@checked
def bits_per_dimension(log_density: Finite, num_dimensions: PositiveInt, value_range: Positive = 2.0) -> Array:
    """-log p / (D log 2) + log2(256 / r) of (H4).

    Args:
        log_density: [], of data with 256 levels, uniformly dequantised and scaled onto an interval.
        num_dimensions: D.
        value_range: r, the interval's length: 2 for ``data.dequantise``, which maps [0, 256) to [-1, 1).

    >>> float(bits_per_dimension(0.0, 10))
    7.0
    """
    return -jnp.asarray(log_density) / (num_dimensions * jnp.log(2.0)) + jnp.log2(256.0 / value_range)
