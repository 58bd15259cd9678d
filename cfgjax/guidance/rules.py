"""The published rules of guidance of the library, in one table: space, cost, neutral setting, and where each is.

The rules are not imported here. Plain guidance is ``classifier_free``.
"""

from __future__ import annotations

from typing import NamedTuple


class GuidanceRule(NamedTuple):
    """A rule of guidance, by what is known of it.

    ``space`` is the one in which it acts. ``evaluations`` are those of the network in one step of Euler's rule, or of
    the rule's own, at a scale that is not known as 0 or 1 (of two conditions where it takes several; in one step of
    each of its solves). ``neutral`` is the setting in which it is another rule, bitwise unless it says "to rounding".
    ``where`` is the public name, in cfgjax, of what makes it. ``has_memory`` is told of what the solver's carry holds
    beside the state. One that ``is_labelled_at_one`` is at w = 1 the labelled field, or its step, bitwise.
    """

    name: str
    paper: str
    space: str
    evaluations: int
    neutral: str
    where: str
    has_memory: bool = False
    is_labelled_at_one: bool = True


ANY, FIELD, DENOISER, NOISE = "any", "vector field", "denoiser", "noise prediction"
SCORE, STATE = "score", "state"
LABELLED_AT_1 = "labelled field at w = 1"
_WEAK = "guidance.weakened"

RULES: dict[str, GuidanceRule] = {
    each.name: each
    for each in (
        GuidanceRule(
            "classifier_free",
            "Ho & Salimans, arXiv 2207.12598",
            ANY,
            2,
            f"{LABELLED_AT_1}, null field at w = 0",
            "guidance.classifier_free",
        ),
        GuidanceRule(
            "classifier",
            "Dhariwal & Nichol, arXiv 2105.05233",
            FIELD,
            1,
            "null field at w = 0",
            "guidance.classifier",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "autoguidance",
            "Karras et al., arXiv 2406.02507",
            ANY,
            2,
            "the field where the weak field is itself",
            "guidance.autoguidance",
        ),
        GuidanceRule(
            "negative_label", "Liu et al., arXiv 2206.01714", ANY, 2, LABELLED_AT_1, "guidance.classifier_free"
        ),
        GuidanceRule(
            "compose",
            "Liu et al., arXiv 2206.01714",
            ANY,
            3,
            "one condition's field where its weight is 1 and the others are 0",
            "guidance.compose",
        ),
        GuidanceRule(
            "classifier_free_chain",
            "Brooks et al., arXiv 2211.09800",
            ANY,
            3,
            "plain guidance at equal scales, to rounding",
            "guidance.classifier_free_chain",
        ),
        GuidanceRule(
            "classifier_free_product",
            "Liu et al., arXiv 2206.01714",
            ANY,
            3,
            "null field where all scales are 0",
            "guidance.classifier_free_product",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "interval",
            "Kynkaanniemi et al., arXiv 2404.07724",
            ANY,
            2,
            "plain guidance with start 0 and stop 1",
            "guidance.interval",
        ),
        GuidanceRule(
            "policy",
            "Koulischer et al., arXiv 2506.06085",
            ANY,
            2,
            "plain guidance where it gives one number",
            "guidance.policy",
        ),
        GuidanceRule(
            "rescaled", "Lin et al., arXiv 2305.08891", FIELD, 2, "plain guidance at phi = 0", "guidance.rescaled"
        ),
        GuidanceRule(
            "projected",
            "Sadat et al., arXiv 2410.02416",
            DENOISER,
            2,
            "plain guidance at eta = 1 and max_norm = inf, to rounding",
            "guidance.projected",
        ),
        GuidanceRule(
            "adaptive_projected",
            "Sadat et al., arXiv 2410.02416",
            DENOISER,
            2,
            "projected at momentum = 0, to rounding",
            "guidance.adaptive_projected",
            has_memory=True,
        ),
        GuidanceRule(
            "cfg_zero_star", "Fan et al., arXiv 2503.18886", FIELD, 2, LABELLED_AT_1, "guidance.cfg_zero_star"
        ),
        GuidanceRule(
            "zero_init",
            "Fan et al., arXiv 2503.18886",
            FIELD,
            2,
            "the field at start = 0",
            "guidance.zero_init",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "tangential_damping",
            "Kwon et al., arXiv 2503.18137",
            SCORE,
            2,
            LABELLED_AT_1,
            "guidance.tangential_damping",
        ),
        GuidanceRule(
            "static_threshold",
            "Saharia et al., arXiv 2205.11487",
            DENOISER,
            2,
            "the field at bound = inf",
            "guidance.static_threshold",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "dynamic_threshold",
            "Saharia et al., arXiv 2205.11487",
            DENOISER,
            2,
            "the field at percentile = 100 with a bound that it keeps",
            "guidance.dynamic_threshold",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "cfg_plus_plus",
            "Chung et al., arXiv 2406.08070",
            f"{DENOISER} and {NOISE}",
            2,
            "DDIM of the null field at scale 0, to rounding",
            "solvers.cfg_plus_plus",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "rectified_cfg_plus_plus",
            "Saini et al., arXiv 2510.07631",
            FIELD,
            3,
            LABELLED_AT_1,
            "solvers.rectified_cfg_plus_plus",
        ),
        GuidanceRule(
            "manifold_projected",
            "Cai et al., arXiv 2601.21892",
            FIELD,
            6,
            "plain guidance with picard(0)",
            "solvers.manifold_projected",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "gibbs_like",
            "Moufad et al., arXiv 2505.21101",
            STATE,
            3,
            "the labelled field's solve with 0 rounds",
            "solvers.gibbs_like",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "feynman_kac",
            "Skreta et al., arXiv 2503.02819",
            SCORE,
            2,
            "equal weights at w = 1",
            "solvers.feynman_kac",
            has_memory=True,
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "predictor_corrector",
            "Bradley & Nakkiran, arXiv 2408.09000",
            SCORE,
            3,
            "the labelled field's step with 0 corrections",
            "solvers.predictor_corrector_guidance",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "magnitude_aware",
            "Zhu et al., arXiv 2508.03442",
            FIELD,
            2,
            "plain guidance at damping = 0",
            "guidance.magnitude_aware",
        ),
        GuidanceRule(
            "frequency_decoupled",
            "Sadat et al., arXiv 2506.19713",
            ANY,
            2,
            "plain guidance at low_share = 1",
            "guidance.frequency_decoupled",
        ),
        GuidanceRule(
            "adaptive_projected_mix",
            "Tencent, HunyuanImage 2.1 (2025)",
            DENOISER,
            2,
            "plain guidance at start = 1",
            "guidance.adaptive_projected_mix",
            has_memory=True,
        ),
        GuidanceRule(
            "beta_scale",
            "Malarz et al., arXiv 2502.10574",
            NOISE,
            2,
            "plain guidance at a = b = 1 and gamma = 0, to rounding",
            "guidance.beta_scale",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "exponential_scale",
            "Gao et al., arXiv 2603.08155",
            ANY,
            2,
            "plain guidance at rate = 0",
            "guidance.exponential_scale",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "negative_window",
            "Ventura et al., arXiv 2602.00716",
            ANY,
            2,
            "plain guidance at equal scales",
            "guidance.stages",
            is_labelled_at_one=False,
        ),
        GuidanceRule(
            "annealed",
            "Yehezkel et al., arXiv 2506.24108",
            NOISE,
            2,
            "labelled field where its scale is 1",
            "guidance.gap_policy",
        ),
        GuidanceRule(
            "learn_to_guide",
            "Galashov et al., arXiv 2510.00815",
            ANY,
            2,
            "labelled field where its scale is 1",
            "guidance.extrapolate",
        ),
        GuidanceRule(
            "skip_layer", "Stability AI, Stable Diffusion 3.5 (2024)", ANY, 2, "labelled field at v = 1", _WEAK
        ),
        GuidanceRule("perturbed_attention", "Ahn et al., arXiv 2403.17377", ANY, 2, "labelled field at v = 1", _WEAK),
        GuidanceRule("smoothed_energy", "Hong, arXiv 2408.00760", ANY, 2, "labelled field at v = 1", _WEAK),
        GuidanceRule(
            "spatio_temporal_skip", "Hyung et al., arXiv 2411.18664", ANY, 2, "labelled field at v = 1", _WEAK
        ),
        GuidanceRule("internal", "Zhou et al., arXiv 2512.24176", ANY, 1, LABELLED_AT_1, "guidance.pair_of_sides"),
    )
}
"""The name of every rule -> its record."""
