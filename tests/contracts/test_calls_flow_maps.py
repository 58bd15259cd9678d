"""Calls of flow maps: the right answer or one clear error."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, solvers
from tests.support.calls import (
    ANY_STATE,
    COUNT,
    FIELD,
    INF,
    MIXTURE,
    NAN,
    NULL_OR_LABEL,
    PATHS,
    STATE,
    TIME,
    Case,
    Choices,
    fuzz,
    numbers,
    plain,
)

POINT = {"x": STATE, "t": TIME, "r": TIME}
ANY_POINT = POINT | {"x": ANY_STATE}
W = numbers(2.5, 0, 1, -1, refused=(NAN, INF, lambda t: t), low=-2, high=5).but(
    allowed=(guidance.interval(3.0, 0.2, 0.8),),
    refused=(guidance.interval(lambda t: t, 0.2, 0.8), guidance.policy(lambda *point: 1.0)),
)
LAW = flow_maps.Gaussian(jnp.zeros(2), jnp.ones(2))
LAWS = Choices(
    (LAW, flow_maps.Gaussian(np.ones(2), np.full(2, 0.5))),
    (None, (1, 2), LAW._replace(mean=jnp.zeros(3)), LAW._replace(variance=-jnp.ones(2)), LAW._replace(mean="zero")),
)
CASES = [
    Case(
        "flow_maps.exact",
        lambda path, x, t, r, y, w: flow_maps.exact(path, MIXTURE, 1e-3)(x, t, r, y, w),
        {"path": PATHS, **POINT, "y": NULL_OR_LABEL, "w": W},
    ),
    Case(
        "flow_maps.gaussian",
        lambda path, null, labelled, x, t, r, w: flow_maps.gaussian(path, null, labelled)(x, t, r, w),
        {"path": PATHS, "null": LAWS, "labelled": LAWS, **POINT, "w": W},
    ),
    Case(
        "flow_maps.of_field",
        lambda make_solver, field, num_steps, x, t, r: flow_maps.of_field(make_solver, field, num_steps)(x, t, r),
        {
            "make_solver": Choices((solvers.euler, solvers.heun), (None, "heun", 3)),
            "field": FIELD,
            "num_steps": COUNT,
            **ANY_POINT,
        },
    ),
    Case(
        "flow_maps.given, flow_of",
        lambda flow_map, x, t, r: flow_maps.flow_of(flow_maps.given(flow_map, 1))(x, t, r),
        {"flow_map": FIELD, **ANY_POINT},
        lambda flow_map, x, t, r: plain(x) + (plain(r) - plain(t)) * plain(flow_map(x, t, r, 1)),
    ),
    Case(
        "flow_maps.field_of",
        lambda flow_map, x, t: flow_maps.field_of(flow_map)(x, t),
        {"flow_map": FIELD, "x": ANY_STATE, "t": TIME},
        lambda flow_map, x, t: plain(flow_map(x, t, t)),
    ),
    Case(
        "flow_maps.forward_only",
        lambda flow_map, x, r: flow_maps.forward_only(flow_map)(x, 0.25, r),
        {"flow_map": FIELD, "x": ANY_STATE, "r": numbers(0.5, 0.25, 1, refused=(0, 0.125, 1.5), low=0.25, high=1)},
        lambda flow_map, x, r: plain(flow_map(x, 0.25, r)),
    ),
    Case(
        "flow_maps.average_velocity_of",
        lambda flow, field, x, t: flow_maps.average_velocity_of(flow, field)(x, t, t),
        {"flow": FIELD, "field": FIELD, "x": ANY_STATE, "t": TIME},
        lambda flow, field, x, t: plain(field(x, t)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)
