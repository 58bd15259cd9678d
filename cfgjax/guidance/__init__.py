"""Guidance: field in, field out.

(G1) classifier-free:  u_w = u_null + w (u_y - u_null);                 w = 0 null field, w = 1 labelled field.
(G2) classifier:       u_w = u_null + w b_t grad_x log p_t(y|x),        b_t = beta W / alpha.
(G3) Bayes' rule makes them one for exact fields:  b_t grad_x log p_t(y|x) = u_y - u_null.

Guidance is built of three kinds of parts, and the order in which they are called is the order in which they act:

    field(s) -> Pair            ``pair``, ``autoguidance_pair``, ``classifier_pair``: the two sides, evaluated together
    Pair -> Pair                ``cfg_zero_star``, ``tangential_damping``, ``projected``: another null side alone
    Pair, scale -> field        ``extrapolate`` (G1), ``rescaled``
    field -> field              ``static_threshold``, ``dynamic_threshold``, ``zero_init``

So w = 1 is the labelled side for every rule on pairs, whatever is stacked. ``classifier_free``, ``classifier`` and
``autoguidance`` are the usual two parts in one call. Every number (scale, bound, amount) may be traced and
differentiated; of a scale known as 1 or 0 one side alone is evaluated. A scale is a number, a function of t or (t, y),
a ``policy`` of the state and both sides, or an ``interval`` of these. Papers that write (1 + s) for the scale mean
w = 1 + s: ``from_zero_based_scale``.

Source: MIT 6.S184, lecture 4 and notes (arXiv 2506.02070v3), section 5; Ho & Salimans, arXiv 2207.12598;
Dhariwal & Nichol, arXiv 2105.05233; each further rule names its own.
"""

from __future__ import annotations

from cfgjax.guidance.labels import compose, drop_label, given, interpolate_labels
from cfgjax.guidance.momentum import adaptive_projected
from cfgjax.guidance.pairs import (
    autoguidance,
    autoguidance_pair,
    classifier,
    classifier_free,
    classifier_pair,
    extrapolate,
    interpolate,
    pair,
)
from cfgjax.guidance.schedules import from_zero_based_scale, interval, policy, scale_at
from cfgjax.guidance.thresholding import dynamic_threshold, static_threshold, zero_init
from cfgjax.guidance.variants import cfg_zero_star, projected, rescaled, tangential_damping

__all__ = [
    "adaptive_projected",
    "autoguidance",
    "autoguidance_pair",
    "cfg_zero_star",
    "classifier",
    "classifier_free",
    "classifier_pair",
    "compose",
    "drop_label",
    "dynamic_threshold",
    "extrapolate",
    "from_zero_based_scale",
    "given",
    "interpolate",
    "interpolate_labels",
    "interval",
    "pair",
    "policy",
    "projected",
    "rescaled",
    "scale_at",
    "static_threshold",
    "tangential_damping",
    "zero_init",
]
