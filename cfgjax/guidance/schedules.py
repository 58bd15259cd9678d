"""Guidance scales that depend on time and condition, or on the state.

A scale is a number, a function of t or of (t, y), a ``Policy``, or an ``Interval`` of one of these; ``scale_at`` reads
all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar, cast

import jax.numpy as jnp
from jax.scipy.special import gammaln

from cfgjax.checks import HUGE, TINY, is_traced, require_number, takes_label
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, Finite, GuidanceScale, NonNegative, UnitInterval, between, checked
from cfgjax.guidance.projections import length, noise_slope
from cfgjax.paths import as_time
from cfgjax.piecewise import Piecewise
from cfgjax.types import (
    Array,
    Condition,
    GaussianPath,
    Interval,
    Number,
    Policy,
    Scale,
    ScaleOfGap,
    ScaleOfSides,
    Schedule,
)

Piece = TypeVar("Piece")
AtLeastOne = Annotated[Number, between(1, HUGE)]
"""One real number, at least 1 where concrete."""


@checked
def scale_at(scale: Scale, t: Number, y: AnyCondition = 0, sides: tuple[Array, Array, Array] | None = None) -> Array:
    """The guidance scale w at time t for condition y, []: the number itself, or the function's value.

    Args:
        scale: w, of any kind.
        t: [], the time.
        y: the condition.
        sides: the state x, the null side and the labelled side, [*D] each, of which a policy is a function.

    Raises:
        ValueError: a policy without the state and both sides.

    >>> float(scale_at(lambda t: 2 * t, 0.75))
    1.5
    >>> float(scale_at(lambda t, y: y + t, 0.5, 3))
    3.5
    >>> float(scale_at(interval(4.0, 0.2, 0.8), 0.9))
    1.0
    """
    time = as_time(t)
    if isinstance(scale, Interval):
        is_inside = (time >= scale.start) & ((time < scale.stop) | (jnp.asarray(scale.stop) >= 1))
        return jnp.where(is_inside, scale_at(scale.scale, t, y, sides), 1)
    if isinstance(scale, Policy):
        if sides is None:
            raise ValueError(
                "scale must be a number or a function of t or (t, y) here, got a policy: no sides are known"
            )
        x, null, labelled = sides
        value = scale.scale_of(x, time, as_condition(y), null, labelled)
    elif callable(scale):
        schedule = cast(Callable[..., Array], scale)
        value = schedule(time, as_condition(y)) if takes_label(schedule) else schedule(time)
    else:
        value = scale
    require_number("scale", value)
    return jnp.asarray(value)


@checked
def policy(scale_of: ScaleOfSides) -> Policy:
    """The scale w = scale_of(x, t, y, null, labelled), a function of the state and of both sides at it.

    It stands wherever a scale does: in ``classifier_free``, ``extrapolate``, ``rescaled``, ``adaptive_projected``, and
    inside an ``interval``. The sides are those that the rule extrapolates between, in the space and after the rules on
    pairs in which it does: a policy that measures them names its space. Both are evaluated everywhere, in one call.
    Gradients pass through w; ``jax.lax.stop_gradient`` on its value keeps them out.

    Args:
        scale_of: (x [*D], t [], y, null [*D], labelled [*D]) -> w [].

    Source: state-dependent scales, as Koulischer et al., arXiv 2506.06085 (feedback guidance).

    >>> shorter = policy(lambda x, t, y, null, labelled: 1 + 2 * jnp.exp(-jnp.sum((labelled - null) ** 2)))
    >>> sides = jnp.zeros(2), jnp.ones(2), jnp.ones(2)
    >>> float(scale_at(shorter, 0.5, 1, sides))
    3.0
    """
    return Policy(scale_of)


@checked
def gap_policy(path: GaussianPath, scale_of: ScaleOfGap) -> Policy:
    """The scale w = scale_of(t, y, gap) of the gap |E_y - E_null| between the two noise predictions, as a policy.

    In noise space, where the gap has a limit at both ends: (alpha / W) |u_y - u_null| over the whole example, 0 at
    t = 0, and 0 where W = 0. The pair's sides are vector fields. A w of 1 is the labelled field, from both sides.

    Args:
        path: the path of the fields.
        scale_of: (t [], y, gap []) -> w []: a learned network, for example.

    Source: Yehezkel et al., arXiv 2506.24108 (annealing guidance; there with the user's preference as one more input,
    and within ``solvers.cfg_plus_plus``).
    """

    def scale(x: Array, t: Array, y: Condition, null: Array, labelled: Array) -> Array:
        return scale_of(t, y, noise_slope(path, t) * length(labelled - null))

    return Policy(scale)


@checked
def exponential_scale(first: Finite, rate: Finite) -> Schedule:
    """The scale w(t) = w_0 e^(rate t), from w_0 = ``first`` at noise to w_0 e^rate at data.

    Acts in any space. rate = 0 is a constant. The paper has w_0 e^(rate (1 - s)) of the diffusion's time s = 1 - t,
    and calls it decay in s; a note of it that writes the greatest scale times e^(-rate s) means the same curve.

    Args:
        first: [], w_0; the paper's is 1 with rate log 2 for DiT, 1.8 with rate 0.03 inside an interval.
        rate: [], positive for guidance that grows towards the data.

    Source: Gao et al., arXiv 2603.08155 (C2FG).

    >>> round(float(exponential_scale(1.5, 0.0)(0.3)), 6)
    1.5
    """
    return lambda t: first * jnp.exp(rate * t)


@checked
def beta_scale(
    path: GaussianPath,
    scale: Finite,
    a: AtLeastOne = 2.0,
    b: AtLeastOne = 2.0,
    gamma: NonNegative = 1.0,
    progress: Schedule | None = None,
) -> Policy:
    """The scale w(x, t) = w B(p) / |E_y - E_null|^gamma, with B the density of Beta(a, b) at the progress p.

    In noise space, on vector fields, over the whole example, so that with gamma > 0 its meaning depends on the data's
    dimension. It is the whole scale: the NULL field at both ends for a, b > 1, and the labelled field for no w, but
    at a = b = 1 with gamma = 0, where it is the number w to rounding. 0 where B or, with gamma > 0, the gap is 0.
    As t -> 0 the gap is O(t), so that with gamma = a - 1 w has a limit that is not its value 0 at t = 0, and with a
    larger gamma none.

    Args:
        path: the path of the fields.
        scale: [], w; the paper's code has 7.5.
        a: [], at least 1.
        b: [], at least 1.
        gamma: [], at least 0.
        progress: the share p of the steps at t, in [0, 1]; None for t itself, as on a uniform grid.

    Source: Malarz et al., arXiv 2502.10574 (beta-CFG).
    """

    def scale_of(x: Array, t: Array, y: Condition, null: Array, labelled: Array) -> Array:
        share = t if progress is None else progress(t)
        log_factor = (
            gammaln(jnp.asarray(a + b, float)) - gammaln(jnp.asarray(a, float)) - gammaln(jnp.asarray(b, float))
        )
        density = jnp.exp(log_factor) * share ** (a - 1) * (1 - share) ** (b - 1)
        gap = noise_slope(path, t) * length(labelled - null)
        is_gap = gap > TINY
        value = scale * density / jnp.where(is_gap, gap, 1) ** gamma
        return jnp.where(is_gap | (jnp.asarray(gamma) == 0), jnp.clip(value, -HUGE, HUGE), 0)

    return Policy(scale_of)


@checked
def interval(scale: GuidanceScale, start: UnitInterval, stop: UnitInterval) -> Interval:
    """The scale that is ``scale`` for start <= t < stop, and 1 (the labelled field alone) outside.

    With ``start`` and ``stop`` given as numbers guidance by it makes a ``Piecewise`` field, whose outside costs one
    evaluation, and each step is inside or outside as a whole. Traced ones, as in a sweep over intervals, cost two
    everywhere, and the field jumps between a step's stages: a step over an edge then has an error of first order.

    Source: Kynkaanniemi et al., arXiv 2404.07724, whose interval is one of noise levels.

    Raises:
        ValueError: an interval of an interval; a start that is not under stop.
    """
    if isinstance(scale, Interval):
        raise ValueError("scale of an interval must be a number or a function, got another interval")
    if not is_traced((start, stop)) and not float(start) < float(stop):
        raise ValueError(f"start must be under stop, got start = {start} and stop = {stop}")
    return Interval(scale, start, stop)


def in_pieces(scale: Interval, inner: Piece, outer: Piece) -> Piecewise[Piece]:
    """What is ``inner`` inside an interval between numbers, and ``outer`` before and after it."""
    pieces = {0.0: outer, float(scale.start): inner, float(scale.stop): outer}
    starts = [start for start in sorted(pieces) if start < 1]
    return Piecewise(tuple(starts[1:]), tuple(pieces[start] for start in starts))


@checked
def from_zero_based_scale(zero_based_scale: GuidanceScale) -> Scale:
    """The scale w = 1 + s of a paper's s, in whose convention s = 0 is the labelled field.

    Args:
        zero_based_scale: s, a number, a function of t or (t, y), or a policy.

    Source: Ho & Salimans, arXiv 2207.12598, equation 6.

    Raises:
        ValueError: an interval, of which the inner scale is to be shifted.

    >>> from_zero_based_scale(2.0)
    3.0
    """
    if isinstance(zero_based_scale, Interval):
        raise ValueError(
            "zero_based_scale must be a number or a function, got an interval: write "
            "interval(from_zero_based_scale(s), ...)"
        )
    if isinstance(zero_based_scale, Policy):
        scale_of = zero_based_scale.scale_of
        return Policy(lambda *point: 1 + scale_of(*point))
    if not callable(zero_based_scale):
        return 1 + zero_based_scale
    if takes_label(zero_based_scale):
        return lambda t, y: 1 + scale_at(zero_based_scale, t, y)
    return lambda t: 1 + scale_at(zero_based_scale, t)
