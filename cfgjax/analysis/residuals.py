"""How far a learned field is from the exact one, and from the classifier beside it.

(R1) b_t grad log p_t(y|x) = u_y - u_null        what classifier and classifier-free guidance add, for exact ones
(R2) u_null = sum_y p_t(y|x) u_y                 the null field is the labelled fields' mean under the posterior
(R3) E |u_w - u_w*|^2 = w^2 E_y + (w - 1)^2 E_null    for errors of both sides that do not go together
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.checks import is_traced, require_shape
from cfgjax.conditions import as_condition, null_for
from cfgjax.contracts import (
    AnyCondition,
    AnyNull,
    Finite,
    LabelledStateField,
    Positive,
    PositiveInt,
    RealArray,
    checked,
)
from cfgjax.types import Array, Field, GaussianPath, LogClassifier, LogLikelihood

_LABELS = 16
"""Labels whose fields are evaluated at a time, to bound the memory."""


@checked
def relative_error(learned: RealArray, exact: RealArray) -> Array:
    """The relative L2 error sqrt(E|u - u*|^2 / E|u*|^2) over the first axis, [].

    Args:
        learned: [n, *D], u at n states drawn from p_t.
        exact: [n, *D], u* at the same states.

    Raises:
        ValueError: no states, two sets that are not alike; where concrete, an exact field that is 0 at all of them.
            Traced, the error relative to 0 is infinite or NaN.
    """
    require_shape("exact", exact, jnp.shape(learned))
    if jnp.size(learned) == 0:
        raise ValueError(f"learned must hold at least one state, got the shape {jnp.shape(learned)}")
    if not is_traced(exact) and not np.any(np.asarray(exact)):
        raise ValueError("exact must not be 0 at every state: no error is relative to it")
    return jnp.sqrt(jnp.sum(jnp.square(learned - exact)) / jnp.sum(jnp.square(exact)))


@checked
def guidance_terms(
    path: GaussianPath,
    field: LabelledStateField,
    log_classifier: LogClassifier | LogLikelihood,
    x: Array,
    t: Array,
    y: AnyCondition,
    null: AnyNull,
) -> tuple[Array, Array]:
    """Both sides of (R1) at one state: (b_t grad log p_t(y|x), u_y - u_null), each [*D].

    Where they differ, the classifier, or the labelled or null field, is not trained well enough at this t.

    Args:
        path: the path of both.
        field: a labelled field that knows the null.
        log_classifier: log p_t(y|x), for all labels or of any condition, as for ``guidance.classifier``.
        x: [*D].
        t: [], before ``start`` of ``guidance.classifier`` the classifier's side is held.
        y: the condition.
        null: K, or of other conditions as for ``guidance.pair``.
    """
    y, absent = as_condition(y), null_for(null, y)

    def null_field(x: Array, t: Array) -> Array:
        return field(x, t, absent)

    by_classifier = guidance.classifier(path, null_field, log_classifier, 1.0)(x, t, y) - null_field(x, t)
    return by_classifier, field(x, t, y) - null_field(x, t)


@checked
def balanced_drop_rate(scale: Finite, ratio: Positive = 1.0) -> Array:
    """The share p of dropped conditions for which the error (R3) of the guided field is least, [].

    With E_y = a / (1 - p) and E_null = r a / p, as of errors whose squares fall with the examples that a side is
    trained on, it is p = s / (1 + s) with s = sqrt(r) |w - 1| / |w|: 0 at w = 1, 1/3 at w = 2, and under 1/2 for every
    w > 1 at r = 1. At w = 0, the null field alone, it is 1.

    Args:
        scale: [], w.
        ratio: [], r, how much larger the square of the null side's error is at as many examples. Both sides share a
            network, so that the law of 1 / examples is an assumption: measure r where the fields are known. Of a small
            MLP on a ring it is 1.8 to 4, and the null side's error falls more slowly than 1 / p: the least is flat.

    >>> round(float(balanced_drop_rate(2.0)), 3)
    0.333
    """
    null = jnp.sqrt(jnp.asarray(ratio)) * jnp.abs(jnp.asarray(scale) - 1)
    return null / (null + jnp.abs(jnp.asarray(scale)))


@checked
def posterior_mean_field(field: LabelledStateField, log_classifier: LogClassifier, num_classes: PositiveInt) -> Field:
    """The right side of (R2), sum over y of p_t(y|x) u_y, as a Field.

    Raises:
        TypeError, ValueError: at a call, a classifier that does not give [num_classes].
    """

    def mean(x: Array, t: Array) -> Array:
        log_probs = log_classifier(x, t)
        require_shape("log_classifier", log_probs, (num_classes,), "give")
        values = jax.lax.map(lambda y: field(x, t, y), jnp.arange(num_classes), batch_size=min(num_classes, _LABELS))
        return jnp.tensordot(jnp.exp(log_probs), values, axes=1, precision=jax.lax.Precision.HIGHEST)

    return mean
