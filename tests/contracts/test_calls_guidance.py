"""Calls of guidance: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance
from cfgjax.checks import is_known_as
from tests.support.calls import (
    ANY_LABEL,
    ANY_STATE,
    CONDITION,
    COUNT,
    DOWN_GRID,
    FIELD,
    FUNCTIONS,
    INF,
    INNER,
    LABEL,
    MIXTURE,
    NAN,
    NULL_OR_LABEL,
    NUM_CLASSES,
    ORACLE,
    PATH,
    PATHS,
    PLAIN_FIELD,
    POINT,
    POSITIVE,
    SCALE,
    SCALES,
    SEVERAL,
    SHARE,
    STATE,
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

PAIR = guidance.pair(telling, NUM_CLASSES)
PAIRS = Choices((PAIR, guidance.pair(ORACLE, NUM_CLASSES)), (telling, None, "pair", (1, 2)))


def _both_of(make):
    return lambda x, t, y, **given: make(**given).both(x, t, y)


def _field_of(make):
    return lambda x, t, y, **given: make(**given)(x, t, y)


def _classifier(field_or_none=None, scale=2.0, start=0.01, null_field=None, log_classifier=None):
    return guidance.classifier(PATH, null_field, log_classifier, scale, start)


NULL_FIELDS = Choices((guidance.given(ORACLE, NUM_CLASSES),), FIELD.refused)
CLASSIFIERS = Choices(
    (MIXTURE.label_log_probs(PATH),),
    (*FUNCTIONS, lambda x, t: jnp.sum(x), lambda x, t: jnp.ones((3, 1)), lambda x, t: "p", lambda x, t: jnp.ones(0)),
)
POLICIES = Choices(
    (lambda *point: jnp.float32(2), lambda x, t, y, null, labelled: 1 + t + y, lambda *point: 3),
    (*FUNCTIONS, lambda *point: jnp.ones(2), lambda *point: None, lambda *point: "scale", lambda *point: NAN),
)
NOT_NULL = SCALES._replace(allowed=tuple(each for each in SCALES.allowed if not is_known_as(each, 0)), more=None)
"""At a known w = 0 a classifier is not called, and so not checked."""
AT_NULL = {"x": STATE, "t": TIME, "y": NULL_OR_LABEL}
CASES = [
    Case(
        "guidance.interpolate",
        lambda null, labelled, scale: guidance.interpolate(null, labelled, scale),
        {
            "null": STATE._replace(refused=STATE.refused[:6]),
            "labelled": STATE._replace(allowed=(np.float32([3, 4]),)),
            "scale": SCALE,
        },
        lambda null, labelled, scale: plain(null) + plain(scale) * (plain(labelled) - plain(null)),
    ),
    Case(
        "guidance.classifier_free",
        lambda scale, null, x, t, y: guidance.classifier_free(telling, scale, null)(x, t, y),
        {"scale": SCALE, "null": ANY_LABEL, "x": ANY_STATE, "t": INNER._replace(refused=()), "y": ANY_LABEL},
        lambda scale, null, x, t, y: guided_telling(scale, x, t, y, null),
        tolerance=1e-3,
    ),
    Case(
        "guidance.pair",
        _both_of(lambda field: guidance.pair(field, NUM_CLASSES)),
        POINT | {"field": PLAIN_FIELD, "y": NULL_OR_LABEL._replace(refused=LABEL.refused)},
    ),
    Case(
        "guidance.autoguidance_pair",
        _both_of(guidance.autoguidance_pair),
        POINT | {"field": PLAIN_FIELD, "weak_field": PLAIN_FIELD, "y": CONDITION},
    ),
    Case(
        "guidance.extrapolate",
        _field_of(guidance.extrapolate),
        POINT | {"pair": PAIRS, "scale": SCALES, "t": TIME, "y": NULL_OR_LABEL._replace(refused=LABEL.refused)},
    ),
    Case(
        "guidance.autoguidance",
        lambda scale, x, t, y: guidance.autoguidance(telling, lambda x, t, y: jnp.zeros_like(x), scale)(x, t, y),
        POINT | {"scale": SCALE},
        lambda scale, x, t, y: plain(scale) * (1 + plain(y)) * (1 + plain(t)) * plain(x),
        tolerance=1e-3,
    ),
    Case(
        "guidance.classifier",
        _field_of(_classifier),
        AT_NULL
        | {
            "scale": NOT_NULL,
            "null_field": NULL_FIELDS,
            "log_classifier": CLASSIFIERS,
            "start": numbers(0.01, 0.5, refused=(0, 1, -1.0, INF)),
        },
    ),
    Case(
        "guidance.classifier at w = 1",
        lambda x, t, y: _classifier(None, 1, 0.01, NULL_FIELDS.allowed[0], CLASSIFIERS.allowed[0])(x, t, y),
        {"x": STATE, "t": INNER, "y": NULL_OR_LABEL},
        lambda x, t, y: ORACLE(plain(x).astype(np.float32), t, y),
        tolerance=2e-3,
    ),
    Case(
        "guidance.classifier_pair",
        lambda null_field, log_classifier, path, start, x, t, y: guidance.classifier_pair(
            path, null_field, log_classifier, start
        ).both(x, t, y),
        AT_NULL
        | {
            "null_field": NULL_FIELDS,
            "log_classifier": CLASSIFIERS,
            "path": Choices((PATH,), PATHS.refused),
            "start": numbers(0.01, 0.5, refused=(0, 1, -1.0, INF)),
        },
    ),
    Case(
        "guidance.policy",
        lambda scale_of, x, t, y: guidance.classifier_free(telling, guidance.policy(scale_of), NUM_CLASSES)(x, t, y),
        POINT | {"scale_of": POLICIES},
        lambda scale_of, x, t, y: guided_telling(scale_of(x, plain(t), plain(y), x, x), x, t, y),
        named={"scale_of": "scale_of|scale"},
        tolerance=1e-3,
    ),
    Case(
        "guidance.rescaled",
        _field_of(guidance.rescaled),
        POINT | {"pair": PAIRS, "scale": SCALES, "phi": SHARE},
    ),
    Case(
        "guidance.tangential_damping",
        _both_of(guidance.tangential_damping),
        POINT | {"path": PATHS, "pair": PAIRS, "t": TIME},
    ),
    Case(
        "guidance.adaptive_projected",
        lambda path, pair, scale, y, momentum, x, t: guidance.adaptive_projected(path, pair, scale, y, momentum).apply(
            x, t, jnp.zeros(2)
        ),
        POINT
        | {
            "path": PATHS,
            "pair": PAIRS,
            "scale": SCALES,
            "y": NULL_OR_LABEL._replace(refused=LABEL.refused),
            "momentum": numbers(-0.5, 0, 0.5, refused=(1, -1.0, 2, INF), low=-0.875, high=0.875),
            "t": TIME,
        },
    ),
    Case(
        "guidance.adaptive_projected_mix",
        lambda path, pair, early_scale, scale, y, start, x, t: guidance.adaptive_projected_mix(
            path, pair, early_scale, scale, y, start
        ).apply(x, t, jnp.zeros(2)),
        POINT
        | {
            "path": PATHS,
            "pair": PAIRS,
            "early_scale": SCALES,
            "scale": SCALES,
            "y": NULL_OR_LABEL._replace(refused=LABEL.refused),
            "start": SHARE,
            "t": TIME,
        },
        named={"early_scale": "early_scale|scale"},
    ),
    Case(
        "guidance.stages",
        lambda pair, edge, scale, x, t, y: guidance.stages(pair, (edge,), (scale, 2.0))(x, t, y),
        POINT
        | {
            "pair": PAIRS,
            "edge": numbers(0.5, 0.0, 0.9, refused=(-0.1, 1.0, 1.1, INF)),
            "scale": SCALES,
            "t": TIME,
            "y": NULL_OR_LABEL._replace(refused=LABEL.refused),
        },
        named={"edge": "edges", "scale": "scales|scale"},
    ),
    Case(
        "filters.laplacian_low",
        lambda levels, value: guidance.filters.laplacian_low(levels)(value),
        {
            "levels": COUNT._replace(allowed=(1, 2), more=None),
            "value": Choices(
                (np.ones((4, 8, 1), np.float32), jnp.ones((8, 4, 3))),
                (jnp.ones((3, 4, 1)), jnp.ones((4, 6, 1, 1)), jnp.ones(4), np.ones((4, 4, 1), complex), *WORDS[:3]),
            ),
        },
        lambda levels, value: np.ones(np.shape(value)),
    ),
    Case(
        "guidance.static_threshold",
        lambda path, field, bound, x, t: guidance.static_threshold(path, field, bound)(x, t),
        {
            "path": PATHS,
            "field": FIELD,
            "bound": POSITIVE._replace(refused=(0, -1, NAN, *SEVERAL)),
            "x": ANY_STATE,
            "t": TIME,
        },
    ),
    Case(
        "guidance.dynamic_threshold",
        lambda path, field, percentile, x, t: guidance.dynamic_threshold(path, field, percentile)(x, t),
        {
            "path": PATHS,
            "field": FIELD,
            "percentile": numbers(99.5, 0, 100, 50, refused=(-1, 101, INF), low=0, high=100),
            "x": ANY_STATE,
            "t": TIME,
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


def test_a_label_that_a_classifier_does_not_know_is_refused():
    guided = _classifier(None, 2.0, 0.01, NULL_FIELDS.allowed[0], CLASSIFIERS.allowed[0])
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\], got 4"):
        guided(jnp.ones(2), 0.5, 4)
    assert np.all(np.isfinite(jax.vmap(guided, in_axes=(None, None, 0))(jnp.ones(2), 0.5, jnp.arange(4))))


def test_the_checks_see_no_numbers_under_a_sweep_and_all_shapes():
    """One trace serves every scale, NaN among them; a shape is wrong for all of them."""

    def guided(scale, y):
        return guidance.classifier_free(telling, scale, NUM_CLASSES)(jnp.ones(2), 0.5, y)

    found = jax.jit(jax.vmap(guided, in_axes=(0, None)))(jnp.array([0.0, 1.0, jnp.nan]), 1)
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [False, False, True])
    with pytest.raises(ValueError, match="scale must be one number for one example, got the shape \\(3,\\)"):
        jax.jit(guided)(jnp.ones(3), 1)
    with pytest.raises(TypeError, match="y must be an integer, got the type float32"):
        jax.jit(guided)(2.0, 1.0)


def test_a_traced_start_of_nothing_is_refused_by_name():
    with pytest.raises(TypeError, match="start must be a number that is not traced"):
        jax.jit(lambda start: guidance.zero_init(lambda x, t: x, start)(jnp.ones(2), 0.5))(0.5)


@pytest.mark.parametrize("ts", DOWN_GRID.allowed, ids=str)
def test_a_piecewise_field_takes_whole_and_half_numbers(ts):
    field = guidance.classifier_free(telling, guidance.interval(3.0, 0.25, 0.75), NUM_CLASSES)
    for x in STATE.allowed:
        assert np.all(np.isfinite(plain(field(jnp.asarray(x), jnp.asarray(ts)[0], 1))))
