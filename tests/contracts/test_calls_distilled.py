"""Calls of what distils guidance into a field or a flow map and certifies it: the right answer or one clear error."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, losses
from cfgjax.analysis import certificates, likelihood
from cfgjax.types import Interval
from tests.contracts.test_calls_losses import DENSITY, DIVERGENCE, MAKER, NOT_EMPTY, OTHERS, SOME, WEIGHT
from tests.support.calls import (
    ANY_STATE,
    DOWN_GRID,
    FIELD,
    FUNCTIONS,
    GRID,
    INF,
    KEYS,
    LABEL,
    LIKE,
    NAN,
    NO_ARRAY,
    NUM_CLASSES,
    PATHS,
    POINT,
    POSITIVE,
    SCALE,
    SCALES,
    SHARE,
    TIME,
    WORDS,
    Case,
    Choices,
    fuzz,
    guided_telling,
    numbers,
    plain,
    telling,
)

UP, DOWN = GRID._replace(allowed=GRID.allowed[:3]), DOWN_GRID
NAMED = {"time_density": r"time_density\(key\)|time_density", "weight": r"weight\(t\)|weight"}
LOW, HIGH = (
    numbers(*allowed, refused=(*other, INF, NAN)) for allowed, other in (((-1.0, 0), (7, 9.0)), ((5.0, 6), ()))
)
SCALE_DENSITY = Choices(
    (losses.uniform_scale(0.0, 5.0), losses.power_scale(1.0, 8.0), lambda key: 2),
    (*FUNCTIONS, lambda key: jnp.ones(2), lambda key: "w", lambda key: NAN),
)
EDGE = DENSITY._replace(allowed=(losses.uniform(), lambda key: 0.25))
DRAW = Choices((lambda noise: (jnp.float32(-1), jnp.asarray(noise) * 2.0, 1.0),), FUNCTIONS)
RESIDUALS = Choices(
    (np.ones((5, 4, 2)), jnp.ones((2, 4)), np.zeros((1, 4, 2, 3), np.float32)),
    (*NO_ARRAY, jnp.ones((5, 3, 2)), jnp.ones(4), jnp.ones((0, 4)), 1.0),
)
FOUR = np.linspace(0, 1, 4)


def _guided(x, t, y, w):
    return guidance.classifier_free(telling, w, NUM_CLASSES)(x, t, y)


GUIDED = Choices(
    (_guided,),
    (
        *FUNCTIONS,
        *(lambda x, t, y, w, give=give: give(x) for give in (*LIKE.refused, lambda x: 1j * x)),
        telling,
        lambda x, t: x,
    ),
)

PAIRS = Choices((guidance.pair(telling, NUM_CLASSES),), (telling, None, "pair", (1, 2)))
SCALE_OF = Choices(
    (lambda *told: 2.0, lambda t, other, last: 1 + t), (*FUNCTIONS, lambda *told: jnp.ones(2), lambda *told: "w")
)
STEPS = Choices(
    (losses.times_apart(), lambda key: (0.25, 0.5)),
    (*FUNCTIONS, lambda key: 0.5, lambda key: (0.5, 1.5), lambda key: (0.1, 0.2, 0.3), lambda key: (0.1, "t")),
)
POWER = numbers(1.0, 2, 0.5, refused=(0, -1.0, 2.5, INF))
NOT_NULL = LABEL._replace(refused=(-1, NAN, *WORDS))
POLICY = {"path": PATHS, "pair": PAIRS, "scale_of": SCALE_OF, "key": KEYS, "z": NOT_EMPTY, "y": NOT_NULL}
NAMED_POLICY = NAMED | {"times": r"times\(key\)(\[[01]\])?|times"}


CASES = [
    Case(
        "losses.distilled_guidance",
        lambda given, teacher, path, key, z, time_density, weight: losses.distilled_guidance(
            path, given, teacher, key, z, time_density=time_density, weight=weight
        ),
        OTHERS | {"given": FIELD, "teacher": FIELD},
        named=NAMED | {"given": "field"},
    ),
    Case(
        "losses.model_guidance",
        lambda given, null_field, path, key, z, scale, kappa, time_density, weight: losses.model_guidance(
            path, given, null_field, key, z, scale, kappa=kappa, time_density=time_density, weight=weight
        ),
        OTHERS
        | {"given": FIELD, "null_field": FIELD, "scale": POSITIVE._replace(refused=(INF, NAN, *WORDS))}
        | {"kappa": SHARE._replace(allowed=(None, 0, 0.5), refused=(INF, NAN, "kappa", 1j))},
        named=NAMED | {"given": "field"},
    ),
    Case(
        "losses.self_consistency",
        losses.self_consistency,
        POLICY | {"times": STEPS, "exponent": POWER, "repulsion": SHARE._replace(refused=(INF, NAN, *WORDS))},
        named=NAMED_POLICY,
    ),
    Case(
        "losses.annealed_guidance",
        losses.annealed_guidance,
        POLICY | {"times": STEPS, "preference": SHARE, "weight": WEIGHT},
        named=NAMED_POLICY,
    ),
    Case(
        "losses.times_apart",
        lambda gap, key: losses.times_apart(gap)(key),
        {"gap": SHARE, "key": KEYS},
    ),
    Case(
        "losses.uniform_scale",
        lambda low, high, key: losses.uniform_scale(low, high)(key),
        {"low": LOW, "high": HIGH, "key": KEYS},
        named={"low": "low", "high": "high"},
    ),
    Case(
        "losses.power_scale",
        lambda low, high, power, key: losses.power_scale(low, high, power)(key),
        {
            "low": POSITIVE._replace(allowed=(0.5, 1), more=None).but(refused=(7,)),
            "high": HIGH,
            "power": numbers(0, 1, 1.0, 2.5, -1, refused=(INF, NAN)),
            "key": KEYS,
        },
    ),
    Case(
        "losses.scale_interval",
        lambda key, **given: losses.scale_interval(**given)(key),
        {
            "scale_density": SCALE_DENSITY,
            "start_density": EDGE,
            "stop_density": EDGE,
            "whole_rate": SHARE,
            "key": KEYS,
        },
        named={name: rf"{name}\(key\)|{name}" for name in ("scale_density", "start_density", "stop_density")},
    ),
    Case(
        "guidance.at_scale",
        lambda guided_field, scale, x, t, y: guidance.at_scale(guided_field, scale)(x, t, y),
        {"guided_field": GUIDED, "scale": SCALES, **POINT},
    ),
    Case(
        "guidance.at_scale of a number",
        lambda scale, x, t, y: guidance.at_scale(_guided, scale)(x, t, y),
        {"scale": SCALE, **POINT},
        guided_telling,
    ),
    Case(
        "guidance.within",
        lambda guided, low, high, x, t, y, scale: guidance.within(guided, low, high)(x, t, y, scale),
        {
            "guided": Choices((_guided,), FUNCTIONS),
            "low": LOW,
            "high": HIGH,
            "scale": SCALE._replace(allowed=(0, 2.5, jnp.int32(3), Interval(2.0, 0.0, 1.0)), more=None).but(
                refused=(-2.0, 6.5, Interval(7.0, 0.0, 1.0), lambda t: t)
            ),
            **POINT,
        },
    ),
    Case(
        "likelihood.log_normal",
        likelihood.log_normal,
        {"x": ANY_STATE},
        lambda x: -0.5 * (np.sum(plain(x) ** 2) + plain(x).size * np.log(2 * np.pi)),
    ),
    Case(
        "certificates.jump_log_density without motion",
        lambda flow_map, noise, ts: certificates.jump_log_density(flow_map, noise, ts),
        {
            "flow_map": Choices((lambda x, t, r: 0 * x,), tuple(FIELD.refused)),
            "noise": NOT_EMPTY._replace(refused=NO_ARRAY),
            "ts": UP,
        },
        lambda flow_map, noise, ts: [likelihood.log_normal(noise), plain(noise), 1.0],
    ),
    Case(
        "certificates.log_ratio",
        lambda make_solver, divergence, draw, noise, ts: certificates.log_ratio(
            make_solver, divergence, draw, noise, ts
        ),
        {"make_solver": MAKER, "divergence": DIVERGENCE, "draw": DRAW, "noise": SOME, "ts": DOWN},
        lambda noise, **given: -1 - likelihood.log_normal(2.0 * jnp.asarray(noise)),
        named={"make_solver": "make_solver|solver"},
    ),
    Case(
        "certificates.kl_divergence",
        certificates.kl_divergence,
        {"log_ratios": Choices((jnp.array([1.0, 3.0]), np.array([1, 3])), (*NO_ARRAY, jnp.ones((2, 2)), jnp.ones(0)))},
        lambda log_ratios: [2.0, np.sqrt(0.5)],
    ),
    Case(
        "certificates.coupling_bound",
        lambda samples, teacher_samples: certificates.coupling_bound(samples, teacher_samples),
        {
            "samples": Choices((np.zeros((2, 3)),), (*NO_ARRAY, jnp.ones((2, 1)), jnp.ones(3), jnp.ones((0, 3)), 1.0)),
            "teacher_samples": Choices((jnp.ones((2, 3)), np.ones((2, 3), int)), (*NO_ARRAY, jnp.ones((3, 2)))),
        },
        lambda samples, teacher_samples: [np.sqrt(3), 0.0],
        named={"samples": "samples|teacher_samples"},
    ),
    Case(
        "certificates.residual",
        certificates.residual,
        {
            "flow": FIELD,
            "field": FIELD,
            "x": NOT_EMPTY._replace(refused=NO_ARRAY),
            "t": TIME,
        },
    ),
    Case(
        "certificates.residuals_along",
        lambda make_solver, flow, field, noise, ts: certificates.residuals_along(make_solver, flow, field, noise, ts),
        {"make_solver": MAKER, "flow": FIELD, "field": FIELD, "noise": SOME, "ts": UP},
        named={"make_solver": "make_solver|solver"},
    ),
    Case(
        "certificates.growth_rate of -x",
        lambda x, t: certificates.growth_rate(lambda x, t: -x, x, t),
        {"x": NOT_EMPTY._replace(refused=NO_ARRAY), "t": TIME},
        lambda x, t: -1.0,
    ),
    Case("certificates.growth_rate", lambda field: certificates.growth_rate(field, jnp.ones(2), 0.5), {"field": FIELD}),
    Case(
        "certificates.residual_bound",
        lambda residuals, rates: certificates.residual_bound(residuals, FOUR, rates),
        {
            "residuals": RESIDUALS,
            "rates": Choices((None, np.zeros(4), jnp.ones(4)), (jnp.ones(3), 1.0, "rates", jnp.ones((4, 1)))),
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)
