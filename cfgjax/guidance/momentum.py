"""Guidance with a memory, which ``solvers.with_field_state`` keeps in the solver's carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from cfgjax.checks import BELOW_ONE
from cfgjax.conditions import as_condition
from cfgjax.contracts import (
    AnyCondition,
    Finite,
    GuidanceScale,
    PositiveOrInf,
    UnitInterval,
    between,
    checked,
)
from cfgjax.conversions import from_field
from cfgjax.guidance.pairs import alone, interpolate
from cfgjax.guidance.projections import denoiser_slope, project, shorten
from cfgjax.guidance.schedules import scale_at
from cfgjax.types import Array, Condition, GaussianPath, Number, Pair, StatefulField, Tree

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
    changed = _changed(path, pair, y, momentum, eta, max_norm)

    def apply(x: Array, t: Array, memory: Tree) -> tuple[Array, Tree]:
        if side is not None:
            return side(x, t, y), memory
        (null, labelled), new, memory = changed(x, t, memory)
        return interpolate(new, labelled, scale_at(scale, t, y, (x, null, labelled))), memory

    return StatefulField(_zeros, apply)


@checked
def adaptive_projected_mix(
    path: GaussianPath,
    pair: Pair,
    early_scale: GuidanceScale,
    scale: GuidanceScale,
    y: AnyCondition,
    start: UnitInterval = 0.027,
    momentum: Momentum = -0.5,
    eta: Finite = 0.0,
    max_norm: PositiveOrInf = 10.0,
) -> StatefulField:
    """Classifier-free guidance at an early scale for t < start, then ``adaptive_projected`` at another, with memory.

    In denoiser space. The memory is updated from the first step on, also while it is not used. start = 0 is
    ``adaptive_projected`` and start = 1 classifier-free guidance at the early scale, bitwise; at both scales 1 it is
    the labelled field bitwise. There is no paper: the ports write base u_null and w times the update, on the
    network's raw output; here it is the base D_y and w - 1 of the paper of ``adaptive_projected``, so that w = 1 is
    labelled.

    Args:
        path: the path of the fields.
        pair: the two sides, vector fields.
        early_scale: w for t < start; 3.5 in HunyuanImage.
        scale: w from then on; 10 there.
        y: the condition.
        start: [], the time; the ports count steps, their 5 of 50 being t = 0.027 on HunyuanImage's shifted grid.
        momentum: [], under 1 in size.
        eta: [], what is kept of the part along D_y.
        max_norm: [], the greatest length of the difference, in data units.

    Source: Tencent, HunyuanImage 2.1 (2025).
    """

    y = as_condition(y)
    is_labelled = all(alone(pair._replace(null=None), each) is not None for each in (early_scale, scale))
    changed = _changed(path, pair, y, momentum, eta, max_norm)

    def apply(x: Array, t: Array, memory: Tree) -> tuple[Array, Tree]:
        if is_labelled:
            return pair.labelled(x, t, y), memory
        (null, labelled), new, memory = changed(x, t, memory)
        is_early, sides = t < start, (x, null, labelled)
        early, late = (scale_at(each, t, y, sides) for each in (early_scale, scale))
        return interpolate(jnp.where(is_early, null, new), labelled, jnp.where(is_early, early, late)), memory

    return StatefulField(_zeros, apply)


def _zeros(x: Array) -> Array:
    return jnp.zeros_like(x, dtype=jnp.promote_types(x.dtype, jnp.float32))


def _changed(
    path: GaussianPath, pair: Pair, y: Condition, momentum: Number, eta: Number, max_norm: Number
) -> Callable[[Array, Array, Array], tuple[tuple[Array, Array], Array, Array]]:
    """(x, t, memory) -> (both sides, the null side made of the memory, the memory)."""

    def changed(x: Array, t: Array, memory: Array) -> tuple[tuple[Array, Array], Array, Array]:
        null, labelled = pair.both(x, t, y)
        denoiser = from_field(path, labelled, x, t).denoiser
        slope = denoiser_slope(path, t)
        memory = ((labelled - null) * slope + momentum * memory).astype(memory.dtype)
        change = project(shorten(memory, max_norm), denoiser, eta) / slope
        return (null, labelled), labelled - change, memory

    return changed
