"""The two sides of guidance, and extrapolation between them: (G1) and (G2) of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp

from cfgjax.checks import (
    is_known_as,
    is_traced,
    require_condition,
    require_label,
    require_like,
    require_point,
    require_rank,
    require_scalar,
    takes_condition,
)
from cfgjax.conditions import as_condition, null_for
from cfgjax.contracts import (
    AnyNull,
    Finite,
    GuidanceScale,
    InnerTime,
    LabelledStateField,
    RealArray,
    StateField,
    checked,
)
from cfgjax.guidance.schedules import in_pieces, scale_at
from cfgjax.paths import as_state, as_time, before_end, coefficients
from cfgjax.piecewise import piecewise
from cfgjax.types import (
    Array,
    Condition,
    Field,
    GaussianPath,
    Interval,
    LabelledField,
    LogClassifier,
    LogLikelihood,
    Null,
    Number,
    Pair,
    Scale,
)


@checked
def interpolate(null: RealArray, labelled: RealArray, scale: Finite) -> Array:
    """null + w (labelled - null) with w = ``scale``, from the nearer end: exact at w = 0 and at w = 1.

    Args:
        null: [*D], the value at w = 0.
        labelled: [*D], the value at w = 1.
        scale: [], the guidance scale w.

    Raises:
        ValueError: values that are not alike.

    >>> float(interpolate(jnp.float32(1e8), jnp.float32(1.0), 1.0))
    1.0
    """
    null, labelled, scale = (jnp.asarray(value) for value in (null, labelled, scale))
    difference = require_like("labelled", labelled, null) - null
    return jnp.where(scale <= 0.5, null + scale * difference, labelled + (scale - 1) * difference)


def at_each(field: LabelledField, x: Array, t: Array, conditions: Sequence[Condition]) -> Array:
    """The field's values at several conditions that are alike, [n, *D], from ONE call."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *conditions)
    return jax.vmap(field, in_axes=(None, None, 0))(x, t, stacked)


@piecewise
@checked
def pair(field: LabelledStateField, null: AnyNull) -> Pair:
    """The pair of a field at the null and at y, evaluated in ONE call of ``field`` on both.

    Args:
        field: a vector field, score, noise prediction or denoiser that knows the null.
        null: what takes y's place (Y1 of ``conditions``): by convention the number of labels K; a condition to lead
            away from ("negative") does as well. A function of y keeps some conditions: ``conditions.without``.

    Raises:
        TypeError, ValueError: at a call, a null that is not like y, or a label that y's type cannot hold.
    """

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        require_point(x, t)
        values = at_each(field, x, t, [null_for(null, y), as_condition(y)])
        return values[0], values[1]

    def at_null(x: Array, t: Array, y: Condition) -> Array:
        return field(x, t, null_for(null, y))

    def labelled(x: Array, t: Array, y: Condition) -> Array:
        null_for(null, y)
        return field(x, t, as_condition(y))

    return Pair(both, labelled, at_null)


@piecewise
@checked
def autoguidance_pair(field: LabelledStateField, weak_field: LabelledStateField) -> Pair:
    """The pair of a field and a weaker one, both at y: of a smaller network, one trained less, or one with dropout.

    Source: Karras et al., arXiv 2406.02507.
    """

    def labelled(x: Array, t: Array, y: Condition) -> Array:
        return field(x, t, as_condition(y))

    def null(x: Array, t: Array, y: Condition) -> Array:
        return weak_field(x, t, as_condition(y))

    return Pair(lambda x, t, y: (null(x, t, y), labelled(x, t, y)), labelled, null)


def _log_prob_of(log_classifier: LogClassifier | LogLikelihood, x: Array, t: Array, y: Condition) -> Array:
    """log p_t(y|x) by either kind of classifier, []; 0 for the null label."""
    if takes_condition(log_classifier):
        value = cast(LogLikelihood, log_classifier)(x, t, y)
        require_scalar("log_classifier", value)
        return jnp.asarray(value)
    log_probs = cast(LogClassifier, log_classifier)(x, t)
    require_rank("log_classifier", log_probs, 1)
    require_label("y", y, log_probs.shape[0])
    return jnp.asarray(log_probs).at[y].get(mode="fill", fill_value=0.0)


@piecewise
@checked
def classifier_pair(
    path: GaussianPath,
    null_field: StateField,
    log_classifier: LogClassifier | LogLikelihood,
    start: InnerTime = 0.01,
) -> Pair:
    """The pair of the null field and u_null + b_t grad_x log p_t(y|x) of (G2); arguments as for ``classifier``.

    At the null label both sides are the null field.

    Raises:
        TypeError, ValueError: at a call, a classifier of (x, t) that does not give [K], or of (x, t, y) that does not
            give one number; a y outside 0..K.
    """

    def both(x: Array, t: Array, y: Condition) -> tuple[Array, Array]:
        x, y = as_state(x), as_condition(y)
        held = before_end(jnp.maximum(as_time(t), start))
        c = coefficients(path, held)
        gradient = jax.grad(lambda x: _log_prob_of(log_classifier, x, held, y))(x)
        null = null_field(x, t)
        return null, null + c.beta * c.wronskian / c.alpha * gradient

    def null(x: Array, t: Array, y: Condition) -> Array:
        if takes_condition(log_classifier):
            require_condition("y", y)
        else:
            require_label("y", y)
        return null_field(as_state(x), t)

    return Pair(both, lambda x, t, y: both(x, t, y)[1], null)


def alone(pair: Pair, scale: Scale) -> LabelledField | None:
    """The side that a scale known as 1 or 0 asks for, without the other; None for other scales, and where it has none.

    An interval of the scale 1 is such a scale, whatever its edges.
    """
    number = scale.scale if isinstance(scale, Interval) else scale
    side = pair.labelled if is_known_as(number, 1) else pair.null if is_known_as(scale, 0) else None
    if side is None:
        return None

    def of_both(x: Array, t: Array, y: Condition) -> Array:
        value = jnp.asarray(side(x, t, y))
        return value.astype(jnp.result_type(value, number))

    return of_both


@piecewise
@checked
def extrapolate(pair: Pair, scale: GuidanceScale) -> LabelledField:
    """The guided field null + w (labelled - null) of (G1) for a pair.

    The rule commutes with the conversions between field, score, noise prediction and denoiser, so it may act in any.

    Args:
        pair: the two sides.
        scale: w: a number, a traced scalar, a function of t or (t, y), a ``policy``, or an ``interval``. No value of
            a traced one compiles anything anew; a 1 or 0 that is known, because it is not traced, is structure.

    Returns:
        A LabelledField: at w = 1 the labelled side and at w = 0 the null side, exactly. A known 1 or 0 evaluates that
        side alone; elsewhere they come out of the one evaluation of both. With an ``interval`` between numbers, a
        ``Piecewise`` of such fields.
    """
    if isinstance(scale, Interval) and not is_traced(scale[1:]):
        return inside(pair, scale, extrapolate)
    side = alone(pair, scale)
    if side is not None:
        return side

    def guided(x: Array, t: Array, y: Condition) -> Array:
        null, labelled = pair.both(x, t, y)
        return interpolate(null, labelled, scale_at(scale, t, y, (x, null, labelled)))

    return guided


def inside(pair: Pair, scale: Interval, build: Callable[[Pair, Scale], LabelledField]) -> LabelledField:
    """The field ``build(pair, inner scale)`` inside the interval, and the labelled field alone before and after it."""
    return in_pieces(scale, build(pair, scale.scale), pair.labelled)


def classifier_free(field: LabelledField, scale: Scale, null: Null) -> LabelledField:
    """The classifier-free guided field u_null + w (u_y - u_null) of (G1), from ONE call of ``field`` on null and y.

    Args:
        field: a vector field, score, noise prediction or denoiser that knows the null; the rule commutes with the
            conversions between them.
        scale: w: a number, a traced scalar, a function of t or (t, y), a ``policy``, or an ``interval``. No value of
            a traced one compiles anything anew; a 1 or 0 that is known, because it is not traced, is structure.
        null: of the null field, as for ``pair``: by convention the number of labels K, for other conditions one like
            y, or a function of y.

    Returns:
        A field of the same signature: at w = 1 it is ``field`` at y and at w = 0 ``field`` at the null, exactly. Where
        w is known as 1 or 0 ``field`` is called on that one alone, one evaluation; elsewhere they come out of the call
        on both. (A network's matrix products may round otherwise in the one than in the other.)
    """
    return extrapolate(pair(field, null), scale)


def autoguidance(field: LabelledField, weak_field: LabelledField, scale: Scale) -> LabelledField:
    """The field u_weak + w (u - u_weak), both at y, of a field and a weaker one.

    w = 1 is ``field`` exactly. Unlike classifier-free guidance it leads away from the errors that both share, not from
    the other labels; an exact field is its own weaker one, and unchanged by any w.

    Source: Karras et al., arXiv 2406.02507.
    """
    return extrapolate(autoguidance_pair(field, weak_field), scale)


def classifier(
    path: GaussianPath,
    null_field: Field,
    log_classifier: LogClassifier | LogLikelihood,
    scale: Scale,
    start: Number = 0.01,
) -> LabelledField:
    """The classifier-guided field u_null + w b_t grad_x log p_t(y|x) of (G2).

    Singular at t = 0, where b_t is infinite. The exact gradient is O(alpha_t) and the product finite, but a learned
    classifier's is not: so classifier and b are evaluated at max(t, ``start``), which bounds b and keeps the limit of
    the exact product to O(start).

    Args:
        path: the path of both.
        null_field: the vector field without a label.
        log_classifier: (x, t) -> log p_t(y|x) for all labels; or, of any condition, (x, t, y) -> log p_t(y|x).
        scale: w: a number, a traced scalar, a function of t or (t, y), a ``policy``, or an ``interval``.
        start: [], the time before which the classifier's term is held; the default bounds b by 99 on the linear path.

    Returns:
        A LabelledField; for exact inputs it equals ``classifier_free`` at t >= ``start`` (G3). At the null label it
        is the null field.
    """
    return extrapolate(classifier_pair(path, null_field, log_classifier, start), scale)
