"""Guidance with a projection before each step, onto the states where both fields agree.

(M1) g(x) = z + (h / 2) u_y(z, t) with z = x - (h / 2) u_null(x, t): half a step back by the null field, half a step
     forth by the labelled one, both at t. Where x = g(x) the two undo each other.
(M2) CFG-MP repeats (M1) before each step of Euler's rule with the guided field; CFG-MP+ by Anderson's acceleration.
(M3) g(x) - x = (h / 2) (u_y - u_null) + O(h^2) for every field: with K repeats and h -> 0, (M2) at w is plain guidance
     at w + K / 2, so that w = 1 is not the labelled field.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.checks import require_like
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, NonNegative, NonNegativeInt, UnitInterval, checked
from cfgjax.piecewise import piecewise
from cfgjax.solvers.rates import RateOrPolicy, rate_at
from cfgjax.types import Array, Pair, Solver, State

Iterate = Callable[[Callable[[Array], Array], Array], Array]
"""``(g, x) -> x``: a way towards a fixed point of g."""


@checked
def picard(num_iterations: NonNegativeInt) -> Iterate:
    """The iteration x <- g(x), so many times: one evaluation of g each; 0 changes nothing.

    >>> float(picard(3)(lambda x: 0.5 * x, jnp.float32(8)))
    1.0
    """
    return lambda g, x: jax.lax.fori_loop(0, num_iterations, lambda _, x: g(x), x)


@checked
def anderson(num_iterations: NonNegativeInt, ridge: NonNegative = 1e-4) -> Iterate:
    """The iteration of Anderson with memory 1, so many times: one evaluation of g each.

    With f = g(x) - x now and f' before, x <- g - a (g - g'), where a = <f, f - f'> / (|f - f'|^2 + ridge^2): the plain
    iteration at first, and where f = f'. On one number, and with ridge 0, two of them solve an affine g exactly.

    The paper's two codes put the ridge in two places, on the least squares (here) and on a matrix relative to |f|^2.

    Args:
        num_iterations: how often g is evaluated.
        ridge: [], the ridge, in the state's units.

    >>> float(anderson(2, 0.0)(lambda x: 0.5 * x + 1, jnp.float32(8)))
    2.0
    """

    def iterate(g: Callable[[Array], Array], x: Array) -> Array:
        if num_iterations == 0:
            return x
        first = g(x)

        def advance(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, before, residual_before = carry
            value = g(x)
            residual = value - x
            change = residual - residual_before
            size = jnp.sum(jnp.square(change)) + jnp.square(ridge)
            share = jnp.where(size > 0, jnp.sum(residual * change) / jnp.where(size > 0, size, 1), 0)
            return (value - share * (value - before)).astype(x.dtype), value, residual

        return jax.lax.fori_loop(1, num_iterations, advance, (first, first, first - x))[0]

    return iterate


_TWICE = picard(2)


@piecewise
@checked
def manifold_projected(
    pair: Pair, y: AnyCondition, scale: RateOrPolicy, iterate: Iterate = _TWICE, stop: UnitInterval = 0.4
) -> Solver:
    """The step of CFG-MP (M2) for a pair of vector fields: 2 evaluations, and 2 more for each repeat while t < stop.

    Without repeats it is Euler's rule of the guided field bitwise. No w is the labelled field (M3); where both fields
    agree nothing changes. The grid must increase.

    The paper's codes differ: one repeats for t < 0.6, the other for noise above 0.6, which is t < 0.4; and the second
    has the other order of (M1) in its first steps, left out here.

    Args:
        pair: the null and the labelled vector field.
        y: the condition.
        scale: w, a number, a traced scalar, a function of t or a policy.
        iterate: ``picard`` or ``anderson``: (g, x) -> x.
        stop: [], the time from which on a step is not preceded by a projection.

    Raises:
        TypeError, ValueError: at a step, sides or what ``iterate`` gives that are not like x.

    Source: Cai et al., arXiv 2601.21892 (CFG-MP, CFG-MP+).
    """
    y = as_condition(y)

    def null_side(x: Array, t: Array) -> Array:
        value = pair.both(x, t, y)[0] if pair.null is None else pair.null(x, t, y)
        return require_like("pair", value, x)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        h = t_next - t

        def g(x: Array) -> Array:
            back = (x - 0.5 * h * null_side(x, t)).astype(x.dtype)
            return (back + 0.5 * h * require_like("pair", pair.labelled(back, t, y), x)).astype(x.dtype)

        x = jax.lax.cond(t < stop, lambda x: require_like("iterate", iterate(g, x), x), lambda x: x, carry.x)
        null, labelled = (require_like("pair", value, x) for value in pair.both(x, t, y))
        strength, difference = rate_at(scale, x, t, y, (null, labelled)), labelled - null
        guided = jnp.where(strength <= 0.5, null + strength * difference, labelled + (strength - 1) * difference)
        return State((x + h * guided).astype(x.dtype))

    return Solver(init=State, step=step, is_forward_only=True)
