"""What guidance does inside a solve, seen by ``observe``: how far apart its two sides are, and where it saturates.

(N1) |u_y - u_null|, and the cosine of the angle between u_y and u_null.
(N2) s = <u_y, u_null> / |u_null|^2, by which CFG-Zero* multiplies the null field.
(N3) the divergence of the guided field, by Hutchinson's estimate with one probe for the whole solve.
(N4) the share of the guided denoiser's values outside [-bound, bound], where data are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.analysis.likelihood import estimated_divergence
from cfgjax.checks import is_traced
from cfgjax.conditions import as_condition
from cfgjax.contracts import AnyCondition, GuidanceScale, Key, Positive, PositiveInt, RealArray, checked
from cfgjax.conversions import from_field
from cfgjax.types import Array, GaussianPath, Pair


class Diagnostics(NamedTuple):
    """Numbers about guidance at one state and time, each []: (N1) to (N4)."""

    distance: Array
    cosine: Array
    cfg_zero_star: Array
    divergence: Array
    saturation: Array


def _divide(numerator: Array, denominator: Array) -> Array:
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 1)


@checked
def diagnostics(
    path: GaussianPath, pair: Pair, key: Key, scale: GuidanceScale, y: AnyCondition, bound: Positive = 1.0
) -> Callable[[Any, Array], Diagnostics]:
    """A function (carry, t) -> Diagnostics for ``observe`` of ``solvers.integrate``.

    It evaluates the pair twice more at each time, and once backwards: for looking, not for drawing many samples.

    Args:
        path: the path of the fields.
        pair: the null and the labelled vector field.
        key: a key of the divergence's probe.
        scale: w of the guided field that (N3) and (N4) speak of.
        y: the condition.
        bound: [], the largest absolute value of data.
    """
    guided = guidance.given(guidance.extrapolate(pair, scale), y)
    divergence = estimated_divergence(guided, key)

    def observe(carry: Any, t: Array) -> Diagnostics:
        x = carry.x
        null, labelled = pair.both(x, t, as_condition(y))
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


@checked
def by_label(seen: Diagnostics, labels: RealArray, num_classes: PositiveInt) -> Diagnostics:
    """The mean of each number over the samples of each label, [K, n + 1]; NaN for a label without samples.

    Args:
        seen: observations of many samples, each [samples, n + 1].
        labels: [samples], in 0..K-1.
        num_classes: K.

    Raises:
        ValueError: labels that are not [samples], of integer type and in 0..K-1, observations of another number of
            samples.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer) or jnp.ndim(labels) != 1:
        raise ValueError(f"labels must be [samples] of integer type, got {labels.dtype} {jnp.shape(labels)}")
    if not is_traced(labels) and labels.size and not (np.min(labels) >= 0 and np.max(labels) < num_classes):
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {np.min(labels)} to {np.max(labels)}")
    for values in jax.tree.leaves(seen):
        if jnp.shape(values)[:1] != jnp.shape(labels):
            raise ValueError(f"seen must be [samples, ...] for labels {jnp.shape(labels)}, got {jnp.shape(values)}")

    def mean(values: Array) -> Array:
        total = jax.ops.segment_sum(values, labels, num_classes)
        count = jax.ops.segment_sum(jnp.ones_like(values), labels, num_classes)
        return total / count

    return jax.tree.map(mean, seen)
