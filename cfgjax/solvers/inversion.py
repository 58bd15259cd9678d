"""Solvers for the way from data to noise and back again, to the very point of the start.

A rule run on the reversed grid returns only up to its own error, which guidance magnifies. Two ways to return exactly:

(V1) implicit Euler,  x' = x + h u(x', t'),  is the inverse of Euler's step from t' to t. It is found by iterating from
     x' = x, which converges as (|h| L)^k where the field's Lipschitz constant L is under 1/|h|. Of n changes of sizes
     d_1 to d_n the last leaves an error of about d_n q / (1 - q), with q = (d_n / d_1)^(1 / (n - 1)): none for q >= 1.
(V2) two states that step by turns, for any rule x -> x + P_h(x, t) and a coupling c in (0, 1]:
     forwards   y' = c y + (1 - c) z + P_h(z, t),    z' = z - P_-h(y', t');
     backwards  z = z' + P_-h(y', t'),               y = (y' - (1 - c) z - P_h(z, t)) / c:
     the same two values of P both ways, so the inverse is exact for any field and scale, up to rounding. It is of the
     rule's order. Forwards c < 1 damps y - z, without which (c = 1) the rule is unstable where the field contracts;
     backwards y - z grows, and its rounding with it, as c^-n in n steps: n (1 - c) should stay under about 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax.checks import TINY, require_kind, require_shape
from cfgjax.contracts import RealArray, StateField, between, checked, whole
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ends import inside
from cfgjax.types import Array, Field, Number, Solver


class Iterated(NamedTuple):
    """The carry of ``implicit_euler``: the state x [*D], and how the iterations of (V1) went in the worst step so far.

    ``change`` [] is the largest d_n, in the unit of x: about the error that is left where q is under 1/2;
    ``contraction`` [] the largest q, 0 where one iteration alone is made or the change is a rounding.
    """

    x: Array
    change: Array
    contraction: Array


def _contraction(first: Array, last: Array, num_iterations: Number, x: Array) -> Array:
    """q of (V1), []."""
    is_settled = (last <= 4 * float(jnp.finfo(x.dtype).eps) * _largest(x)) | (first == 0)
    ratio = jnp.where(is_settled, 0, last / jnp.where(first == 0, 1, first))
    return jnp.where(is_settled, 0, ratio ** (1 / jnp.maximum(num_iterations - 1, 1))) * (num_iterations > 1)


def _largest(x: Array) -> Array:
    return jnp.max(jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32))), initial=0.0)


@piecewise
@checked
def implicit_euler(field: StateField, num_iterations: Annotated[int, whole(1)] = 20) -> Solver:
    """Implicit Euler's rule (V1) by fixed-point iteration: on a decreasing grid the inverse of ``euler``.

    ``num_iterations`` evaluations a step, all at the step's END, or in the middle of one that ends at t = 1. Where
    |h| L >= 1 the iteration does not converge: more steps mend it, more iterations do not. A step whose changes do not
    shrink, q >= 1 in (V1), makes x NaN from there on, as ``adaptive`` does where it cannot go on. The carry tells how
    near the others came: ``solve(...)[0].change`` is what the last iteration still moved, ``.contraction`` q, near 1
    for an iteration that is far from its end; ``observe=lambda carry, t: carry.contraction`` tells it by time.

    Source: Meiri et al., arXiv 2312.12540, for the fixed-point inversion of a DDIM step.
    """

    def init(x: Array) -> Iterated:
        zero = jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32))
        return Iterated(x, zero, zero)

    def step(key: Array, carry: Iterated, t: Array, t_next: Array) -> Iterated:
        x, time = carry.x, inside(t_next, t)

        def improve(index: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            guess, first, _ = state
            better = (x + (t_next - t) * field(guess, time)).astype(x.dtype)
            change = _largest(better - guess)
            return better, jnp.where(index == 0, change, first), change

        zero = jnp.zeros_like(carry.change)
        end, first, last = jax.lax.fori_loop(0, num_iterations, improve, (x, zero, zero))
        q = _contraction(first, last, num_iterations, end).astype(zero.dtype)
        q = jnp.where(jnp.isnan(last) & ~jnp.isnan(_largest(x)), jnp.inf, q)
        end = jnp.where(q < 1 - 8 * float(jnp.finfo(zero.dtype).eps), end, jnp.nan)
        return Iterated(end, jnp.fmax(carry.change, last), jnp.fmax(carry.contraction, q))

    return Solver(init=init, step=step)


class Coupled(NamedTuple):
    """The carry of ``reversible``: the state y and its partner z, each [*D]."""

    x: Array
    partner: Array


def _two_way(make_solver: Callable[[Field], Solver], field: Field) -> Solver:
    solver = make_solver(field)
    require_kind("make_solver", solver, Solver, "a function that makes a Solver of a field")
    if solver.is_forward_only:
        raise ValueError("make_solver must make a rule that runs both ways, got one that runs forwards only")
    if solver.restart is not None:
        raise ValueError("make_solver must make a rule of one step, got a multistep one, whose history would be lost")
    return solver


@piecewise
@checked
def reversible(
    make_solver: Callable[[Field], Solver],
    field: StateField,
    coupling: Annotated[Number, between(TINY, 1)] = 0.999,
    partner: RealArray | None = None,
) -> Solver:
    """The reversible form (V2) of an ODE rule: on a decreasing grid the exact inverse of its steps on the reversed one.

    Two steps of the rule a step, one of them from the step's end backwards.

    Args:
        make_solver: an ODE rule of one step. Take ``solvers.heun``: y - z is of the size of the rule's own error.
        field: the vector field.
        coupling: c of (V2); the default suits a few hundred steps.
        partner: [*D], the partner state z to start from: a copy of the state where None. The way back needs the
            partner that the way there ended with; the carry has it: ``observe=lambda carry, t: carry.partner``.

    Source: McCallum & Foster, arXiv 2410.11648; Wallace et al., arXiv 2211.12446, for inversion by coupled states.

    Raises:
        TypeError, ValueError: a ``make_solver`` that makes no solver, a multistep one or one that runs forwards only;
            at the start of a solve, a partner that is not like x.
    """
    solver = _two_way(make_solver, field)

    def increment(key: Array, x: Array, t: Array, t_next: Array) -> Array:
        return solver.step(key, solver.init(x), t, t_next).x - x

    def forwards(key: Array, carry: Coupled, t: Array, t_next: Array) -> Coupled:
        y, z = carry
        y = (coupling * y + (1 - coupling) * z + increment(key, z, t, t_next)).astype(y.dtype)
        return Coupled(y, z - increment(key, y, t_next, t))

    def backwards(key: Array, carry: Coupled, t: Array, t_next: Array) -> Coupled:
        y, z = carry
        z = z + increment(key, y, t, t_next)
        return Coupled(((y - (1 - coupling) * z - increment(key, z, t_next, t)) / coupling).astype(y.dtype), z)

    def init(x: Array) -> Coupled:
        if partner is not None:
            require_shape("partner", partner, x.shape)
        return Coupled(x, x if partner is None else jnp.asarray(partner, x.dtype))

    def step(key: Array, carry: Coupled, t: Array, t_next: Array) -> Coupled:
        return jax.lax.cond(t_next > t, forwards, backwards, key, carry, t, t_next)

    return Solver(init, step)
