"""Losses of ONE example, each with its minimiser.

(L1) flow matching:    |u(x, t, y) - (alpha' z + beta' noise)|^2 / D   minimised by the field u_t(x|y)
(L2) noise matching:   |E(x, t, y) - noise|^2 / D                      minimised by E[noise | x, y]
(L3) score matching:   beta^2 |s(x, t, y) + noise / beta|^2 / D        minimised by the score; never divides by beta
(L4) noisy classifier: -log p(y | x, t)                                minimised by the posterior p_t(y|x)
(L5) denoiser matching: |D(x, t, y) - z|^2 / D                         minimised by the denoiser E[z | x, y]

with x = alpha z + beta noise, |.|^2 the squared norm and D the number of coordinates of z.
With ``field_weight`` (L5) is the distance of D and z in their fields, ``conversions.bounded_field_of_denoiser``:
Li & He's, arXiv 2511.13720, who predict the data with a loss on the velocity.
Classifier-free training is (L1) with ``guidance.drop_condition`` on y.
Source: MIT 6.S184 notes (arXiv 2506.02070v3), algorithms 3, 4 and 5; Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced, require_between, require_key, require_label, require_rank, require_scalar
from cfgjax.contracts import (
    LIKE_X,
    AnyCondition,
    Contract,
    Finite,
    Key,
    NonNegative,
    Positive,
    RealArray,
    Time,
    checked,
)
from cfgjax.conversions import LEAST_BETA
from cfgjax.paths import as_state, coefficients, sample
from cfgjax.types import Array, Condition, GaussianPath, LogClassifier, Number, PathSample, Schedule, TimeDensity


def _data_point(name: str, z: Array) -> Array:
    z = as_state(z, name)
    if z.size == 0:
        raise ValueError(f"{name} must hold at least one number, got the shape {z.shape}")
    return z


DataPoint = Annotated[Array, Contract(_data_point)]
"""An array of at least one real number, taken in floating point."""
LearnedField = Annotated[Callable[..., Array], LIKE_X]
"""A Field, or with a condition a LabelledField, whose values are found to be like x."""


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


def _draw(path: GaussianPath, key: Array, z: Array, density: TimeDensity) -> tuple[Array, PathSample]:
    time_key, noise_key = jax.random.split(key)
    t = density(time_key)
    require_between("time_density(key)", t, 0, 1)
    return t, sample(path, noise_key, z, t)


def _mean_square(
    residual: Callable[[Array, PathSample, Array], Array],
    predicted: Callable[..., Array],
    drawn: tuple[Array, PathSample],
    y: tuple[Condition, ...],
    weight: Schedule,
) -> Array:
    """The weighted mean square of ``residual(prediction, draw, t)`` at a drawn time and state, []."""
    t, at = drawn
    factor = weight(t)
    require_scalar("weight(t)", factor)
    return factor * jnp.mean(jnp.square(residual(predicted(at.x, t, *y), at, t)))


_UNIFORM = uniform()


@checked
def flow_matching(
    path: GaussianPath,
    field: LearnedField,
    key: Key,
    z: DataPoint,
    *y: AnyCondition,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The guided conditional flow matching loss (L1) of one example at one random time, [].

    Args:
        path: the path.
        field: the learned field, called as field(x, t) or, with a condition, field(x, t, y).
        key: a key for time and noise.
        z: [*D], the data point.
        y: the condition, already dropped where it is to be; leave it out for a Field.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.

    Raises:
        TypeError, ValueError: a time density or a weight that does not give one number.
    """
    drawn = _draw(path, key, z, time_density)
    return _mean_square(lambda value, at, t: value - at.field, field, drawn, y, weight)


@checked
def noise_matching(
    path: GaussianPath,
    noise: LearnedField,
    key: Key,
    z: DataPoint,
    *y: AnyCondition,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The noise matching loss (L2) of one example at one random time, []; arguments as ``flow_matching``."""
    drawn = _draw(path, key, z, time_density)
    return _mean_square(lambda value, at, t: value - at.noise, noise, drawn, y, weight)


@checked
def score_matching(
    path: GaussianPath,
    score: LearnedField,
    key: Key,
    z: DataPoint,
    *y: AnyCondition,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The denoising score matching loss (L3) of one example at one random time, []; arguments as ``flow_matching``.

    ``weight`` multiplies the factor beta^2 that (L3) holds already.
    """
    drawn = _draw(path, key, z, time_density)
    return _mean_square(lambda value, at, t: coefficients(path, t).beta * value + at.noise, score, drawn, y, weight)


@checked
def denoiser_matching(
    path: GaussianPath,
    denoiser: LearnedField,
    key: Key,
    z: DataPoint,
    *y: AnyCondition,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The denoiser matching loss (L5) of one example at one random time, []; arguments as ``flow_matching``."""
    drawn = _draw(path, key, z, time_density)
    return _mean_square(lambda value, at, t: value - z, denoiser, drawn, y, weight)


@checked
def classifier_cross_entropy(
    path: GaussianPath,
    log_classifier: LogClassifier,
    key: Key,
    z: DataPoint,
    y: Number,
    time_density: TimeDensity = _UNIFORM,
) -> Array:
    """The cross-entropy (L4) of a noisy classifier at one example and one random time, in nats, [].

    A classifier knows no null label: where a label that only a trace holds is none of its own, the loss is NaN.

    Raises:
        ValueError: a classifier that does not give [K], a concrete label outside 0..K-1.
    """
    t, drawn = _draw(path, key, z, time_density)
    log_probs = log_classifier(drawn.x, t)
    require_rank("log_classifier", log_probs, 1)
    require_label("y", y, log_probs.shape[0] - 1)
    return -jnp.asarray(log_probs).at[y].get(mode="fill", fill_value=jnp.nan)
