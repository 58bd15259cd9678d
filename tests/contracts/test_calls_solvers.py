"""Calls of the solvers: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, solvers
from tests.support.calls import (
    ANY_STATE,
    COUNT,
    FIELD,
    FUNCTIONS,
    GRID,
    INF,
    KEY,
    KEYS,
    LABEL,
    MIXTURE,
    NAN,
    NO_GRID,
    NULL_OR_LABEL,
    NUM_CLASSES,
    PATH,
    PATHS,
    TIME,
    UP,
    WORDS,
    Case,
    Choices,
    fuzz,
    numbers,
    plain,
)
from tests.support.tables import SOLVERS, solvers_that, weighing

DOWN = UP[::-1]
EXACT = MIXTURE.vector_field(PATH)
PAIR = guidance.pair(EXACT, NUM_CLASSES)
PAIRS = Choices((PAIR,), (EXACT, None, "pair", (1, 2)))
Y = NULL_OR_LABEL._replace(refused=LABEL.refused)
SHORT = jnp.array([0.25, 0.5], jnp.float32)
SIZE = numbers(0.5, 0, 1.0, refused=(-1.0, INF), low=0, high=4)
AMOUNTS = {"amount": SIZE, "noise_scale": SIZE, "start": TIME, "stop": TIME}
DIFFUSION = Choices(
    (solvers.constant(0.5), solvers.root_linear(), lambda t: 0.0, lambda t: t),
    (*FUNCTIONS, lambda t: -1.0, lambda t: 1 / t, lambda t: jnp.ones(1), lambda t: "one", lambda t: NAN, lambda t: 1j),
)
STEP_SIZE = Choices((lambda t, t_next: 0.01,), (*FUNCTIONS, lambda t, t_next: jnp.ones(2), lambda t, t_next: "one"))
SOLVER = Choices(
    (solvers.euler(lambda x, t: x), solvers.heun(lambda x, t: x)), (None, "heun", solvers.heun, lambda x: x)
)
MAKER = Choices((solvers.euler, solvers.heun), (*FUNCTIONS, lambda field: field, lambda field: None))
NOT_OF_A_FIELD = "cfg_plus_plus", "with_field_state", "jump"
OF_A_FIELD = [name for name in solvers_that(is_stochastic=False) if name not in NOT_OF_A_FIELD]
"""Those whose field is called by the name."""


def _solve(solver, x=SHORT, ts=SHORT, key=KEY):
    return solvers.integrate(solver, key, x, ts)


def _once(solver, x):
    """The end of a grid of one step."""
    return solvers.integrate(solver, KEY, x, SHORT)


def _langevin(score, step_size, num_corrections):
    return _solve(solvers.langevin_corrected(solvers.euler(lambda x, t: x), score, step_size, num_corrections))


def _tilted(pair, y, scale, diffusion, threshold, x):
    return solvers.solve(solvers.feynman_kac(PATH, pair, y, scale, diffusion, threshold), KEY, x, SHORT)[0].x


def _predicted(labelled, guided, step_size, make_solver):
    return _solve(solvers.predictor_corrector_guidance(PATH, labelled, guided, step_size, 1, make_solver))


POPULATION = Choices(
    (jnp.ones((3, 2)), np.ones((1, 2)), np.ones((2, 2), int)), (np.ones((2, 2), complex), jnp.ones((0, 2)), 1.0)
)
WEIGHING = weighing(PATH, lambda x, t: -x)
LOG_WEIGHTS = Choices(
    (np.array([-INF, 0, -INF]), jnp.array([-900.0, 5.0, -900.0]), np.array([0, 900, 0])),
    (
        3,
        0.5,
        None,
        "ab",
        [0.0, 1.0],
        np.ones((2, 2)),
        jnp.ones(0),
        np.array([NAN, 0]),
        jnp.array([INF, 0]),
        np.full(2, -INF),
        np.ones(2, complex),
    ),
)
REMEMBERED = guidance.adaptive_projected(PATH, PAIR, 2.0, 1)
CASES = [
    Case(
        "solvers.integrate: a state without motion stays",
        lambda solver, key, x, ts: solvers.integrate(solver, key, x, ts),
        {
            "solver": SOLVER._replace(allowed=(solvers.heun(lambda x, t: jnp.zeros_like(x)),)),
            "key": KEYS,
            "x": ANY_STATE,
            "ts": GRID._replace(refused=NO_GRID).but(allowed=(DOWN, [0.0, 0.5, 1.0])),
        },
        lambda solver, key, x, ts: plain(x),
    ),
    Case(
        "solvers.solve",
        lambda solver, key, x, ts, observe: solvers.solve(solver, key, x, ts, observe)[0].x,
        {
            "solver": SOLVER._replace(allowed=(solvers.heun(lambda x, t: jnp.zeros_like(x)),)),
            "key": KEYS,
            "x": ANY_STATE,
            "ts": GRID._replace(refused=NO_GRID),
            "observe": Choices((None, lambda carry, t: t), FUNCTIONS[1:]),
        },
        lambda solver, key, x, ts, observe: plain(x),
    ),
    Case(
        "solvers.euler_step",
        lambda field, x, t: solvers.euler_step(field)(x, t, t),
        {"field": FIELD, "x": ANY_STATE._replace(allowed=ANY_STATE.allowed[2:4]), "t": TIME._replace(refused=())},
        lambda field, x, t: plain(x),
    ),
    Case(
        "solvers.integrate: dx = 1",
        lambda x, ts: _solve(solvers.euler(lambda x, t: jnp.ones_like(x)), x, ts),
        {"x": ANY_STATE, "ts": GRID._replace(refused=NO_GRID)},
        lambda x, ts: plain(x) + plain(ts)[-1] - plain(ts)[0],
    ),
    Case(
        "solvers.integrate: forwards only",
        lambda ts: _solve(solvers.churn(PATH, lambda x, t: x, 0.1), SHORT, ts),
        {"ts": GRID},
    ),
    *(
        Case(
            f"solvers.{name}",
            lambda field, x, name=name: _once(SOLVERS[name].build(PATH, field), x),
            {"field": FIELD, "x": ANY_STATE},
        )
        for name in OF_A_FIELD
    ),
    *(
        Case(
            f"solvers.{name}",
            lambda path, field, diffusion, rule=rule: _solve(rule(path, field, diffusion)),
            {"path": PATHS, "field": FIELD, "diffusion": DIFFUSION},
        )
        for name, rule in (("euler_maruyama", solvers.euler_maruyama), ("stochastic_heun", solvers.stochastic_heun))
    ),
    Case(
        "solvers.jump",
        lambda flow_map, x: _once(solvers.jump(flow_map), x),
        {"flow_map": FIELD, "x": ANY_STATE},
        lambda flow_map, x: plain(x) + 0.25 * plain(flow_map(x, 0.25, 0.5)),
    ),
    Case(
        "solvers.renoised_jump: to data",
        lambda path, flow_map, amount: _solve(
            solvers.renoised_jump(path, flow_map, amount), ts=jnp.array([0.5, 1.0], jnp.float32)
        ),
        {
            "path": PATHS,
            "flow_map": FIELD,
            "amount": numbers(0.5, 0, 1, refused=(-0.5, 1.5, INF), low=0, high=1),
        },
        lambda path, flow_map, amount: plain(SHORT) + 0.5 * plain(flow_map(SHORT, 0.5, 1.0)),
    ),
    Case(
        "solvers.churn",
        lambda path, field, **amounts: _solve(solvers.churn(path, field, **amounts)),
        {"path": PATHS, "field": FIELD} | AMOUNTS,
    ),
    Case(
        "solvers.langevin_corrected",
        _langevin,
        {"score": FIELD, "step_size": STEP_SIZE, "num_corrections": COUNT._replace(refused=(-1, 2.5, NAN, *WORDS))},
    ),
    Case(
        "solvers.predictor_corrector_guidance",
        _predicted,
        {"labelled": FIELD, "guided": FIELD, "step_size": STEP_SIZE, "make_solver": MAKER},
        named={"labelled": "labelled|field", "guided": "guided|field", "make_solver": "make_solver|solver"},
    ),
    Case(
        "solvers.with_final_step",
        lambda solver, last: _solve(solvers.with_final_step(solver, last), ts=jnp.array([0.5, 1.0])),
        {
            "solver": SOLVER,
            "last": Choices(
                (solvers.euler_step(lambda x, t: x), lambda x, t, t_next: np.zeros(2, int)),
                (*FUNCTIONS, lambda x, t, t_next: jnp.ones(1), lambda x, t, t_next: "end", lambda x, t, t_next: 1j * x),
            ),
        },
    ),
    Case(
        "solvers.tweedie_step, mean_step",
        lambda path, field, diffusion: (
            solvers.tweedie_step(path, field)(SHORT, 0.5, 1.0),
            solvers.mean_step(path, field, diffusion)(SHORT, 0.5, 1.0),
        ),
        {"path": PATHS, "field": FIELD, "diffusion": Choices(DIFFUSION.allowed, FUNCTIONS)},
    ),
    Case(
        "solvers.reversible",
        lambda make_solver, coupling, partner: _solve(
            solvers.reversible(make_solver, lambda x, t: x, coupling, partner)
        ),
        {
            "make_solver": MAKER,
            "coupling": numbers(0.5, 1, 0.999, refused=(0, 1.5, -1.0, INF), low=0.125, high=1),
            "partner": Choices(
                (None, SHORT, np.ones(2)), (jnp.ones(3), jnp.ones(1), 1.0, "partner", np.ones(2, complex))
            ),
        },
    ),
    Case(
        "solvers.with_field_state",
        lambda make_solver, field: _solve(solvers.with_field_state(make_solver, field)),
        {"make_solver": MAKER, "field": Choices((REMEMBERED,), (*FUNCTIONS, lambda x, t: x, PAIR))},
    ),
    Case(
        "solvers.systematic_resampling",
        solvers.systematic_resampling,
        {
            "key": KEYS,
            "log_weights": LOG_WEIGHTS,
        },
        lambda key, log_weights: np.ones(3),
    ),
    Case(
        "solvers.effective_sample_size: one particle has it all",
        solvers.effective_sample_size,
        {"log_weights": LOG_WEIGHTS},
        lambda log_weights: np.ones(()),
    ),
    Case(
        "solvers.population",
        lambda one, threshold, x: solvers.solve(solvers.population(one, threshold), KEY, x, SHORT)[0].log_weights,
        {
            "one": Choices((WEIGHING,), SOLVER.refused),
            "threshold": numbers(0.5, 0, 1, refused=(-0.5, 1.5, INF)),
            "x": POPULATION,
        },
    ),
    Case(
        "solvers.feynman_kac",
        _tilted,
        {
            "pair": PAIRS,
            "y": Y,
            "scale": numbers(2.5, 0, 1, -1, refused=(NAN, INF, lambda t: t, guidance.interval(2.0, 0, 1))),
            "diffusion": DIFFUSION,
            "threshold": numbers(0.5, 0, 1, refused=(-0.5, 1.5, INF)),
            "x": POPULATION,
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


@pytest.mark.parametrize("name", OF_A_FIELD)
def test_no_field_is_spread_over_the_state(name):
    """One number for a whole state would have been added to each of its coordinates."""
    for value in (jnp.ones(()), jnp.ones(1), jnp.ones((2, 1))):
        with pytest.raises(ValueError, match=r"must give the shape \(2,\), got"):
            jax.jit(lambda x, value=value: _solve(SOLVERS[name].build(PATH, lambda x, t: value), x))(SHORT)


def test_a_traced_grid_is_checked_for_its_shape_and_type_alone():
    solve = jax.jit(lambda ts: _solve(solvers.euler(lambda x, t: jnp.ones_like(x)), jnp.zeros(2), ts))
    np.testing.assert_allclose(solve(jnp.array([0.0, 2.0])), 2.0)
    for ts in (jnp.ones((2, 2)), jnp.arange(2)):
        with pytest.raises(ValueError, match="ts must be"):
            solve(ts)
