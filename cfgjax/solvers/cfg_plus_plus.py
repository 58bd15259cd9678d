"""CFG++: a guided denoiser, renoised by the null side's noise prediction.

(R1) DDIM's step is  x' = alpha' D + beta' E  with a prime for the next time; guided, both D and E are at scale w.
(R2) CFG++ is  x' = alpha' D_l + beta' E_null,   D_l = D_null + l (D_y - D_null).
(R3) alpha D + beta E = x on both sides, so  E_y - E_null = -(alpha / beta)(D_y - D_null),  and (R2) is (R1) at
     w = l alpha' beta / (alpha' beta - alpha beta').
(R4) w = l in the first step (alpha = 0) and in the last (beta' = 0). Between, alpha' beta - alpha beta' = W h + O(h^2):
     w is about l alpha beta / (W h). So l has no meaning without the grid: halving the steps doubles the guidance,
     there is no limiting ODE, and l = 1 with 50 steps is w = 12.5 in the middle of the straight path.
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp

from cfgjax.checks import is_known_as
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, Finite, between, checked
from cfgjax.conversions import from_field
from cfgjax.piecewise import piecewise
from cfgjax.solvers.ends import inside
from cfgjax.solvers.rates import RateOrPolicy, rate_at
from cfgjax.types import Array, GaussianPath, Pair, Solver, State

TimeArray = Annotated[Array, between(0, 1)]


@checked
def effective_scale(path: GaussianPath, scale: Finite, t: TimeArray, t_next: TimeArray) -> Array:
    """The classifier-free scale w of (R3) that makes DDIM's step from t to t_next the one of CFG++ at l = ``scale``.

    >>> from cfgjax import paths
    >>> effective_scale(paths.linear(), 1.0, 0.5, 0.75)
    1.5
    """
    ahead, behind = path.alpha(t_next) * path.beta(t), path.alpha(t) * path.beta(t_next)
    return scale * ahead / (ahead - behind)


@piecewise
@checked
def cfg_plus_plus(path: GaussianPath, pair: Pair, y: AnyCondition, scale: RateOrPolicy) -> Solver:
    """The CFG++ step (R2) for a pair of vector fields: one evaluation of both sides a step, never at the step's end.

    Args:
        path: the path of both fields.
        pair: the null and the labelled vector field, for example of ``guidance.pair(field, null)``.
        y: the condition.
        scale: l, a number, a traced scalar, a function of t or a policy of both vector fields (as of
            ``guidance.gap_policy``); the paper's lie in [0, 1]. 0 is DDIM of the null field exactly; where it is known,
            because it is not traced, the null side is evaluated alone. Its meaning depends on the grid (R4); compare
            grids by ``effective_scale``.

    Regular at t = 0 and at t_next = 1, where the guided denoiser comes out. A step from t = 1 down takes E_null and
    D_y - D_null in its middle, and D_null of (R3). Where W = 0 (a polynomial path at t = 0) the fields know no
    denoiser, which is taken as 0 in that step, as by ``conversions.from_field``.

    Source: Chung et al., arXiv 2406.08070, algorithm 2.
    """
    y = as_condition(y)
    null_alone = pair.null if is_known_as(scale, 0) else None

    def both(x: Array, t: Array) -> tuple[Array, Array]:
        return pair.both(x, t, y) if null_alone is None else (null_alone(x, t, y),) * 2

    def step(key: Array, carry: State, t: Array, t_next: Array) -> State:
        x = carry.x
        time = inside(t, t_next)
        sides = both(x, time)
        null, labelled = (from_field(path, value, x, time) for value in sides)
        strength = rate_at(scale, x, t, y, sides)
        clean = (x - path.beta(t) * null.noise) / jnp.where(t >= 1, path.alpha(t), 1)
        start = jnp.where(t >= 1, clean, null.denoiser)
        denoiser = start + strength * (labelled.denoiser - null.denoiser)
        return State((path.alpha(t_next) * denoiser + path.beta(t_next) * null.noise).astype(x.dtype))

    return Solver(init=State, step=step)
