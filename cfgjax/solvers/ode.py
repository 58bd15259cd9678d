"""Solvers of the ODE dx = u(x, t) dt.

(O1) Euler:  x + h u(x, t).
(O2) two stages:  k = u(x, t),  k' = u(x + c h k, t + c h),  x + h [(1 - 1/2c) k + (1/2c) k'],  order 2 for every c.
(O3) Kutta's four stages:  x + h (k1 + 2 k2 + 2 k3 + k4) / 6,  order 4.
(O4) Adams & Bashforth:  x + h [u + (h / 2 h_prev) (u - u_prev)],  order 2 with one evaluation a step, h_prev the time
     between the two evaluations.
(O5) (O3) with the last stage at 3/4 of the step:  x + h (2 k1 + 3 k2 + 4 k4) / 9,  order 3.
(O6) (O3) with the inner stages at 1/3 of the step, and k1 read there too:  x + h (3 k3 + k4) / 4,  order 3.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from cfgjax.contracts import StateField, checked
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ends import inside
from cfgjax.types import Array, Field, Number, Solver, State


@piecewise
@checked
def euler(field: StateField) -> Solver:
    """Euler's rule (O1) for a field: order 1, one evaluation a step, at its start; at its middle from t = 1 down."""

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        return State((x + (t_next - t) * field(x, inside(t, t_next))).astype(x.dtype))

    return Solver(init=State, step=step)


def _two_stages(field: Field, x: Array, t: Array, t_next: Array, c: Number) -> State:
    h = t_next - t
    first = field(x, inside(t, t_next))
    second = field((x + c * h * first).astype(x.dtype), t + c * h)
    late = 0.5 / c
    return State((x + h * ((1 - late) * first + late * second)).astype(x.dtype))


@piecewise
@checked
def midpoint(field: StateField) -> Solver:
    """The midpoint rule, (O2) with c = 1/2, for a field: order 2, two evaluations a step, never at its end."""

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        return _two_stages(field, carry.x, t, t_next, 0.5)

    return Solver(init=State, step=step)


@piecewise
@checked
def heun(field: StateField) -> Solver:
    """Heun's rule, (O2) with c = 1, for a field: order 2, two evaluations a step.

    A step that ends or starts at t = 1 takes c = 1/2, the midpoint, and no other time inside it: the same order and
    cost, and a field that is singular at t = 1 is never called there.

    Source: Karras et al., arXiv 2206.00364, algorithm 1, which falls back to Euler in that step.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        c = jnp.where((t >= 1) | (t_next >= 1), 0.5, 1.0).astype((t_next - t).dtype)
        return _two_stages(field, carry.x, t, t_next, c)

    return Solver(init=State, step=step)


@piecewise
@checked
def rk4(field: StateField) -> Solver:
    """Kutta's rule (O3) for a field: order 4, four evaluations a step, the last at its end.

    A step that ends at t = 1 is (O5), one that starts there (O6): their error of O(h^4), once, leaves the order as it
    is, and a field that is singular at t = 1 is never called there.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        is_first, is_last = t >= 1, t_next >= 1
        early = jnp.where(is_first, 1 / 3, 0.5).astype(h.dtype)
        late = jnp.where(is_last, 0.75, 1.0).astype(h.dtype)
        first = field(x, inside(t, t_next, 1 / 3))
        second = field((x + early * h * first).astype(x.dtype), t + early * h)
        third = field((x + early * h * second).astype(x.dtype), t + early * h)
        fourth = field((x + late * h * third).astype(x.dtype), inside(t_next, t, 0.25))
        change = h / 6 * (first + 2 * (second + third) + fourth)
        change = jnp.where(is_first, h / 4 * (3 * third + fourth), change)
        change = jnp.where(is_last, h / 9 * (2 * first + 3 * second + 4 * fourth), change)
        return State((x + change).astype(x.dtype))

    return Solver(init=State, step=step)


class History(NamedTuple):
    """A state, with what the step before evaluated and how long ago; ``length`` 0 before the first step."""

    x: Array
    value: Array
    length: Array


@piecewise
@checked
def adams_bashforth(field: StateField) -> Solver:
    """The two-step rule (O4) for a field and any grid: order 2, one evaluation a step, never at its end.

    The first step is ``euler``, whose single error of O(h^2) leaves the order as it is.
    """

    def init(x: Array) -> History:
        return History(x, jnp.zeros_like(x), jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32)))

    def step(key: Array, carry: History, t: Array, t_next: Array) -> History:
        x, h = carry.x, t_next - t
        time = inside(t, t_next)
        value = field(x, time)
        is_first = carry.length == 0
        ratio = jnp.where(is_first, 0, 0.5 * h / jnp.where(is_first, 1, carry.length))
        end = x + h * (value + ratio * (value - carry.value))
        return History(end.astype(x.dtype), value.astype(x.dtype), (t_next - time).astype(carry.length.dtype))

    return Solver(init=init, step=step, restart=lambda carry: init(carry.x))
