"""What guidance does inside a solve, seen by ``observe``: how far apart its two sides are, and where it saturates.

(N1) |u_y - u_null|, and the cosine of the angle between u_y and u_null.
(N2) s = <u_y, u_null> / |u_null|^2, by which CFG-Zero* multiplies the null field.
(N3) the divergence of the guided field, by Hutchinson's estimate with one probe for the whole solve.
(N4) the share of the guided denoiser's values outside [-bound, bound], where data are not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cfgjax import guidance
from cfgjax.checks import require_pair
from cfgjax.conversions import from_field
from cfgjax.likelihood import estimated_divergence
from cfgjax.types import Array, GaussianPath, Number, Pair, Scale


class Diagnostics(NamedTuple):
    """Numbers about guidance at one state and time, each []: (N1) to (N4)."""

    distance: Array
    cosine: Array
    zero_star: Array
    divergence: Array
    saturation: Array


def _divide(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 1)


def diagnostics(
    path: GaussianPath, pair: Pair, scale: Scale, y: Number, key: Array, bound: Number = 1.0
) -> Callable[[Any, Array], Diagnostics]:
    """A function (carry, t) -> Diagnostics for ``observe`` of ``solvers.integrate``.

    It evaluates the pair twice more at each time, and once backwards: for looking, not for drawing many samples.

    Args:
        path: the path of the fields.
        pair: the null and the labelled vector field.
        scale: w of the guided field that (N3) and (N4) speak of.
        y: [], the label.
        key: a key of the divergence's probe.
        bound: [], the largest absolute value of data.
    """
    require_pair(pair)
    guided = guidance.given(guidance.extrapolate(pair, scale), y)
    divergence = estimated_divergence(guided, key)

    def observe(carry: Any, t: Array) -> Diagnostics:
        x = carry.x
        null, labelled = pair.both(x, t, jnp.asarray(y))
        value, slope = divergence(x, t)
        inner, square = jnp.sum(null * labelled), jnp.sum(jnp.square(null))
        sizes = jnp.sqrt(square * jnp.sum(jnp.square(labelled)))
        denoiser = from_field(path, value, x, t).denoiser
        return Diagnostics(
            jnp.linalg.norm((labelled - null).reshape(-1)),
            _divide(inner, sizes),
            _divide(inner, square),
            slope,
            jnp.mean(jnp.abs(denoiser) > bound),
        )

    return observe


def by_label(seen: Diagnostics, labels: Array, num_labels: int) -> Diagnostics:
    """The mean of each number over the samples of each label, [K, n + 1]; NaN for a label without samples.

    Args:
        seen: observations of many samples, each [samples, n + 1].
        labels: [samples], in 0..K-1.
        num_labels: K.
    """

    def mean(values: Array) -> Array:
        total = jax.ops.segment_sum(values, labels, num_labels)
        count = jax.ops.segment_sum(jnp.ones_like(values), labels, num_labels)
        return total / count

    return jax.tree.map(mean, seen)
