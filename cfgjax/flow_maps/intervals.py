"""What every known flow map does alike: scales that act between two times, and the field itself at r = t.

(I3) From t to r by an interval's scale is to its edges between them and on from there, each part at one scale:
     U = sum of (r_i - t_i) / (r - t) U_i. Of edges outside [t, r] the parts are empty.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp

from cfgjax.checks import flow_map_like_x, require_number
from cfgjax.paths import as_float, as_state, as_time
from cfgjax.types import Array, FlowMap, Interval, Number


def instant_as(average_velocity: Array, field: Array, is_instant: Array) -> Array:
    """An average velocity that at r = t is the field but for rounding, there the field itself; derivatives are kept."""
    rounding = jnp.where(is_instant, field - average_velocity, 0)
    return average_velocity + jax.lax.stop_gradient(rounding)


def at_any_scale(flow_map: FlowMap) -> FlowMap:
    """The flow map (x, t, r, ..., w) of a number w as one of a number or an Interval of one, by (I3)."""

    def average_velocity(x: Array, t: Array, r: Array, *rest: Any) -> Array:
        *given, scale = rest
        x, t, r = as_state(x), as_time(t), as_time(r)
        t, r = (time.astype(jnp.result_type(t, r)) for time in (t, r))
        if not isinstance(scale, Interval):
            require_number("w", scale)
            return flow_map(x, t, r, *given, as_float(scale))
        return _in_parts(flow_map, scale, x, t, r, *given)

    return flow_map_like_x("flow_map", average_velocity)


def _in_parts(flow_map: FlowMap, scale: Interval, x: Array, t: Array, r: Array, *given: Any) -> Array:
    bounds, shares, scales = _parts(scale, t, r)

    def advance(x: Array, part: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        start, stop, w = part
        value = flow_map(x, start, stop, *given, w)
        return (x + (stop - start) * value).astype(x.dtype), value

    _, values = jax.lax.scan(advance, x, (bounds[:-1], bounds[1:], scales))
    return jnp.sum(values * shares.reshape((3,) + (1,) * x.ndim).astype(values.dtype), axis=0)


def _parts(scale: Interval, t: Array, r: Array) -> tuple[Array, Array, Array]:
    """The four bounds of the parts, the share that each part has of [t, r], and its scale; at r = t the one at work."""
    for name in ("scale", "start", "stop"):
        require_number(f"w.{name}", getattr(scale, name))
    start, stop = (jnp.asarray(edge, t.dtype) for edge in (scale.start, scale.stop))
    is_forward = r >= t
    low, high = jnp.where(is_forward, t, r), jnp.where(is_forward, r, t)
    near, far = (_clipped(edge, low, high) for edge in (start, stop))
    bounds = jnp.stack([t, jnp.where(is_forward, near, far), jnp.where(is_forward, far, near), r])
    is_inside = (t >= start) & ((t < stop) | (stop >= 1))
    instant = jnp.stack([~is_inside, is_inside, jnp.zeros_like(is_inside)]).astype(t.dtype)
    is_instant = r == t
    shares = jnp.where(is_instant, instant, jnp.diff(bounds) / jnp.where(is_instant, 1, r - t))
    number = as_float(cast(Number, scale.scale))
    return bounds, shares, jnp.stack([jnp.ones_like(number), number, jnp.ones_like(number)])


def _clipped(edge: Array, low: Array, high: Array) -> Array:
    """The edge between two bounds, and where it meets one that bound, with its derivative."""
    return jnp.where(edge <= low, low, jnp.where(edge >= high, high, edge))
