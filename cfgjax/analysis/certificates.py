"""Certificates of a student, a distilled field or a flow map: how far its law is from its teacher's.

(C1) KL(q || p) = E_q[log q - log p], with log q of a field by (H2) of ``likelihood``, and of a flow map's jumps by
     log q(x_1) = log N(x_0; 0, I) - sum over the jumps of log |det d x_r / d x_t|.
(C2) W2(q, p) <= sqrt(E |x_S - x_T|^2), student's and teacher's sample of the same noise.
(C3) x_T - x_S = integral over [0, 1] of e(t) dt,    e = d_t phi + (d_x phi) u_T  at the teacher's trajectory x_T(t),
     with phi(x, t) where the student takes x from t to 1. So W2(q, p) <= integral of sqrt(E |e|^2) dt.
(C4) of fields:  W2(q, p) <= integral of exp(integral from t to 1 of L) sqrt(E |u_T - u_S|^2) dt  at x_T(t), with L(t)
     at least the student's growth rate, (a - b) . (u_S(a, t) - u_S(b, t)) <= L |a - b|^2 for all states a and b.

(C3): e is the derivative in t of phi(x_T(t), t), which goes from x_S at t = 0 to x_T(1) at t = 1. Of a flow map
phi = x + (1 - t) U(x, t, 1), so e = u_T - U + (1 - t) dU/dt, what its ``eulerian`` loss makes small. Of a field
d_t phi = -(d_x phi) u_S, so e = (d_x phi) (u_T - u_S): the formula of Alekseev and Groebner.
(C4): d = |x_S(t) - x_T(t)| has d' <= L d + |u_S - u_T|(x_T(t), t) (Gronwall), and so has its root mean square.
Both take the norm in L2 of an integral over t for at most the integral of the norms (Minkowski).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import kernels
from cfgjax.analysis.likelihood import Divergence, log_density, log_normal
from cfgjax.checks import THREEFRY, require_direction, require_rank, require_shape
from cfgjax.contracts import LIKE_X, PositiveInt, RealArray, StateField, StateFlowMap, TimeGrid, checked
from cfgjax.paths import as_state, as_time
from cfgjax.solvers.integrate import integrate
from cfgjax.types import Array, Field, Solver

Pushing = Callable[[Array], Array]
"""``noise [*D] -> sample [*D]``."""


class Estimate(NamedTuple):
    """A number and its standard error, [] each."""

    value: Array
    standard_error: Array


def _mean(values: Array) -> Estimate:
    return Estimate(jnp.mean(values), jnp.std(values) / jnp.sqrt(values.size))


def _precise(name: str, x: Array) -> Array:
    """The state in float32 at least, in which determinants and eigenvalues are computed."""
    x = as_state(x, name)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _slopes(function: Callable[[Array], Array], row: Array) -> Array:
    """The derivative along each axis, [D, D]; networks are traced with ``kernels.plain``."""
    with kernels.plain():
        return jax.vmap(lambda axis: jax.jvp(function, (row,), (axis,))[1])(jnp.eye(row.size, dtype=row.dtype))


@checked
def jump_log_density(flow_map: StateFlowMap, noise: RealArray, ts: TimeGrid) -> tuple[Array, Array, Array]:
    """log q(x_1) by (C1) of the sample to which a flow map's jumps take ``noise``, the sample, and a sign.

    By one derivative along each of the D axes for each jump: for small D. It is exact for a map that takes no two
    noises to one sample. Another one has beside it the densities of the others that end there, so that the value, and a
    divergence made of it, are lower bounds. At least where the sign is not 1 the map folds over, and is such a one.

    Args:
        flow_map: (x, t, r) -> U.
        noise: [*D], a draw of N(0, I).
        ts: [n + 1], INcreasing from 0 to 1: one jump between each pair of neighbours.

    Returns:
        (log q [], x_1 [*D], the sign of the determinant of d x_1 / d x_0 []).

    Raises:
        ValueError: a grid that does not increase.
    """
    require_direction("ts", ts, is_to_data=True)
    noise = _precise("noise", noise)
    times, shape = jnp.asarray(ts), noise.shape

    def jump(carry: tuple[Array, Array, Array], span: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        (row, change, sign), (t, r) = carry, span

        def moved(row: Array) -> Array:
            return (row + (r - t) * as_state(flow_map(row.reshape(shape), t, r)).reshape(-1)).astype(row.dtype)

        turned, log_det = jnp.linalg.slogdet(_slopes(moved, row))
        return (moved(row), change + log_det, sign * turned), None

    one = jnp.ones((), noise.dtype)
    (row, change, sign), _ = jax.lax.scan(jump, (noise.reshape(-1), 0 * one, one), (times[:-1], times[1:]))
    return log_normal(noise) - change, row.reshape(shape), sign


@checked
def log_ratio(
    make_solver: Callable[[Field], Solver],
    divergence: Divergence,
    draw: Callable[[Array], tuple[Array, ...]],
    noise: RealArray,
    ts: TimeGrid,
) -> Array:
    """log q(x) - log p(x) of (C1) at the student's sample x of ``noise``, [].

    Args:
        make_solver: an ODE solver of a field, for the teacher's density.
        divergence: the teacher's guided field with its divergence, as for ``likelihood.log_density``.
        draw: noise -> (log q, x, ...), the student: ``jump_log_density`` at a flow map and its times, or
            ``likelihood.sample_log_density`` of a field.
        noise: [*D], a draw of N(0, I).
        ts: [n + 1], DEcreasing from 1 to 0, for the teacher's density.
    """
    log_q, x, *_ = draw(noise)
    log_p, _ = log_density(make_solver, divergence, x, ts)
    return log_q - log_p


@checked
def map_log_ratio(flow: Pushing, other: Pushing, noise: RealArray, num_iterations: PositiveInt = 8) -> Array:
    """log q(x) - log p(x) of (C1) at x = flow(noise), [], for the laws q and p of two maps of noise that lie near.

    Of each log q(x_1) = log N(x_0; 0, I) - log |det d x_1 / d x_0|, and the noise that ``other`` takes to x is found by
    Newton's method from ``noise``. By a derivative along each of the D axes: for small D. NaN where that does not end
    at x.

    Args:
        flow: noise [*D] -> sample [*D], as a whole solve.
        other: another one, for example a solve that spares nothing; one that takes no two noises to one sample.
        noise: [*D], a draw of N(0, I).
        num_iterations: of Newton's method.
    """
    noise = _precise("noise", noise)

    def flat(map_: Pushing) -> Callable[[Array], Array]:
        return lambda row: as_state(map_(row.reshape(noise.shape))).reshape(-1).astype(row.dtype)

    row, (one, two) = noise.reshape(-1), (flat(flow), flat(other))
    x = one(row)

    def nearer(row: Array, _: None) -> tuple[Array, None]:
        change = jnp.linalg.solve(_slopes(two, row).T, x - two(row))
        return row + change * jnp.minimum(1, 1 / jnp.maximum(jnp.linalg.norm(change), 1e-6)), None

    begin, _ = jax.lax.scan(nearer, row, None, length=num_iterations)
    log_q, log_p = (log_normal(z) - jnp.linalg.slogdet(_slopes(of, z))[1] for of, z in ((one, row), (two, begin)))
    is_there = jnp.linalg.norm(two(begin) - x) <= 1e-3 * (1 + jnp.linalg.norm(x))
    return jnp.where(is_there, log_q - log_p, jnp.nan)


@checked
def kl_divergence(log_ratios: RealArray) -> Estimate:
    """The divergence KL(q || p) of (C1) in nats, by n draws of q.

    Args:
        log_ratios: [n], each by ``log_ratio``.
    """
    require_rank("log_ratios", log_ratios, 1)
    return _mean(jnp.asarray(log_ratios))


@checked
def kl_divergence_of_near(log_ratios: RealArray) -> Estimate:
    """The divergence KL(q || p) of (C1) in nats of two laws that lie near, by n draws of q.

    The mean of r + e^-r - 1 for the log-ratios r: as E_q[p / q] = 1 it is that of r, and no term is negative. Its error
    is a part of the divergence, where that of ``kl_divergence`` is one of the divergence's root.

    Args:
        log_ratios: [n], each by ``log_ratio`` or ``map_log_ratio``.
    """
    require_rank("log_ratios", log_ratios, 1)
    return _mean(log_ratios + jnp.expm1(-log_ratios))


@checked
def coupling_bound(samples: RealArray, teacher_samples: RealArray) -> Estimate:
    """The upper bound (C2) of the Wasserstein-2 distance, estimated by n pairs of samples.

    Args:
        samples: [n, *D], the student's.
        teacher_samples: [n, *D], the teacher's of the same noises.

    Raises:
        ValueError: two sets that are not alike, or without an example.
    """
    require_shape("teacher_samples", teacher_samples, jnp.shape(samples))
    if jnp.size(samples) == 0 or jnp.ndim(samples) == 0:
        raise ValueError(f"samples must be [n, *D] and not empty, got the shape {jnp.shape(samples)}")
    difference = (jnp.asarray(samples) - teacher_samples).reshape(len(samples), -1)
    square = _mean(jnp.sum(jnp.square(difference), axis=-1))
    bound = jnp.sqrt(square.value)
    return Estimate(bound, square.standard_error / jnp.where(bound == 0, 1, 2 * bound))


@checked
def residual(flow: Annotated[Field, LIKE_X], field: StateField, x: RealArray, t: Array) -> Array:
    """The residual e of (C3) at one state, [*D]: 0 everywhere for the flow of the field itself.

    Networks are traced with ``kernels.plain``: flash attention cannot be derived forwards.

    Args:
        flow: (x, t) -> where the student takes x from t to 1, as ``lambda x, t: x + (1 - t) * flow_map(x, t, 1.0)``.
        field: u_T, the teacher's.
        x: [*D].
        t: [].
    """
    x, t = as_state(x), as_time(t)
    with kernels.plain():
        value = as_state(field(x, t)).astype(x.dtype)
        return jax.jvp(lambda x, t: as_state(flow(x, t)), (x, t), (value, jnp.ones_like(t)))[1]


@checked
def residuals_along(
    make_solver: Callable[[Field], Solver], flow: Annotated[Field, LIKE_X], field: Field, noise: RealArray, ts: TimeGrid
) -> tuple[Array, Array]:
    """The residuals e of (C3) at all times of the teacher's trajectory from ``noise``, [n + 1, *D], and its end [*D].

    Args:
        make_solver: an ODE solver of the teacher's field.
        flow: as for ``residual``.
        field: u_T, the teacher's.
        noise: [*D], a draw of N(0, I).
        ts: [n + 1], INcreasing from 0 to 1.

    Raises:
        ValueError: a grid that does not increase.
    """
    require_direction("ts", ts, is_to_data=True)

    def observe(carry: Any, t: Array) -> Array:
        return residual(flow, field, carry.x, t)

    x, seen = integrate(make_solver(field), jax.random.key(0, impl=THREEFRY), as_state(noise, "noise"), ts, observe)
    return seen, x


@checked
def growth_rate(field: StateField, x: RealArray, t: Array) -> Array:
    """The growth rate of a field at one state, []: the largest eigenvalue of its derivative's symmetric part.

    Its largest value over all states of a time is the least L of (C4); over some of them it may be less. By one
    derivative along each of the D axes: for small D.
    """
    x = _precise("x", x)

    def flat(row: Array) -> Array:
        return as_state(field(row.reshape(x.shape), t)).reshape(-1).astype(row.dtype)

    slopes = _slopes(flat, x.reshape(-1))
    return jnp.linalg.eigvalsh((slopes + slopes.T) / 2)[-1]


def _steps(values: Array, ts: Array) -> Array:
    """The integral over each step of the grid by the trapezoidal rule, [n]."""
    return 0.5 * (values[1:] + values[:-1]) * jnp.diff(ts)


@checked
def residual_bound(residuals: RealArray, ts: TimeGrid, rates: RealArray | None = None) -> Array:
    """The upper bound of the Wasserstein-2 distance by (C3), or with ``rates`` by (C4), [].

    The mean is one over trajectories, the integral over t the trapezoidal rule's: fine grids make it a bound.

    Args:
        residuals: [n, m + 1, *D], of n trajectories of the teacher at the times of the grid: e by ``residuals_along``,
            or for (C4) u_T - u_S.
        ts: [m + 1], from 0 to 1.
        rates: [m + 1], for (C4) L at these times; None for (C3).

    Raises:
        ValueError: residuals that are not [n, m + 1, ...], rates that are not [m + 1], a grid that does not increase.
    """
    require_direction("ts", ts, is_to_data=True)
    shape, times = jnp.shape(residuals), jnp.asarray(ts)
    if len(shape) < 2 or shape[1] != len(times) or 0 in shape:
        raise ValueError(f"residuals must be [n, {len(times)}, *D] and not empty, got the shape {shape}")
    squares = jnp.sum(jnp.square(jnp.asarray(residuals)).reshape(*shape[:2], -1), axis=-1)
    norms = jnp.sqrt(jnp.mean(squares, axis=0))
    if rates is not None:
        require_shape("rates", rates, jnp.shape(times))
        to_come = jnp.cumsum(_steps(jnp.asarray(rates), times)[::-1])[::-1]
        norms = norms * jnp.exp(jnp.append(to_come, 0.0))
    return jnp.sum(_steps(norms, times))
