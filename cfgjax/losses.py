"""Losses of ONE example, each with its minimiser.

(L1) flow matching:    |u(x, t, y) - (alpha' z + beta' noise)|^2 / D   minimised by the field u_t(x|y)
(L2) noise matching:   |E(x, t, y) - noise|^2 / D                      minimised by E[noise | x, y]
(L3) score matching:   beta^2 |s(x, t, y) + noise / beta|^2 / D        minimised by the score; never divides by beta
(L4) noisy classifier: -log p(y | x, t)                                minimised by the posterior p_t(y|x)

with x = alpha z + beta noise, |.|^2 the squared norm and D the number of coordinates of z.
Classifier-free training is (L1) with ``guidance.drop_label`` on y.
Source: MIT 6.S184 notes (arXiv 2506.02070), algorithms 3, 4 and 8; Lipman et al., arXiv 2210.02747.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cfgjax.checks import is_traced, require_between, require_like
from cfgjax.paths import coefficients, sample
from cfgjax.types import Array, GaussianPath, LogClassifier, Number, PathSample, Schedule, TimeDensity


def uniform(start: Number = 0.0, stop: Number = 1.0) -> TimeDensity:
    """The uniform density of t on [start, stop)."""
    require_between("start", start, 0.0, 1.0)
    require_between("stop", stop, 0.0, 1.0)
    if not is_traced((start, stop)) and start >= stop:
        raise ValueError(f"start must be under stop, got {start} and {stop}")
    return lambda key: jax.random.uniform(key, minval=start, maxval=stop)


def logit_normal(location: Number = 0.0, spread: Number = 1.0) -> TimeDensity:
    """The density of t = sigmoid(location + spread * normal), on (0, 1).

    Source: Esser et al., arXiv 2403.03206, section 3.1.
    """
    require_between("spread", spread, 0.0, jnp.inf)
    return lambda key: jax.nn.sigmoid(location + spread * jax.random.normal(key))


def flat(t: Array) -> Array:
    """The weight 1 at every time, []."""
    return jnp.ones_like(t)


def _draw(path: GaussianPath, key: Array, z: Array, density: TimeDensity) -> tuple[Array, PathSample]:
    time_key, noise_key = jax.random.split(key)
    t = density(time_key)
    return t, sample(path, noise_key, z, t)


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
        ValueError: a field whose value has not the shape of z.
    """
    t, drawn = _draw(path, key, z, time_density)
    return weight(t) * jnp.mean(jnp.square(require_like("field", field(drawn.x, t, *y), z) - drawn.field))


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
    return weight(t) * jnp.mean(jnp.square(require_like("noise", noise(drawn.x, t, *y), z) - drawn.noise))


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
    return weight(t) * jnp.mean(jnp.square(beta * require_like("score", score(drawn.x, t, *y), z) + drawn.noise))


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
        ValueError: a concrete label outside 0..K-1.
    """
    t, drawn = _draw(path, key, z, time_density)
    log_probs = log_classifier(drawn.x, t)
    require_between("y", y, 0, log_probs.shape[0] - 1)
    return -log_probs.at[y].get(mode="fill", fill_value=jnp.nan)
