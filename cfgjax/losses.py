"""Losses of ONE example, each with its minimiser.

(L1) flow matching:    |u(x, t, y) - (alpha' z + beta' noise)|^2 / D   minimised by the field u_t(x|y)
(L2) noise matching:   |E(x, t, y) - noise|^2 / D                      minimised by E[noise | x, y]
(L3) score matching:   beta^2 |s(x, t, y) + noise / beta|^2 / D        minimised by the score; never divides by beta
(L4) noisy classifier: -log p(y | x, t)                                minimised by the posterior p_t(y|x)

with x = alpha z + beta noise, |.|^2 the squared norm and D the number of coordinates of z.
Classifier-free training is (L1) with ``guidance.drop_label`` on y.
Source: MIT 6.S184 notes (arXiv 2506.02070v3), algorithms 3, 4 and 5; Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.checks import (
    HUGE,
    is_traced,
    output_like_x,
    require_between,
    require_function,
    require_key,
    require_label,
    require_number,
    require_path,
    require_rank,
    require_real,
    require_scalar,
)
from cfgjax.paths import as_state, coefficients, sample
from cfgjax.types import Array, GaussianPath, LogClassifier, Number, PathSample, Schedule, TimeDensity


def uniform(start: Number = 0.0, stop: Number = 1.0) -> TimeDensity:
    """The uniform density of t on [start, stop).

    Raises:
        TypeError, ValueError: a start or a stop that is not one number in [0, 1], a start not under stop.
    """
    require_between("start", start, 0.0, 1.0)
    require_between("stop", stop, 0.0, 1.0)
    if not is_traced((start, stop)) and start >= stop:
        raise ValueError(f"start must be under stop, got {start} and {stop}")

    def draw(key: Array) -> Array:
        require_key("key", key)
        return jax.random.uniform(key, minval=start, maxval=stop)

    return draw


def logit_normal(location: Number = 0.0, spread: Number = 1.0) -> TimeDensity:
    """The density of t = sigmoid(location + spread * normal), on (0, 1).

    Source: Esser et al., arXiv 2403.03206, section 3.1.

    Raises:
        TypeError, ValueError: a location or a spread that is not one finite number, a negative spread.
    """
    require_number("location", location)
    require_between("spread", spread, 0.0, HUGE)

    def draw(key: Array) -> Array:
        require_key("key", key)
        return jax.nn.sigmoid(location + spread * jax.random.normal(key))

    return draw


def flat(t: Array) -> Array:
    """The weight 1 at every time, [].

    Raises:
        TypeError: what holds no real numbers.
    """
    require_real("t", t)
    return jnp.ones_like(t)


def _draw(path: GaussianPath, key: Array, z: Array, density: TimeDensity) -> tuple[Array, PathSample]:
    require_path("path", path)
    require_key("key", key)
    require_function("time_density", density)
    z = as_state(z, "z")
    if z.size == 0:
        raise ValueError(f"z must hold at least one number, got the shape {z.shape}")
    time_key, noise_key = jax.random.split(key)
    t = density(time_key)
    require_between("time_density(key)", t, 0, 1)
    return t, sample(path, noise_key, z, t)


def _predicted(name: str, field: Callable[..., Array], drawn: PathSample, t: Array, y: tuple[Array, ...]) -> Array:
    """The prediction at the drawn state, once it is found to be like it."""
    for label in y:
        require_label("y", label)
    return output_like_x(name, field)(drawn.x, t, *y)


def _weight_at(weight: Schedule, t: Array) -> Array:
    require_function("weight", weight)
    value = weight(t)
    require_scalar("weight(t)", value)
    return value


_UNIFORM = uniform()


def flow_matching(
    field: Callable[..., Array],
    path: GaussianPath,
    key: Array,
    z: Array,
    *y: Array,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The guided conditional flow matching loss (L1) of one example at one random time, [].

    Args:
        field: the learned field, called as field(x, t) or, with a label, field(x, t, y).
        path: the path.
        key: a key for time and noise.
        z: [*D], the data point.
        y: [], the label, already dropped where it is to be; leave it out for a Field.
        time_density: how the time is drawn.
        weight: a further factor, a function of t.

    Raises:
        TypeError, ValueError: a field whose value has not the shape of z; no function, path, key, data point, label,
            time density or weight.
    """
    t, drawn = _draw(path, key, z, time_density)
    return _weight_at(weight, t) * jnp.mean(jnp.square(_predicted("field", field, drawn, t, y) - drawn.field))


def noise_matching(
    noise: Callable[..., Array],
    path: GaussianPath,
    key: Array,
    z: Array,
    *y: Array,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The noise matching loss (L2) of one example at one random time, []; arguments as ``flow_matching``."""
    t, drawn = _draw(path, key, z, time_density)
    return _weight_at(weight, t) * jnp.mean(jnp.square(_predicted("noise", noise, drawn, t, y) - drawn.noise))


def score_matching(
    score: Callable[..., Array],
    path: GaussianPath,
    key: Array,
    z: Array,
    *y: Array,
    time_density: TimeDensity = _UNIFORM,
    weight: Schedule = flat,
) -> Array:
    """The denoising score matching loss (L3) of one example at one random time, []; arguments as ``flow_matching``.

    ``weight`` multiplies the factor beta^2 that (L3) holds already.
    """
    t, drawn = _draw(path, key, z, time_density)
    beta = coefficients(path, t).beta
    value = _predicted("score", score, drawn, t, y)
    return _weight_at(weight, t) * jnp.mean(jnp.square(beta * value + drawn.noise))


def classifier_cross_entropy(
    log_classifier: LogClassifier,
    path: GaussianPath,
    key: Array,
    z: Array,
    y: Array,
    time_density: TimeDensity = _UNIFORM,
) -> Array:
    """The cross-entropy (L4) of a noisy classifier at one example and one random time, in nats, [].

    A classifier knows no null label: where a label that only a trace holds is none of its own, the loss is NaN.

    Raises:
        TypeError, ValueError: a concrete label outside 0..K-1; no function, path, key, data point or time density.
    """
    require_function("log_classifier", log_classifier)
    t, drawn = _draw(path, key, z, time_density)
    log_probs = log_classifier(drawn.x, t)
    require_rank("log_classifier", log_probs, 1)
    require_label("y", y, log_probs.shape[0] - 1)
    return -jnp.asarray(log_probs).at[y].get(mode="fill", fill_value=jnp.nan)
