"""Losses that match a conditional target, and the noisy classifier's: (L1) to (L5) of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from cfgjax.checks import require_between, require_label, require_rank, require_scalar
from cfgjax.contracts import LIKE_X, AnyCondition, Contract, Key, checked
from cfgjax.losses.densities import flat, uniform
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


def draw(path: GaussianPath, key: Array, z: Array, density: TimeDensity) -> tuple[Array, PathSample]:
    """A time of the density and a draw of p_t(x|z) at it.

    Raises:
        TypeError, ValueError: a density that does not give one time.
    """
    time_key, noise_key = jax.random.split(key)
    t = density(time_key)
    require_between("time_density(key)", t, 0, 1)
    return t, sample(path, noise_key, z, t)


def mean_square(
    residual: Callable[[Array, PathSample, Array], Array],
    predicted: Callable[..., Array],
    drawn: tuple[Array, PathSample],
    y: tuple[Condition, ...],
    weight: Schedule,
) -> Array:
    """The weighted mean square of ``residual(prediction, draw, t)`` at a drawn time and state, [].

    Raises:
        TypeError, ValueError: a weight that does not give one number.
    """
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
    drawn = draw(path, key, z, time_density)
    return mean_square(lambda value, at, t: value - at.field, field, drawn, y, weight)


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
    drawn = draw(path, key, z, time_density)
    return mean_square(lambda value, at, t: value - at.noise, noise, drawn, y, weight)


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
    drawn = draw(path, key, z, time_density)
    return mean_square(lambda value, at, t: coefficients(path, t).beta * value + at.noise, score, drawn, y, weight)


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
    drawn = draw(path, key, z, time_density)
    return mean_square(lambda value, at, t: value - z, denoiser, drawn, y, weight)


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
    t, drawn = draw(path, key, z, time_density)
    log_probs = log_classifier(drawn.x, t)
    require_rank("log_classifier", log_probs, 1)
    require_label("y", y, log_probs.shape[0] - 1)
    return -jnp.asarray(log_probs).at[y].get(mode="fill", fill_value=jnp.nan)
