"""Losses of ONE example, each with its minimiser.

(L1) flow matching:    |u(x, t, y) - (alpha' z + beta' noise)|^2 / D   minimised by the field u_t(x|y)
(L2) noise matching:   |E(x, t, y) - noise|^2 / D                      minimised by E[noise | x, y]
(L3) score matching:   beta^2 |s(x, t, y) + noise / beta|^2 / D        minimised by the score; never divides by beta
(L4) noisy classifier: -log p(y | x, t)                                minimised by the posterior p_t(y|x)
(L5) denoiser matching: |D(x, t, y) - z|^2 / D                         minimised by the denoiser E[z | x, y]
(L6) distilled guidance: |u(x, t, y, w) - sg[teacher_w(x, t, y)]|^2 / D  minimised by the teacher's guided field
(L7) model guidance:   |u - (w (1 - k) (alpha' z + beta' noise) + sg[k u + (1 - w (1 - k) - k) u_null])|^2 / D
                       at rest at u(x, t, y, w) = (1 - w) u_null + w u_y; k = kappa, by default 1 - 1/w
(L8) internal matching: (L1) of the final + share times (L1) of the internal prediction, of one draw
                       minimised by the field u_t(x|y) twice
(L9) self-consistency: mean |x' - x''|^b - 1/2 mean |x'_1 - x'_2|^b  of guided steps x' and noised z, x'', at t'; of a
                       scale w(t, t', y), with b = 2 least where the means of x' and x'' given z are nearest
(L10) annealed:        k |E_y - E_null|^2 / D after a step of CFG++ + (1 - k) |E_w - noise|^2 / D  of a scale
                       w(t, y, |E_y - E_null|); at k = 0 least at w = 1 for exact fields
(L11) null consistency: |u(x, t, null) - sg[u(x, t, y)]|^2 / D           minimised by sum over y of p_t(y|x) u(x, t, y)

with x = alpha z + beta noise, |.|^2 the squared norm, D the number of coordinates of z, and sg[...] a constant.
With ``field_weight`` (L5) is the distance of D and z in their fields, ``conversions.bounded_field_of_denoiser``:
Li & He's, arXiv 2511.13720, who predict the data with a loss on the velocity.
Classifier-free training is (L1) with ``guidance.drop_condition`` on y. (L6) and (L7) train guidance into the field, so
that sampling at any w costs one evaluation; the scale w and its interval are drawn by a density, as the time is.
(L8) trains the two sides of internal guidance, which one evaluation gives.
Source: MIT 6.S184 notes (arXiv 2506.02070v3), algorithms 3, 4 and 5; Lipman et al., arXiv 2210.02747.
"""

from __future__ import annotations

from cfgjax.losses.consistency import null_consistency as null_consistency
from cfgjax.losses.densities import field_weight as field_weight
from cfgjax.losses.densities import flat as flat
from cfgjax.losses.densities import logit_normal as logit_normal
from cfgjax.losses.densities import power_scale as power_scale
from cfgjax.losses.densities import scale_interval as scale_interval
from cfgjax.losses.densities import times_apart as times_apart
from cfgjax.losses.densities import uniform as uniform
from cfgjax.losses.densities import uniform_scale as uniform_scale
from cfgjax.losses.guided import distilled_guidance as distilled_guidance
from cfgjax.losses.guided import model_guidance as model_guidance
from cfgjax.losses.internal import internal_matching as internal_matching
from cfgjax.losses.matching import DataPoint as DataPoint
from cfgjax.losses.matching import LearnedField as LearnedField
from cfgjax.losses.matching import classifier_cross_entropy as classifier_cross_entropy
from cfgjax.losses.matching import denoiser_matching as denoiser_matching
from cfgjax.losses.matching import flow_matching as flow_matching
from cfgjax.losses.matching import noise_matching as noise_matching
from cfgjax.losses.matching import score_matching as score_matching
from cfgjax.losses.policies import annealed_guidance as annealed_guidance
from cfgjax.losses.policies import self_consistency as self_consistency
