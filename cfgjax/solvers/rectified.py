"""Rectified-CFG++: guidance by what both fields say half a step ahead on the labelled trajectory.

(K1)  x_mid = x + (h / 2) u_y(x, t),   x' = x + h [u_y(x, t) + (w - 1) (u_y - u_null)(x_mid, t + h / 2)].
(K2) As h -> 0 it is plain guidance at w, to first order: what it does otherwise is of the steps' size.
"""

from __future__ import annotations

from cfgjax.checks import is_known_as, require_like
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, checked
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ends import inside
from cfgjax.solvers.rates import Rate, rate_at
from cfgjax.types import Array, Pair, Solver, State


@piecewise
@checked
def rectified_cfg_plus_plus(pair: Pair, y: AnyCondition, scale: Rate) -> Solver:
    """The step (K1) for a pair of vector fields: order 1, three evaluations, none at the step's end.

    w = 1 is Euler's rule of the labelled field bitwise; where it is known, because it is not traced, the labelled
    side is evaluated alone.

    The paper's a(t) = l (1 - s)^g of the diffusion's time s = 1 - t is w - 1 = l t^g. Its code takes the whole step to
    x_mid, a constant a = 4.5, and both fields at the old time; here it is the paper's formula.

    Args:
        pair: the null and the labelled vector field.
        y: the condition.
        scale: w, a number, a traced scalar or a function of t, read at the step's start.

    Raises:
        TypeError, ValueError: at a step, sides that are not like x.

    Source: Saini et al., arXiv 2510.07631.
    """
    y = as_condition(y)
    is_labelled = is_known_as(scale, 1)

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x, h = carry.x, t_next - t
        labelled = require_like("pair", pair.labelled(x, inside(t, t_next), y), x)
        if is_labelled:
            return State((x + h * labelled).astype(x.dtype))
        middle = (x + 0.5 * h * labelled).astype(x.dtype)
        null, ahead = (require_like("pair", value, x) for value in pair.both(middle, t + 0.5 * h, y))
        return State((x + h * (labelled + (rate_at(scale, x, t, y) - 1) * (ahead - null))).astype(x.dtype))

    return Solver(init=State, step=step)
