"""Guidance with a memory, which ``solvers.with_field_state`` keeps in the solver's carry."""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp

from cfgjax.checks import BELOW_ONE
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, Finite, GuidanceScale, PositiveOrInf, between, checked
from cfgjax.conversions import from_field
from cfgjax.guidance.pairs import alone, interpolate
from cfgjax.guidance.projections import denoiser_slope, project, shorten
from cfgjax.guidance.schedules import scale_at
from cfgjax.types import Array, GaussianPath, Number, Pair, StatefulField, Tree

Momentum = Annotated[Number, between(-BELOW_ONE, BELOW_ONE)]
"""One real number in (-1, 1)."""


@checked
def adaptive_projected(
    path: GaussianPath,
    pair: Pair,
    scale: GuidanceScale,
    y: AnyCondition,
    momentum: Momentum = -0.5,
    eta: Finite = 0.0,
    max_norm: PositiveOrInf = jnp.inf,
) -> StatefulField:
    """Adaptive projected guidance of a condition with its momentum, as a field with state.

    In denoiser space, with d = D_y - D_null of this evaluation and m the memory (0 at the start):
    m' = d + momentum m; m' is shortened to the length ``max_norm``, and its part along D_y multiplied by ``eta``;
    the guided denoiser is D_y + (w - 1) times that. The memory kept is m', before it is shortened.

    w keeps its meaning; w = 1 is the labelled field bitwise. With momentum 0 it is ``projected``, and with
    eta 1 and max_norm infinity as well it is classifier-free guidance to rounding. Of a solver's several stages
    the first of each step updates it.

    Args:
        path: the path of the fields.
        pair: the two sides, vector fields.
        scale: w, a number, a function of t or (t, y), or a ``policy``. An ``interval`` is one of them: both sides are
            evaluated everywhere, as the memory needs them; but for a 1 that is known, which asks for no memory.
        y: the condition.
        momentum: [], under 1 in size; the paper's is negative and leads away from the last steps' direction.
        eta: [], what is kept of the part along D_y.
        max_norm: [], the greatest length of d, in data units.

    Source: Sadat et al., arXiv 2410.02416, algorithm 1.
    """

    y = as_condition(y)
    side = alone(pair._replace(null=None), scale)

    def apply(x: Array, t: Array, memory: Tree) -> tuple[Array, Tree]:
        if side is not None:
            return side(x, t, y), memory
        null, labelled = pair.both(x, t, y)
        denoiser = from_field(path, labelled, x, t).denoiser
        slope = denoiser_slope(path, t)
        memory = ((labelled - null) * slope + momentum * memory).astype(memory.dtype)
        change = project(shorten(memory, max_norm), denoiser, eta) / slope
        return interpolate(labelled - change, labelled, scale_at(scale, t, y, (x, null, labelled))), memory

    return StatefulField(lambda x: jnp.zeros_like(x, dtype=jnp.promote_types(x.dtype, jnp.float32)), apply)
