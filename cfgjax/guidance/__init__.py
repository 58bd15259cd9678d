"""Guidance: field in, field out.

(G1) classifier-free:  u_w = u_null + w (u_y - u_null);                 w = 0 null field, w = 1 labelled field.
(G2) classifier:       u_w = u_null + w b_t grad_x log p_t(y|x),        b_t = beta W / alpha.
(G3) Bayes' rule makes them one for exact fields:  b_t grad_x log p_t(y|x) = u_y - u_null.

Guidance is built of three kinds of parts, and the order in which they are called is the order in which they act:

    field(s) -> Pair            ``pair``, ``against``, ``classifier_pair``: the two sides, evaluated together
    Pair -> Pair                ``zero_star``, ``tangential``, ``projected``: another null side; never the labelled one
    Pair, scale -> field        ``extrapolate`` (G1), ``rescaled``
    field -> field              ``clipped``, ``dynamically_clipped``, ``zero_before``

So w = 1 is the labelled side for every rule on pairs, whatever is stacked. ``classifier_free``, ``classifier`` and
``autoguidance`` are the usual two parts in one call. Every number (scale, bound, amount) may be traced and
differentiated; of a scale known as 1 or 0 one side alone is evaluated. A scale is a number, a function of t or (t, y),
a ``policy`` of the state and both sides, or an ``interval`` of these. Papers that write (1 + s) for the scale mean
w = 1 + s: ``one_plus``.

Source: MIT 6.S184, lecture 4 and notes (arXiv 2506.02070v3), section 5; Ho & Salimans, arXiv 2207.12598;
Dhariwal & Nichol, arXiv 2105.05233; each further rule names its own.
"""

from __future__ import annotations

from cfgjax.guidance.labels import between_labels, drop_label, given, weighted
from cfgjax.guidance.momentum import adaptive_projected
from cfgjax.guidance.pairs import (
    against,
    autoguidance,
    classifier,
    classifier_free,
    classifier_pair,
    extrapolate,
    interpolate,
    pair,
)
from cfgjax.guidance.schedules import interval, one_plus, policy, scale_at
from cfgjax.guidance.thresholding import clipped, dynamically_clipped, zero_before
from cfgjax.guidance.variants import projected, rescaled, tangential, zero_star

__all__ = [
    "adaptive_projected",
    "against",
    "autoguidance",
    "between_labels",
    "classifier",
    "classifier_free",
    "classifier_pair",
    "clipped",
    "drop_label",
    "dynamically_clipped",
    "extrapolate",
    "given",
    "interpolate",
    "interval",
    "one_plus",
    "pair",
    "policy",
    "projected",
    "rescaled",
    "scale_at",
    "tangential",
    "weighted",
    "zero_before",
    "zero_star",
]
