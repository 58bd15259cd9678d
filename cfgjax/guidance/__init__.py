"""Guidance: field in, field out.

(G1) classifier-free:  u_w = u_null + w (u_y - u_null);                 w = 0 null field, w = 1 labelled field.
(G2) classifier:       u_w = u_null + w b_t grad_x log p_t(y|x),        b_t = beta W / alpha.
(G3) Bayes' rule makes them one for exact fields:  b_t grad_x log p_t(y|x) = u_y - u_null.

Guidance is built of three kinds of parts, and the order in which they are called is the order in which they act:

    field(s) -> Pair            ``pair``, ``autoguidance_pair``, ``classifier_pair``, ``pair_of_sides``: the two sides,
                                evaluated together
    Pair -> Pair                ``cfg_zero_star``, ``tangential_damping``, ``projected``: another null side alone
    Pair, scale -> field        ``extrapolate`` (G1), ``rescaled``
    field -> field              ``static_threshold``, ``dynamic_threshold``, ``zero_init``

A field that was trained with guidance inside, u(x, t, y, w), takes the place of the first three: ``at_scale`` fixes w,
and ``within`` refuses those that it was not trained on.

So w = 1 is the labelled side for every rule on pairs, whatever is stacked. ``classifier_free``, ``classifier`` and
``autoguidance`` are the usual two parts in one call. y is a label, or any tree of arrays; what takes its place on the
null side is one ``Null`` for training and sampling (``cfgjax.conditions``). Of several conditions at once each has a
scale of its own by ``classifier_free_chain`` and ``classifier_free_product``.

``RULES`` is the table of all published rules here, each with its paper, space, cost and neutral setting.

Every number (scale, bound, phi) may be traced and differentiated; of a scale known as 1 or 0 one side alone is
evaluated. A scale is a number, a function of t or (t, y), a ``policy`` of the state and both sides, or an ``interval``
of these. Papers that write (1 + s) for the scale mean w = 1 + s: ``from_zero_based_scale``.

Source: MIT 6.S184, lecture 4 and notes (arXiv 2506.02070v3), section 5; Ho & Salimans, arXiv 2207.12598;
Dhariwal & Nichol, arXiv 2105.05233; each further rule names its own.
"""

from __future__ import annotations

from cfgjax.guidance import filters as filters
from cfgjax.guidance.composition import classifier_free_chain as classifier_free_chain
from cfgjax.guidance.composition import classifier_free_product as classifier_free_product
from cfgjax.guidance.composition import compose as compose
from cfgjax.guidance.composition import interpolate_conditions as interpolate_conditions
from cfgjax.guidance.distilled import at_scale as at_scale
from cfgjax.guidance.distilled import within as within
from cfgjax.guidance.dropping import drop_condition as drop_condition
from cfgjax.guidance.dropping import given as given
from cfgjax.guidance.momentum import adaptive_projected as adaptive_projected
from cfgjax.guidance.momentum import adaptive_projected_mix as adaptive_projected_mix
from cfgjax.guidance.pairs import autoguidance as autoguidance
from cfgjax.guidance.pairs import autoguidance_pair as autoguidance_pair
from cfgjax.guidance.pairs import classifier as classifier
from cfgjax.guidance.pairs import classifier_free as classifier_free
from cfgjax.guidance.pairs import classifier_pair as classifier_pair
from cfgjax.guidance.pairs import extrapolate as extrapolate
from cfgjax.guidance.pairs import interpolate as interpolate
from cfgjax.guidance.pairs import pair as pair
from cfgjax.guidance.reuse import Differences as Differences
from cfgjax.guidance.reuse import reuse_every as reuse_every
from cfgjax.guidance.reuse import reused as reused
from cfgjax.guidance.rules import RULES as RULES
from cfgjax.guidance.rules import GuidanceRule as GuidanceRule
from cfgjax.guidance.schedules import beta_scale as beta_scale
from cfgjax.guidance.schedules import exponential_scale as exponential_scale
from cfgjax.guidance.schedules import from_zero_based_scale as from_zero_based_scale
from cfgjax.guidance.schedules import gap_policy as gap_policy
from cfgjax.guidance.schedules import interval as interval
from cfgjax.guidance.schedules import policy as policy
from cfgjax.guidance.schedules import scale_at as scale_at
from cfgjax.guidance.stages import stages as stages
from cfgjax.guidance.thresholding import dynamic_threshold as dynamic_threshold
from cfgjax.guidance.thresholding import static_threshold as static_threshold
from cfgjax.guidance.thresholding import zero_init as zero_init
from cfgjax.guidance.variants import cfg_zero_star as cfg_zero_star
from cfgjax.guidance.variants import frequency_decoupled as frequency_decoupled
from cfgjax.guidance.variants import magnitude_aware as magnitude_aware
from cfgjax.guidance.variants import projected as projected
from cfgjax.guidance.variants import rescaled as rescaled
from cfgjax.guidance.variants import tangential_damping as tangential_damping
from cfgjax.guidance.weakened import pair_of_sides as pair_of_sides
from cfgjax.guidance.weakened import weakened as weakened
