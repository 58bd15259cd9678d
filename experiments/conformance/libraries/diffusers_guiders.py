"""diffusers: guiders combine predictions, forward(pred_cond, pred_uncond[, third]).pred."""

from collections.abc import Callable
from typing import Any

import diffusers.utils.logging
import numpy as np
import torch
from diffusers import guiders

from experiments.conformance.bridge import Guide, guider
from experiments.conformance.identities import ANY_SPACE, CONTINUOUS_AT_ONE, CONTINUOUS_AT_ZERO
from experiments.conformance.names import CALL, LABELLED, NULL, OTHER
from experiments.conformance.pictures import small_pictures

diffusers.utils.logging.set_verbosity_error()

SPACE = "Another space of the prediction is another rule, as of the paper's formula: give it the paper's. "
PICTURE = (1, 8, 8)


def guide(
    make: Callable[[float], Any],
    step: int = 8,
    third: Callable[[Any, Any], Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> Guide:
    """A guider at one of ten steps, where start, stop and its windows stand; third: the perturbed prediction."""

    def call(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
        made = make(w)
        made.set_state(step, 10, None)
        cond, null = (torch.from_numpy(np.array(side)).reshape(len(x), *(shape or x.shape[1:])) for side in sides)
        more = () if third is None else (third(cond, null),)
        return made.forward(cond, null, *more).pred.numpy().reshape(x.shape)

    return call


def weak(cond: Any, null: Any) -> Any:
    """The oracle's null field stands for the perturbed network."""
    return null


def half(cond: Any, null: Any) -> Any:
    """A perturbed network that is between both sides."""
    return 0.5 * (cond + null)


APG = {"eta": 0.0, "adaptive_projected_guidance_rescale": 1.0}
_JUMP = "At `guidance_scale` 1 the scale of the third prediction means one less than beside it. "
GUIDERS = [
    guider("ClassifierFreeGuidance(w)", guide(guiders.ClassifierFreeGuidance)),
    guider(
        "ClassifierFreeGuidance(w, use_original_formulation=True)",
        guide(lambda w: guiders.ClassifierFreeGuidance(w, use_original_formulation=True)),
        fails=(NULL, LABELLED, OTHER),
        remark="Another convention, as documented: w = 1 + `guidance_scale`.",
    ),
    guider(
        "ClassifierFreeGuidance(w - 1, use_original_formulation=True)",
        guide(lambda w: guiders.ClassifierFreeGuidance(w - 1, use_original_formulation=True)),
    ),
    guider(
        "ClassifierFreeGuidance(w, guidance_rescale=.7), pictures",
        guide(lambda w: guiders.ClassifierFreeGuidance(w, 0.7), shape=PICTURE),
        is_plain=False,
        mixture=small_pictures(),
        fails=(ANY_SPACE,),
        remark=SPACE,
    ),
    guider("AdaptiveProjectedGuidance(w)", guide(guiders.AdaptiveProjectedGuidance)),
    guider(
        "AdaptiveProjectedGuidance(w, eta=0, adaptive_projected_guidance_rescale=1)",
        guide(lambda w: guiders.AdaptiveProjectedGuidance(w, **APG)),
        is_plain=False,
        fails=(CONTINUOUS_AT_ONE, ANY_SPACE),
        remark="It adds w times the projected difference to the null side and is the labelled side at 1 alone; the "
        "paper adds w - 1 times it to the labelled one. [`diffusers_apg`]",
    ),
    guider(
        "AdaptiveProjectedGuidance(w - 1, eta=0, adaptive_projected_guidance_rescale=1, use_original_formulation=True)",
        guide(lambda w: guiders.AdaptiveProjectedGuidance(w - 1, use_original_formulation=True, **APG)),
        is_plain=False,
        fails=(ANY_SPACE,),
        remark=SPACE + "Of denoised predictions it is `guidance.projected`.",
    ),
    guider(
        "AdaptiveProjectedMixGuidance(w, 0, w), step 8 of 10",
        guide(lambda w: guiders.AdaptiveProjectedMixGuidance(w, 0.0, w)),
        is_plain=False,
        fails=(CONTINUOUS_AT_ONE, ANY_SPACE),
        remark="From `adaptive_projected_guidance_start_step` on as the guider above, with a scale of its own.",
    ),
    guider(
        "ClassifierFreeZeroStarGuidance(w), step 8 of 10",
        guide(guiders.ClassifierFreeZeroStarGuidance),
        is_plain=False,
        fails=(ANY_SPACE,),
        remark=SPACE,
    ),
    guider(
        "ClassifierFreeZeroStarGuidance(w), step 0",
        guide(guiders.ClassifierFreeZeroStarGuidance, 0),
        is_plain=False,
        fails=(LABELLED, ANY_SPACE),
        remark="`zero_init_steps=1`, the default: the first step is 0, at w = 1 too. [`diffusers_cfg_zero_star`]",
    ),
    guider(
        "ClassifierFreeZeroStarGuidance(w, guidance_rescale=.7), step 0",
        guide(lambda w: guiders.ClassifierFreeZeroStarGuidance(w, guidance_rescale=0.7), 0),
        is_plain=False,
        fails=(CALL,),
        remark="0 is divided by its deviation 0. [`diffusers_cfg_zero_star`]",
    ),
    guider(
        "TangentialClassifierFreeGuidance(w)",
        guide(guiders.TangentialClassifierFreeGuidance),
        is_plain=False,
        fails=(ANY_SPACE,),
        remark=SPACE + "Of noise predictions it is `guidance.tangential_damping`.",
    ),
    guider(
        "MagnitudeAwareGuidance(w), [B, D]",
        guide(guiders.MagnitudeAwareGuidance),
        is_plain=False,
        fails=(ANY_SPACE,),
        remark=SPACE,
    ),
    guider("MagnitudeAwareGuidance(w, alpha=0), [B, D]", guide(lambda w: guiders.MagnitudeAwareGuidance(w, alpha=0.0))),
    guider(
        "MagnitudeAwareGuidance(w), [B, C, H, W]",
        guide(guiders.MagnitudeAwareGuidance, shape=PICTURE),
        is_plain=False,
        mixture=small_pictures(),
        fails=(CALL,),
        remark="It takes a norm over three axes, which this version of PyTorch refuses.",
    ),
    guider(
        "FrequencyDecoupledGuidance([w, w]), pictures",
        guide(lambda w: guiders.FrequencyDecoupledGuidance([w, w]), shape=PICTURE),
        mixture=small_pictures(),
        remark="Equal scales are plain guidance.",
    ),
    guider(
        "FrequencyDecoupledGuidance([w, 1.]), pictures",
        guide(lambda w: guiders.FrequencyDecoupledGuidance([w, 1.0]), shape=PICTURE),
        is_plain=False,
        mixture=small_pictures(),
        fails=(CALL,),
        remark="A level that is off takes another level's variable; reported as huggingface/diffusers#14643.",
    ),
    guider("LTX2Guidance(w)", guide(guiders.LTX2Guidance)),
    guider(
        "AutoGuidance(w, [0], dropout=.1)",
        guide(lambda w: guiders.AutoGuidance(w, [0], dropout=0.1)),
        remark="How both predictions are combined; the weaker network itself is made by a hook, not asked here.",
    ),
    guider(
        "SkipLayerGuidance(1., w, 0., 1., [0])",
        guide(lambda w: guiders.SkipLayerGuidance(1.0, w, 0.0, 1.0, [0]), third=weak),
        fails=(NULL, CONTINUOUS_AT_ZERO),
        remark="Without classifier-free guidance: w of the labelled side against the perturbed one, and 0 is off. "
        "[`diffusers_perturbed_scales`]",
    ),
    guider(
        "SkipLayerGuidance(w, 2.8, 0., 1., [0])",
        guide(lambda w: guiders.SkipLayerGuidance(w, 2.8, 0.0, 1.0, [0]), third=half),
        is_plain=False,
        fails=(LABELLED, CONTINUOUS_AT_ONE),
        remark=_JUMP + "[`diffusers_perturbed_scales`]",
    ),
    guider(
        "PerturbedAttentionGuidance(1., w, 0., 1., [0])",
        guide(lambda w: guiders.PerturbedAttentionGuidance(1.0, w, 0.0, 1.0, [0]), third=weak),
        fails=(NULL, CONTINUOUS_AT_ZERO),
        remark="As of skipped layers. [`diffusers_perturbed_scales`]",
    ),
    guider(
        "SmoothedEnergyGuidance(1., w, seg_guidance_layers=[0])",
        guide(lambda w: guiders.SmoothedEnergyGuidance(1.0, w, seg_guidance_layers=[0]), third=weak),
        fails=(NULL, CONTINUOUS_AT_ZERO),
        remark="As of skipped layers. [`diffusers_perturbed_scales`]",
    ),
]
