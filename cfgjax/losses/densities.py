"""Densities of what a loss draws beside the noise, the time and the guidance scale, and weights of the time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced, require_key, require_number, require_time
from cfgjax.contracts import Finite, NonNegative, Positive, RealArray, Time, UnitInterval, checked
from cfgjax.conversions import LEAST_BETA
from cfgjax.paths import coefficients
from cfgjax.types import Array, GaussianPath, Interval, Number, ScaleDensity, Schedule, TimeDensity, TimesDensity

NumberDensity = Callable[[Array], Number]
"""``key -> w []``: a ScaleDensity that draws one number."""


@checked
def uniform(start: Time = 0.0, stop: Time = 1.0) -> TimeDensity:
    """The uniform density of t on [start, stop).

    Raises:
        ValueError: a start not under stop.
    """
    if not is_traced((start, stop)) and start >= stop:
        raise ValueError(f"start must be under stop, got {start} and {stop}")

    def draw(key: Array) -> Array:
        require_key("key", key)
        return jax.random.uniform(key, minval=start, maxval=stop)

    return draw


@checked
def times_apart(gap: UnitInterval = 0.1) -> TimesDensity:
    """The density of t < t', uniform among pairs: t' - t in [gap, 1) and t in [0, 1 - (t' - t)).

    At gap = 1 all of [0, 1].
    """

    def draw(key: Array) -> tuple[Array, Array]:
        require_key("key", key)
        length_key, start_key = jax.random.split(key)
        length = 1 - (1 - gap) * jnp.sqrt(jax.random.uniform(length_key))
        t = (1 - length) * jax.random.uniform(start_key)
        return t, jnp.minimum(t + length, 1)

    return draw


@checked
def logit_normal(location: Finite = 0.0, spread: NonNegative = 1.0) -> TimeDensity:
    """The density of t = sigmoid(location + spread * normal), on (0, 1).

    Source: Esser et al., arXiv 2403.03206, section 3.1.
    """

    def draw(key: Array) -> Array:
        require_key("key", key)
        return jax.nn.sigmoid(location + spread * jax.random.normal(key))

    return draw


@checked
def flat(t: RealArray) -> Array:
    """The weight 1 at every time, []."""
    return jnp.ones_like(t)


@checked
def field_weight(path: GaussianPath, least_beta: Positive = LEAST_BETA) -> Schedule:
    """The weight (W / max(beta, least_beta))^2 of the time: what a square error of D becomes in the field.

    It is that of ``conversions.bounded_field_of_denoiser``; on the linear path 1 / max(1 - t, least_beta)^2.
    """

    def weight(t: Array) -> Array:
        c = coefficients(path, t)
        return jnp.square(c.wronskian / jnp.maximum(c.beta, least_beta))

    return weight


_EARLY, _LATE = uniform(0.0, 0.5), uniform(0.5, 1.0)
_NEXT_TO_ZERO = 1e-4
"""A product of slope and octaves under which a power density is taken for the logarithmic one."""


def _require_range(low: Number, high: Number) -> None:
    if not is_traced((low, high)) and float(low) >= float(high):
        raise ValueError(f"low must be under high, got {low} and {high}")


@checked
def uniform_scale(low: Finite, high: Finite) -> NumberDensity:
    """The uniform density of the guidance scale w on [low, high).

    Raises:
        ValueError: a low not under high.
    """
    _require_range(low, high)

    def draw(key: Array) -> Array:
        require_key("key", key)
        return jax.random.uniform(key, minval=low, maxval=high)

    return draw


@checked
def power_scale(low: Positive, high: Positive, power: Finite = 1.0) -> NumberDensity:
    """The density of w on [low, high) that is proportional to w^-power: small scales are drawn more often.

    Powers 0 and 1 are uniform in w and in log w. Between and beyond them w = low (1 + u ((high/low)^a - 1))^(1/a) with
    a = 1 - power and u uniform.

    Source: Geng et al., arXiv 2512.02012, who draw so the scale that their network is told.

    Raises:
        ValueError: a low not under high.
    """
    _require_range(low, high)

    def draw(key: Array) -> Array:
        require_key("key", key)
        share, octaves, slope = jax.random.uniform(key), jnp.log(high / low), 1 - jnp.asarray(power)
        is_logarithmic = jnp.abs(slope * octaves) < _NEXT_TO_ZERO
        a = jnp.where(is_logarithmic, 1, slope)
        way = jnp.where(is_logarithmic, share * octaves, jnp.log1p(share * jnp.expm1(a * octaves)) / a)
        return low * jnp.exp(way)

    return draw


@checked
def scale_interval(
    scale_density: NumberDensity,
    start_density: TimeDensity = _EARLY,
    stop_density: TimeDensity = _LATE,
    whole_rate: UnitInterval = 0.5,
) -> ScaleDensity:
    """The density of an ``Interval`` of a drawn scale whose edges are drawn, too: the earlier one is the start.

    Args:
        scale_density: of w.
        start_density: of one edge; by default uniform on [0, 1/2).
        stop_density: of the other; by default uniform on [1/2, 1).
        whole_rate: [], how often the interval is all of [0, 1], as of a scale without one.

    Source: Geng et al., arXiv 2512.02012 (a network that is told the interval).
    """

    def draw(key: Array) -> Interval:
        require_key("key", key)
        scale_key, start_key, stop_key, whole_key = jax.random.split(key, 4)
        scale, one, other = scale_density(scale_key), start_density(start_key), stop_density(stop_key)
        require_number("scale_density(key)", scale)
        require_time("start_density(key)", one)
        require_time("stop_density(key)", other)
        is_whole = jax.random.bernoulli(whole_key, whole_rate)
        start, stop = jnp.where(is_whole, 0, jnp.minimum(one, other)), jnp.where(is_whole, 1, jnp.maximum(one, other))
        return Interval(scale, start, stop)

    return draw
