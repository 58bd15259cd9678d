"""Calls of grids, diffusions and adaptive solves: the right answer or one clear error."""

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, solvers
from cfgjax.piecewise import Piecewise
from cfgjax.solvers import adaptive, time_grids
from tests.support.calls import (
    ANY_STATE,
    COUNT,
    FIELD,
    FUNCTIONS,
    GRID,
    INF,
    NAN,
    NO_GRID,
    PATH,
    PATHS,
    POSITIVE,
    SCALE,
    TIME,
    Case,
    Choices,
    fuzz,
    numbers,
    plain,
)

SIZE = numbers(0.5, 0, 1.0, refused=(-1.0, INF), low=0, high=4)
BUILD = Choices((lambda field: solvers.euler(guidance.given(field, 0)),), (*FUNCTIONS, lambda field: field))
CASES = [
    Case(
        "solvers.effective_scale",
        solvers.effective_scale,
        {
            "path": Choices((PATH,), PATHS.refused),
            "scale": SCALE,
            "t": TIME._replace(allowed=(0.25, np.float64(0.5)), more=None),
            "t_next": TIME._replace(allowed=(0.75, 1.0), more=None),
        },
        lambda path, scale, t, t_next: scale * t_next * (1 - t) / (t_next - t),
        tolerance=1e-2,
    ),
    *(
        Case(
            f"solvers.{count.__name__}",
            count,
            {
                "build": BUILD,
                "field": Choices((lambda x, t, y: x,), FUNCTIONS),
                "x": ANY_STATE._replace(allowed=ANY_STATE.allowed[:8]),
                "ts": GRID._replace(refused=NO_GRID),
            },
            lambda build, field, x, ts, each=each: np.full(len(ts) - 1, each),
        )
        for count, each in ((solvers.num_function_evaluations, 1), (solvers.num_vector_jacobian_products, 0))
    ),
    *(
        Case(f"solvers.{name}", lambda strength, make=make: make(strength)(0.5), {"strength": SIZE})
        for name, make in (
            ("root_linear", solvers.root_linear),
            ("decreasing", solvers.decreasing),
            ("increasing_decreasing", solvers.increasing_decreasing),
        )
    ),
    Case("solvers.constant", lambda value: solvers.constant(value)(0.5), {"value": SIZE}, lambda value: plain(value)),
    Case(
        "solvers.diffusion_step",
        lambda diffusion: solvers.diffusion_step(diffusion)(0.25, 0.5),
        {"diffusion": Choices((lambda t: 2.0,), FUNCTIONS)},
        lambda diffusion: 1.0,
    ),
    *(
        Case(
            f"solvers.time_grids.{name}",
            lambda num_steps, make=make: make(num_steps)[jnp.array([0, -1])],
            {"num_steps": COUNT},
            lambda num_steps: np.array([0.0, 1.0]),
        )
        for name, make in (("uniform", time_grids.uniform), ("cosine", time_grids.cosine))
    ),
    Case(
        "solvers.time_grids.karras",
        lambda path, num_steps, rho: time_grids.karras(path, num_steps, rho)[-1],
        {"path": PATHS, "num_steps": COUNT._replace(allowed=(2, 5), more=None).but(refused=(1,)), "rho": POSITIVE},
        lambda path, num_steps, rho: 1.0,
    ),
    Case(
        "solvers.time_grids.logit_normal",
        lambda num_steps, mean, std: time_grids.logit_normal(num_steps, mean, std)[0],
        {"num_steps": COUNT, "mean": numbers(0.5, 0, -1, refused=(INF,)), "std": POSITIVE},
        lambda num_steps, mean, std: 0.0,
    ),
    Case(
        "solvers.time_grids.sigmoid, shifted",
        lambda num_steps, reach, shift: time_grids.shifted(time_grids.sigmoid(num_steps, reach), shift)[-1],
        {"num_steps": COUNT, "reach": POSITIVE, "shift": POSITIVE},
        lambda num_steps, reach, shift: 1.0,
    ),
    Case(
        "solvers.time_grids.insert_times",
        lambda ts, points: time_grids.insert_times(ts, points)[[0, -1]],
        {
            "ts": GRID._replace(refused=NO_GRID),
            "points": Choices(((), [0.0], (0.0, 1.0)), ((NAN,), ("a",), (1j,), 0.5, None)),
        },
        lambda ts, points: plain(ts)[[0, -1]],
        tolerance=1e-2,
    ),
    Case(
        "solvers.adaptive.integrate",
        lambda field, x, start, stop, rtol, max_steps: (
            adaptive.integrate(field, x, start, stop, rtol, 1e-3, max_steps).x
        ),
        {
            "field": FIELD,
            "x": ANY_STATE._replace(allowed=(np.ones(2), jnp.ones(2), np.ones(2, int), 0.5)),
            "start": TIME._replace(allowed=(0, 0.25), more=None),
            "stop": TIME._replace(allowed=(1, 0.75), more=None),
            "rtol": numbers(0.01, refused=(0, -1, 2.0, INF)),
            "max_steps": COUNT._replace(allowed=(256,), more=None),
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


@pytest.mark.parametrize(
    ("edges", "num_pieces"), [((0.5,), 1), ((0.5,), 3), ((0.5, 0.5), 3), ((0.5, 0.2), 3), ((NAN,), 2)]
)
def test_pieces_that_do_not_fit_their_edges_are_refused(edges, num_pieces):
    with pytest.raises(ValueError, match=r"edges must increase|pieces must be one more than edges"):
        Piecewise(edges, (lambda x, t: x,) * num_pieces)
