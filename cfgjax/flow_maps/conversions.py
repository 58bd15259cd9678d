"""Average velocities, the flow whose they are, and the field at which they begin: (F1) to (F3) of the package."""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp

from cfgjax.checks import is_traced
from cfgjax.contracts import FLOW_MAP_LIKE_X, LIKE_X, StateFlowMap, checked
from cfgjax.types import Array, FlowMap


@checked
def given(flow_map: StateFlowMap, *rest: Any) -> FlowMap:
    """The flow map at fixed further arguments, the condition and the guidance scale, as one of (x, t, r)."""
    return lambda x, t, r: flow_map(x, t, r, *rest)


@checked
def flow_of(flow_map: StateFlowMap) -> FlowMap:
    """The state x + (r - t) U(x, t, r) of (F1) at which the trajectory through x at t is at r, as (x, t, r, ...)."""
    return lambda x, t, r, *rest: x + (r - t) * flow_map(x, t, r, *rest)


@checked
def average_velocity_of(flow: Annotated[FlowMap, FLOW_MAP_LIKE_X], field: Annotated[FlowMap, LIKE_X]) -> FlowMap:
    """The average velocity (flow - x) / (r - t) of (F1), and at r = t the field, as (x, t, r, ...).

    Next to r = t the difference loses its digits: an error of the flow is divided by r - t. At r = t derivatives are
    those of the field, not of (F1).

    Args:
        flow: (x, t, r, ...) -> x_r.
        field: (x, t, ...) -> like x.
    """

    def average_velocity(x: Array, t: Array, r: Array, *rest: Any) -> Array:
        span = jnp.asarray(r - t)
        is_instant = span == 0
        moved = (flow(x, t, r, *rest) - x) / jnp.where(is_instant, 1, span)
        return jnp.where(is_instant, field(x, t, *rest), moved)

    return average_velocity


@checked
def field_of(flow_map: StateFlowMap) -> FlowMap:
    """The field U(x, t, t) of (F2), as (x, t, ...)."""
    return lambda x, t, *rest: flow_map(x, t, t, *rest)


@checked
def forward_only(flow_map: StateFlowMap) -> FlowMap:
    """The flow map, which refuses an r before t: for one that was learned at t <= r, and knows nothing of the others.

    Raises:
        ValueError: at a call, where concrete an r under t.
    """

    def refusing(x: Array, t: Array, r: Array, *rest: Any) -> Array:
        if not is_traced((t, r)) and float(r) < float(t):
            raise ValueError(f"r must not be under t for a flow map that goes forwards only, got t = {t} and r = {r}")
        return flow_map(x, t, r, *rest)

    return refusing
