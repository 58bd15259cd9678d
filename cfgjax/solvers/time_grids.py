"""Time grids: n + 1 increasing times that begin at 0 exactly and end at 1 exactly.

Each raises ValueError, naming its arguments, where two times would be one in the precision that JAX computes in. Traced
ones cannot be looked at: there the later of two equal times is moved on by the spacing of floating-point numbers.
A grid of a user's own is any increasing array; ``integrate`` checks it.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from cfgjax.checks import is_traced, require_kind, require_number, short_repr
from cfgjax.contracts import GRID, ConcreteTimeGrid, Finite, Positive, PositiveInt, at_least, checked
from cfgjax.conversions import time_at
from cfgjax.types import Array, GaussianPath, Number, Times


@checked
def uniform(num_steps: PositiveInt) -> Array:
    """i / n for i = 0..n with n = ``num_steps``, [n + 1]."""
    return _rising(jnp.linspace(0, 1, num_steps + 1), num_steps=num_steps)


def _with_ends(times: Array) -> Array:
    return times.at[0].set(0).at[-1].set(1)


def _rising(times: Array, **arguments: Number) -> Array:
    """The times, found to increase within [0, 1], or where traced made to; an error names the arguments."""
    if is_traced(times):
        return times + jax.lax.stop_gradient(_spread(times) - times)
    if not _is_rising(times):
        names, given = " and ".join(arguments), ", ".join(short_repr(value) for value in arguments.values())
        raise ValueError(f"{names} must give times that increase in {times.dtype}, got {given}")
    return times


def _is_rising(times: Times) -> bool:
    inner = np.asarray(times).astype(jax.dtypes.canonicalize_dtype(times.dtype)).astype(np.float64)
    return bool(np.all(np.diff(inner) > 0) and inner[0] >= 0 and inner[-1] <= 1)


def _spread(times: Array) -> Array:
    """Increasing times nearest to these: at least as many floating-point numbers apart as their places are."""
    whole = jnp.int64 if times.dtype == jnp.float64 else jnp.int32
    place = jnp.arange(len(times), dtype=whole)
    least = jax.lax.bitcast_convert_type(jnp.finfo(times.dtype).tiny, whole)
    last = jax.lax.bitcast_convert_type(jnp.ones((), times.dtype), whole) - place[::-1]
    code = jax.lax.bitcast_convert_type(jnp.nan_to_num(jnp.clip(times, 0, 1)), whole)
    code = jnp.where(place > 0, jnp.maximum(code, least), code)
    code = jnp.minimum(jax.lax.cummax(code - place) + place, last)
    return jax.lax.bitcast_convert_type(code, times.dtype)


@checked
def karras(
    path: GaussianPath,
    num_steps: Annotated[int, at_least(2)],
    rho: Positive = 7.0,
    smallest: Positive = 0.002,
    largest: Positive = 80.0,
) -> Array:
    """The grid of EDM on a path, [n + 1]: noise-to-signal ratios beta / alpha equally spaced in their 1/rho-th power.

    The ratio runs from ``largest`` to ``smallest`` over the first n points, and ends at 0; the first point is then
    moved to t = 0, where the samples start from pure noise.

    Source: Karras et al., arXiv 2206.00364, equation 5.

    Raises:
        ValueError: smallest not under largest, or one of them beyond the ratios of the path: ``paths.ddpm`` ends at
            0.01.
    """
    if not is_traced((smallest, largest)) and not float(smallest) < float(largest):
        raise ValueError(f"smallest must be under largest, got {smallest} and {largest}")
    roots = jnp.linspace(jnp.power(largest, 1 / rho), jnp.power(smallest, 1 / rho), num_steps)
    powers = roots**rho
    ratios = jnp.append(jnp.where(powers < 0.99 * smallest, smallest, powers), 0.0)
    times = _with_ends(jax.vmap(lambda ratio: time_at(path, 1.0, ratio))(ratios))
    if not is_traced(times):
        _require_on_path(path, "smallest", smallest, times[-2] < 1)
        _require_on_path(path, "largest", largest, times[1] > 0)
    return _rising(times, rho=rho, smallest=smallest, largest=largest)


def _require_on_path(path: GaussianPath, name: str, ratio: Number, is_on_path: Any) -> None:
    if not is_on_path:
        ends = [float(path.beta(jnp.asarray(t)) / path.alpha(jnp.asarray(t))) for t in (1.0, 0.0)]
        raise ValueError(
            f"{name} must be a ratio beta / alpha of the path, between {ends[0]:g} and {ends[1]:g}, got {ratio}"
        )


@checked
def logit_normal(num_steps: PositiveInt, mean: Finite = 0.0, std: Positive = 1.0) -> Array:
    """The quantiles i / n of the logit-normal density, [n + 1]: sigmoid(mean + std Phi^-1(i / n)).

    Source: Esser et al., arXiv 2403.03206, equation 19, whose time is 1 - t: their mean is minus ours.
    """
    inside = jax.nn.sigmoid(mean + std * ndtri(uniform(num_steps)[1:-1]))
    return _rising(jnp.concatenate([jnp.zeros(1), inside, jnp.ones(1)]), mean=mean, std=std)


@checked
def cosine(num_steps: PositiveInt) -> Array:
    """(1 - cos(pi i / n)) / 2, [n + 1]: dense at both ends."""
    return _rising(_with_ends(0.5 * (1 - jnp.cos(jnp.pi * uniform(num_steps)))), num_steps=num_steps)


@checked
def sigmoid(num_steps: PositiveInt, reach: Positive = 3.0) -> Array:
    """The sigmoid of equally spaced numbers in [-reach, reach], scaled to [0, 1], [n + 1]: dense at both ends.

    Source: Jabri et al., arXiv 2212.11972, section 3 (there as a noise schedule).
    """
    values = jnp.tanh(0.5 * reach * (2 * uniform(num_steps) - 1))
    return _rising(_with_ends(0.5 * (1 + values / jnp.tanh(0.5 * reach))), reach=reach)


@checked
def shifted(ts: Annotated[Array, GRID], shift: Positive) -> Array:
    """The grid with each t moved to t / (t + s (1 - t)), s = ``shift``, [n + 1]: s > 1 gives more steps near noise.

    Source: Esser et al., arXiv 2403.03206, equation 23, whose time is 1 - t.
    """
    moved, is_falling = ts / (ts + shift * (1 - ts)), ts[0] > ts[-1]
    if not is_traced(moved):
        _rising(moved[::-1] if is_falling else moved, shift=shift)
        return moved
    risen = _rising(jnp.where(is_falling, moved[::-1], moved), shift=shift)
    return jnp.where(is_falling, risen[::-1], risen)


@checked
def insert_times(ts: ConcreteTimeGrid, points: tuple[float, ...]) -> np.ndarray:
    """The grid with its nearest inner times moved onto the given ones, [n + 1]: for the edges of an interval.

    Args:
        ts: [n + 1], a monotone grid of numbers; built outside ``jax.jit``, where jnp's own arrays are numbers.
        points: the times that shall be on it; those beyond its ends are left out.

    Raises:
        TypeError, ValueError: points that are not finite, or so close that two would move one time.
    """
    require_kind("points", points, (tuple, list, np.ndarray, jax.Array), "a tuple of times")
    for point in points:
        require_number("points", point)
    times = np.array(ts)
    if times[0] > times[-1]:
        return insert_times(times[::-1], points)[::-1].copy()
    precision = jax.dtypes.canonicalize_dtype(times.dtype)
    wanted = np.unique(np.asarray(points, precision)).astype(times.dtype)
    inside = [point for point in wanted if times[0] < point < times[-1] and point not in times]
    fixed = {int(index) for index in np.flatnonzero(np.isin(times, wanted))} | {0, len(times) - 1}
    for point in inside:
        nearest = int(np.argmin(np.abs(times - point)))
        neighbours = [index for index in (nearest, nearest - 1, nearest + 1) if 0 <= index < len(times)]
        free = [index for index in neighbours if index not in fixed and times[index - 1] < point < times[index + 1]]
        if free:
            times[free[0]] = point
            fixed.add(free[0])
        if not free or not _is_rising(times):
            raise ValueError(
                f"points must be further apart than the grid's steps, got {points} on {len(times) - 1} steps"
            )
    return times
