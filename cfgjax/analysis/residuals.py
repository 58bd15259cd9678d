"""How far a learned field is from the exact one, and from the classifier beside it.

(R1) b_t grad log p_t(y|x) = u_y - u_null        what classifier and classifier-free guidance add, for exact ones
(R2) u_null = sum_y p_t(y|x) u_y                 the null field is the labelled fields' mean under the posterior
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance
from cfgjax.checks import (
    is_traced,
    output_like_x,
    require_count,
    require_function,
    require_label,
    require_real,
    require_shape,
)
from cfgjax.types import Array, Field, GaussianPath, LabelledField, LogClassifier

_LABELS = 16
"""Labels whose fields are evaluated at a time, to bound the memory."""


def relative_error(learned: Array, exact: Array) -> Array:
    """The relative L2 error sqrt(E|u - u*|^2 / E|u*|^2) over the first axis, [].

    Args:
        learned: [n, *D], u at n states drawn from p_t.
        exact: [n, *D], u* at the same states.

    Raises:
        TypeError, ValueError: no states, two sets that are not alike, numbers that are not real; where concrete, an
            exact field that is 0 at all of them. Traced, the error relative to 0 is infinite or NaN.
    """
    require_real("learned", learned)
    require_shape("exact", exact, jnp.shape(learned))
    if jnp.size(learned) == 0:
        raise ValueError(f"learned must hold at least one state, got the shape {jnp.shape(learned)}")
    if not is_traced(exact) and not np.any(np.asarray(exact)):
        raise ValueError("exact must not be 0 at every state: no error is relative to it")
    return jnp.sqrt(jnp.sum(jnp.square(learned - exact)) / jnp.sum(jnp.square(exact)))


def guidance_terms(
    field: LabelledField,
    log_classifier: LogClassifier,
    path: GaussianPath,
    null_label: int,
    x: Array,
    t: Array,
    y: Array,
) -> tuple[Array, Array]:
    """Both sides of (R1) at one state: (b_t grad log p_t(y|x), u_y - u_null), each [*D].

    Where they differ, the classifier, or the labelled or null field, is not trained well enough at this t.

    Args:
        field: a labelled field that knows the null label.
        log_classifier: log p_t(y|x) for all labels.
        path: the path of both.
        null_label: K.
        x: [*D].
        t: [], before ``start`` of ``guidance.classifier`` the classifier's side is held.
        y: [], the label.

    Raises:
        TypeError, ValueError: no functions, path or labels; values that are not like x; a t outside [0, 1].
    """
    require_label("null_label", null_label)
    require_label("y", y)
    checked = output_like_x("field", field)

    def null_field(x: Array, t: Array) -> Array:
        return checked(x, t, jnp.asarray(null_label, jnp.result_type(y)))

    by_classifier = guidance.classifier(null_field, log_classifier, path, 1.0)(x, t, y) - null_field(x, t)
    return by_classifier, checked(x, t, y) - null_field(x, t)


def posterior_mean_field(field: LabelledField, log_classifier: LogClassifier, num_classes: int) -> Field:
    """The right side of (R2), sum over y of p_t(y|x) u_y, as a Field.

    Raises:
        TypeError, ValueError: no functions, a num_classes under 1; at a call, values that are not like x, a classifier
            that does not give [num_classes].
    """
    checked = output_like_x("field", field)
    require_function("log_classifier", log_classifier)
    require_count("num_classes", num_classes, 1)

    def mean(x: Array, t: Array) -> Array:
        log_probs = log_classifier(x, t)
        require_shape("log_classifier", log_probs, (num_classes,), "give")
        values = jax.lax.map(lambda y: checked(x, t, y), jnp.arange(num_classes), batch_size=min(num_classes, _LABELS))
        return jnp.tensordot(jnp.exp(log_probs), values, axes=1)

    return mean
