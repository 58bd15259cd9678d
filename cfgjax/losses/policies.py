"""Losses that learn a guidance scale, of a fixed pair of fields: (L9) and (L10) of the package.

Derivation for (L9). Given z, the states at t and at t' are Gaussian, drawn independently, x' from x by one DDIM step.
With b = 2 and a repulsion of 1 the variance of x' falls out, and what is left is the distance of means,

    E|x' - x''|^2 - 1/2 E|x'_1 - x'_2|^2 = |E[x'|z] - alpha' z|^2 + trace Cov(x''|z).

With b = 2 and no repulsion the spread of x' counts as well, and even of exact fields the least loss is at w > 1. Of a
step that shares its noise with x'' the difference is x' - x'' = (alpha' - beta' alpha / beta)(D_w - z): that loss is
``denoiser_matching`` of the guided denoiser, whose least value for exact fields is at w = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import TINY, require_between, require_scalar, short_repr
from cfgjax.contracts import AnyCondition, Finite, Key, UnitInterval, at_least, between, checked
from cfgjax.conversions import from_field
from cfgjax.losses.densities import flat, times_apart
from cfgjax.losses.matching import DataPoint
from cfgjax.paths import as_float, before_end, coefficients, sample
from cfgjax.types import (
    Array,
    Condition,
    GaussianPath,
    Number,
    Pair,
    Prediction,
    Reward,
    ScaleOfGap,
    Schedule,
    TimesDensity,
)

ScaleOfStep = Callable[[Array, Array, Condition], Number]
"""``(t [], t' [], y) -> w []``: a guidance scale of a step from t to t'."""

Exponent = Annotated[Number, between(TINY, 2)]
NumDraws = Annotated[int, at_least(2)]

_APART = times_apart()


def _ends(times: TimesDensity, key: Array) -> tuple[Array, Array]:
    drawn = times(key)
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise TypeError(f"times(key) must be two times, (t, t'), got {short_repr(drawn)}")
    for index, time in enumerate(drawn):
        require_between(f"times(key)[{index}]", time, 0, 1)
    return as_float(drawn[0]), as_float(drawn[1])


def _predictions(path: GaussianPath, pair: Pair, x: Array, t: Array, y: Condition) -> tuple[Prediction, Prediction]:
    """What both sides predict at (x, t), asked before t = 1."""
    time = before_end(t)
    null, labelled = (from_field(path, value, x, time) for value in pair.both(x, time, y))
    return null, labelled


def _guided(null: Array, labelled: Array, scale: Number) -> Array:
    require_scalar("scale_of", scale)
    return labelled + (scale - 1) * (labelled - null)


def _value(reward: Reward, t: Array, x: Array) -> Array:
    value = reward(x, t)
    require_scalar("reward", value)
    return jnp.asarray(value)


def _powers(rows: Array, others: Array, exponent: Number) -> Array:
    """|a - b|^exponent of all pairs, [n, m]; 0 with slope 0 where a = b."""
    difference = jnp.expand_dims(rows, 1) - jnp.expand_dims(others, 0)
    squares = jnp.sum(jnp.square(difference), axis=tuple(range(2, difference.ndim)))
    is_apart = squares > 0
    return jnp.where(is_apart, jnp.where(is_apart, squares, 1) ** (exponent / 2), 0)


@checked
def self_consistency(
    path: GaussianPath,
    pair: Pair,
    scale_of: ScaleOfStep,
    key: Key,
    z: DataPoint,
    y: AnyCondition,
    *,
    times: TimesDensity = _APART,
    exponent: Exponent = 1.0,
    repulsion: Finite = 1.0,
    num_draws: NumDraws = 4,
    reward: Reward | None = None,
) -> Array:
    """The loss (L9) of a scale w(t, t', y) at one random step: guided states against noised ones of the same z, [].

    Given z, m draws of p_t(x|z) each take one guided DDIM step to t', x' = alpha' D_w + beta' E_w, and m further draws
    x'' are of p_t'(x|z):  mean |x' - x''|^b - (repulsion / 2) mean over j != k of |x'_j - x'_k|^b - mean r(x', t').

    Args:
        path: the path.
        pair: the null and the labelled vector field; they are not learned.
        scale_of: the learned w. The paper's is 1 + relu(network), at least 1.
        key: a key for times and noise.
        z: [*D], the data point, of y.
        y: the condition.
        times: how t and t' are drawn; by default at least 0.1 apart.
        exponent: [], b, in (0, 2]; an energy distance below 2.
        repulsion: [], the factor of the second term; 1 is the energy distance.
        num_draws: m, at least 2.
        reward: r of a state and its time; without it the aim is p_t'(x|y) itself.

    Singular where two states are equal: their distance has the slope 0 there.

    Source: Galashov et al., arXiv 2510.00815 (learn to guide), with b = 1 and m = 4.

    Raises:
        TypeError, ValueError: what is not two times in [0, 1]; a scale or a reward that is not one number.
    """
    times_key, start_key, end_key = jax.random.split(key, 3)
    t, t_next = _ends(times, times_key)
    c, scale = coefficients(path, t_next), scale_of(t, t_next, y)

    def step(key: Array) -> Array:
        x = sample(path, key, z, t).x
        null, labelled = _predictions(path, pair, x, t, y)
        denoiser = _guided(null.denoiser, labelled.denoiser, scale)
        return c.alpha * denoiser + c.beta * _guided(null.noise, labelled.noise, scale)

    moved = jax.vmap(step)(jax.random.split(start_key, num_draws))
    noised = jax.vmap(lambda key: sample(path, key, z, t_next).x)(jax.random.split(end_key, num_draws))
    among = jnp.sum(_powers(moved, moved, exponent)) / (num_draws * (num_draws - 1))
    distance = jnp.mean(_powers(moved, noised, exponent)) - 0.5 * repulsion * among
    if reward is None:
        return distance
    return distance - jnp.mean(jax.vmap(partial(_value, reward, t_next))(moved))


@checked
def annealed_guidance(
    path: GaussianPath,
    pair: Pair,
    scale_of: ScaleOfGap,
    key: Key,
    z: DataPoint,
    y: AnyCondition,
    preference: UnitInterval,
    *,
    times: TimesDensity,
    weight: Schedule = flat,
) -> Array:
    """The loss (L10) of a scale w(t, y, |E_y - E_null|) at one random step of CFG++, [].

    preference |E_y - E_null|^2 / D at (x', t') + (1 - preference) |E_w - noise|^2 / D at (x, t), of the step
    x' = alpha' D_w + beta' E_null with D_w = D_null + w (D_y - D_null), E_w alike. The second term alone has for exact
    fields its least value at w = 1; the first alone asks for the step after which both sides agree.

    Args:
        path: the path.
        pair: the null and the labelled vector field; they are not learned.
        scale_of: the learned w, told the gap at (x, t). What else it depends on, as the preference, it closes over.
        key: a key for times and noise.
        z: [*D], the data point, of y.
        y: the condition.
        preference: [], the paper's lambda in [0, 1], in training drawn uniformly.
        times: how t and t' are drawn: one step of the grid of sampling, as by ``flow_maps.step_times``. Since w is one
            of CFG++ it means something on that grid alone (R4 of ``solvers.cfg_plus_plus``).
        weight: a further factor, a function of t.

    At t' = 1 the fields are asked just before it.

    Source: Yehezkel et al., arXiv 2506.24108. The noise on their condition and their network are left to the caller.

    Raises:
        TypeError, ValueError: what is not two times in [0, 1]; a scale or a weight that is not one number.
    """
    times_key, noise_key = jax.random.split(key)
    t, t_next = _ends(times, times_key)
    at, c, factor = sample(path, noise_key, z, t), coefficients(path, t_next), weight(t)
    require_scalar("weight(t)", factor)
    null, labelled = _predictions(path, pair, at.x, t, y)
    scale = scale_of(t, y, jnp.sqrt(_squares(labelled.noise - null.noise)))
    ahead = c.alpha * _guided(null.denoiser, labelled.denoiser, scale) + c.beta * null.noise
    null_ahead, labelled_ahead = _predictions(path, pair, ahead, t_next, y)
    agreement = jnp.mean(jnp.square(labelled_ahead.noise - null_ahead.noise))
    fidelity = jnp.mean(jnp.square(_guided(null.noise, labelled.noise, scale) - at.noise))
    return factor * (preference * agreement + (1 - preference) * fidelity)


def _squares(difference: Array) -> Array:
    """The squared norm, at least the least number whose root has a slope, []."""
    return jnp.maximum(jnp.sum(jnp.square(difference)), TINY)
