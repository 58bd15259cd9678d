"""Calls of guidance's scales and conditions: the right answer or one clear error."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance
from tests.support.calls import (
    ANY_LABEL,
    ANY_STATE,
    CONDITION,
    FUNCTIONS,
    INF,
    KEY,
    KEYS,
    LABEL,
    NAN,
    NULL_OR_LABEL,
    PLAIN_FIELD,
    POINT,
    SCALE,
    SCALES,
    SHARE,
    TIME,
    Case,
    Choices,
    fuzz,
    guided_telling,
    numbers,
    plain,
    telling,
)

TIMES_OF_INTERVAL = {"start": numbers(0.125, 0, refused=(-0.5, 1.5, INF)), "stop": numbers(0.75, 1, refused=(-0.5, 2))}
WEIGHTS = Choices(
    (jnp.array([0.25, 0.75]), [3, -2], np.array([1.0, 0.0]), lambda t: jnp.stack([t, 1 - t])),
    (
        jnp.ones(2),
        jnp.ones(1),
        [NAN, 1],
        [INF, -INF],
        "ab",
        None,
        jnp.ones((2, 1)) / 2,
        [0.5j, 0.5],
        lambda t: jnp.ones(3),
    ),
)
CONDITIONS = Choices(
    (
        *([0, 1], jnp.array([3, 0]), np.array([2, 1], np.uint8), [0.0, 1.0], jnp.zeros((2, 1), int)),
        *([{"a": 1, "b": jnp.ones(3)}, {"a": 0, "b": jnp.zeros(3)}], {"a": jnp.arange(2), "b": jnp.ones((2, 3))}),
    ),
    (
        *([-1, 1], np.array([-1, 1]), jnp.zeros(0, int), "ab", None, [True, False], [], [0, 1.0], [jnp.ones(2), 1]),
        *([{"a": 1}, {"b": 1}], {"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.ones(2), "b": 1}, 1),
    ),
)


def _sampled(key, y, rate, null):
    dropped = guidance.drop_condition(key, y, rate, null)
    assert dropped.dtype == jnp.asarray(y).dtype
    assert int(dropped) in {int(y), int(null)} and (0 < rate < 1 or int(dropped) == int(null if rate else y))
    return dropped


CASES = [
    Case("guidance.scale_at", guidance.scale_at, {"scale": SCALES, "t": TIME, "y": CONDITION}),
    Case(
        "guidance.interval",
        lambda scale, start, stop: guidance.scale_at(guidance.interval(scale, start, stop), 0.5),
        {"scale": SCALE.but(refused=(guidance.interval(2.0, 0, 1),)), **TIMES_OF_INTERVAL},
        lambda scale, start, stop: plain(scale),
    ),
    Case(
        "guidance.from_zero_based_scale",
        lambda zero_based_scale: guidance.scale_at(guidance.from_zero_based_scale(zero_based_scale), 0.5),
        {"zero_based_scale": SCALE.but(refused=(guidance.interval(2.0, 0, 1),))},
        lambda zero_based_scale: 1 + plain(zero_based_scale),
    ),
    Case(
        "guidance.given",
        lambda field, y, x, t: guidance.given(field, y)(x, t),
        {"field": Choices((telling,), FUNCTIONS), "y": CONDITION, "x": ANY_STATE._replace(refused=()), "t": POINT["t"]},
        lambda field, y, x, t: (1 + plain(y)) * (1 + plain(t)) * plain(x),
    ),
    Case(
        "guidance.drop_condition",
        _sampled,
        {
            "key": KEYS,
            "y": NULL_OR_LABEL._replace(refused=LABEL.refused),
            "rate": SHARE,
            "null": ANY_LABEL.but(refused=(2**31,)),
        },
    ),
    Case(
        "guidance.compose",
        lambda field, conditions, weights, x, t: guidance.compose(field, conditions, weights)(x, t),
        {"field": PLAIN_FIELD, "conditions": CONDITIONS, "weights": WEIGHTS, "x": POINT["x"], "t": POINT["t"]},
    ),
    Case(
        "guidance.interpolate_conditions",
        lambda first, second, amount, x, t: guidance.interpolate_conditions(telling, first, second, amount)(x, t),
        {"first": ANY_LABEL, "second": ANY_LABEL, "amount": SHARE, "x": POINT["x"], "t": POINT["t"]},
        lambda first, second, amount, x, t: guided_telling(amount, x, t, second, first),
        tolerance=1e-3,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


def test_a_null_label_that_the_labels_type_cannot_hold_is_refused():
    """As a number of 8 bits 300 would be the label 44."""
    for null in (300, jnp.int32(300)):
        with pytest.raises(ValueError, match=r"null must be in \[0, 255\], got 300"):
            guidance.drop_condition(KEY, jnp.uint8(1), 0.5, null)
        with pytest.raises(ValueError, match="null must be in"):
            guidance.classifier_free(telling, 2.0, null)(jnp.ones(2), 0.5, jnp.uint8(1))
