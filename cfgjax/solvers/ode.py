"""Solvers of the ODE dx = u(x, t) dt.

(O1) Euler:  x + h u(x, t).
(O2) two stages:  k = u(x, t),  k' = u(x + c h k, t + c h),  x + h [(1 - 1/2c) k + (1/2c) k'],  order 2 for every c.
"""

import jax.numpy as jnp

from cfgjax.pieces import by_piece
from cfgjax.types import Array, Field, Solver, State


@by_piece
def euler(field: Field) -> Solver:
    """Euler's rule (O1) for a field: order 1, one evaluation a step, never at the end of a step."""

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        return State((x + (t_next - t) * field(x, t)).astype(x.dtype))

    return Solver(init=State, step=step)


@by_piece
def heun(field: Field) -> Solver:
    """Heun's rule, (O2) with c = 1, for a field: order 2, two evaluations a step.

    A step that ends at t = 1 takes c = 1/2, the midpoint: the same order and cost, and a field that is singular at
    t = 1 is never called there. (A grid that starts at t = 1, for the way back, does call it there.)

    Source: Karras et al., arXiv 2206.00364, algorithm 1, which falls back to Euler in that step.
    """

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        c = jnp.where(t_next >= 1, 0.5, 1.0).astype(h.dtype)
        first = field(x, t)
        second = field((x + c * h * first).astype(x.dtype), t + c * h)
        late = 0.5 / c
        return State((x + h * ((1 - late) * first + late * second)).astype(x.dtype))

    return Solver(init=State, step=step)
