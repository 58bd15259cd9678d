"""Guidance: field in, field out.

(G1) classifier-free:  u_w = u_null + w (u_y - u_null);                 w = 0 null field, w = 1 labelled field.
(G2) classifier:       u_w = u_null + w b_t grad_x log p_t(y|x),        b_t = beta W / alpha.
(G3) Bayes' rule makes them one for exact fields:  b_t grad_x log p_t(y|x) = u_y - u_null.

Papers that write (1 + s) for the scale mean w = 1 + s.
Source: MIT 6.S184, lecture 4 and notes (arXiv 2506.02070), section 5; Ho & Salimans, arXiv 2207.12598;
Dhariwal & Nichol, arXiv 2105.05233.
"""

import jax
import jax.numpy as jnp

from cfgjax.checks import require_between, require_finite, require_like
from cfgjax.paths import as_time, before_end, coefficients
from cfgjax.types import Array, Field, GaussianPath, LabelledField, LogClassifier, Number, Scale


def scale_at(scale: Scale, t: Number) -> Array:
    """The guidance scale w at time t, []: the number itself, or the function's value."""
    return jnp.asarray(scale(as_time(t)) if callable(scale) else scale)


def interpolate(null: Array, labelled: Array, scale: Number) -> Array:
    """null + w (labelled - null) with w = ``scale``, from the nearer end: exact at w = 0 and at w = 1.

    Args:
        null: [*D], the value at w = 0.
        labelled: [*D], the value at w = 1.
        scale: [], the guidance scale w.

    >>> float(interpolate(jnp.float32(1e8), jnp.float32(1.0), 1.0))
    1.0
    """
    null, labelled, scale = (jnp.asarray(value) for value in (null, labelled, scale))
    difference = require_like("labelled", labelled, null) - null
    return jnp.where(scale <= 0.5, null + scale * difference, labelled + (scale - 1) * difference)


def classifier_free(field: LabelledField, scale: Scale, null_label: Number) -> LabelledField:
    """The classifier-free guided field u_null + w (u_y - u_null) of (G1), from ONE call of ``field`` on both labels.

    Args:
        field: a vector field, score, noise prediction or denoiser that knows the null label; the rule commutes with
            the conversions between them.
        scale: w, a number, a traced scalar, or a function of t; no value of it compiles anything anew.
        null_label: [], the label of the null field, by convention the number of labels K.

    Returns:
        A field of the same signature: at w = 1 it is ``field`` at y and at w = 0 ``field`` at the null label, as they
        come out of that one call, exactly. (A network's matrix products may round otherwise in a call on y alone.)

    Raises:
        ValueError: a concrete scale that is not finite.
    """
    if not callable(scale):
        require_finite("scale", scale)

    def guided(x: Array, t: Array, y: Array) -> Array:
        labels = jnp.stack([jnp.asarray(y), jnp.asarray(null_label, jnp.result_type(y))])
        labelled, null = jax.vmap(field, in_axes=(None, None, 0))(x, t, labels)
        return interpolate(null, labelled, scale_at(scale, t))

    return guided


def classifier(
    null_field: Field, log_classifier: LogClassifier, path: GaussianPath, scale: Scale, start: Number = 0.01
) -> LabelledField:
    """The classifier-guided field u_null + w b_t grad_x log p_t(y|x) of (G2).

    Singular at t = 0, where b_t is infinite. The exact gradient is O(alpha_t) and the product finite, but a learned
    classifier's is not: so classifier and b are evaluated at max(t, ``start``), which bounds b and keeps the limit of
    the exact product to O(start).

    Args:
        null_field: the vector field without a label.
        log_classifier: log p_t(y|x) for all labels.
        path: the path of both.
        scale: w, a number, a traced scalar, or a function of t.
        start: [], the time before which the classifier's term is held; the default bounds b by 99 on the linear path.

    Returns:
        A LabelledField; for exact inputs it equals ``classifier_free`` at t >= ``start`` (G3). At the null label it
        is the null field.

    Raises:
        ValueError: a concrete scale that is not finite, or a start outside (0, 1).
    """
    if not callable(scale):
        require_finite("scale", scale)
    require_between("start", start, float(jnp.finfo(jnp.float32).tiny), 1.0 - float(jnp.finfo(jnp.float32).epsneg))

    def guided(x: Array, t: Array, y: Array) -> Array:
        held = before_end(jnp.maximum(as_time(t), start))
        c = coefficients(path, held)

        def log_prob(x: Array) -> Array:
            return log_classifier(x, held).at[y].get(mode="fill", fill_value=0.0)

        gradient = jax.grad(log_prob)(x)
        slope = c.beta * c.wronskian / c.alpha
        return null_field(x, t) + scale_at(scale, t) * slope * gradient

    return guided


def given(field: LabelledField, y: Number) -> Field:
    """The field at a fixed label y, as a Field of (x, t)."""
    return lambda x, t: field(x, t, jnp.asarray(y))


def drop_label(key: Array, y: Number, rate: Number, null_label: Number) -> Array:
    """The label y, or the null label with probability ``rate`` (eta): one coin for ONE example.

    Raises:
        ValueError: a concrete rate outside [0, 1].
    """
    require_between("rate", rate, 0.0, 1.0)
    y = jnp.asarray(y)
    return jnp.where(jax.random.bernoulli(key, rate), jnp.asarray(null_label, y.dtype), y)
