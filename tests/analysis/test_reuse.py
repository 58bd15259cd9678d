"""Schedules of reuse for a tolerance: what is predicted of them, what is found, and that it holds."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis import certificates, reuse
from cfgjax.analysis.reuse import ErrorModel, Recorded
from cfgjax.types import ReuseSchedule

KEY, NULL, Y, W = jax.random.key(0), 8, 1, 2.0
TS = np.linspace(0, 1, 9, dtype=np.float32)
NOISE = jax.random.normal(jax.random.key(5), (64, 2))
PAIR = guidance.pair(mixtures.ring(NULL).vector_field(paths.linear()), NULL)


def ends(schedule, pair=PAIR, noise=NOISE, make_solver=solvers.heun):
    def end(x):
        solver = solvers.with_field_state(make_solver, guidance.reused(pair, W, Y, schedule))
        return solvers.integrate(solver, KEY, x, np.asarray(schedule.ts, np.float32))

    return jax.jit(jax.vmap(end))(noise)


def model_of(pair=PAIR, ts=TS, noise=NOISE, make_solver=solvers.heun):
    one = jax.jit(jax.vmap(lambda x: reuse.record(make_solver, pair, KEY, x, ts, W, Y)))
    return reuse.error_model(one(noise))


def _apart(difference):
    """Sides whose difference depends on time alone, on a field that does not move: nothing grows, all adds up."""
    return guidance.autoguidance_pair(
        lambda x, t, y: jnp.zeros_like(x), lambda x, t, y: -difference(t) * jnp.ones_like(x)
    )


@pytest.mark.parametrize("make_solver", [solvers.euler, solvers.heun])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_predicted_error_is_the_errors_sum(order, make_solver):
    pair = _apart(lambda t: jnp.cos(4 * t))
    words = ("first", "every", "none", "first", "none", "none", "first", "every")
    schedule = ReuseSchedule(tuple(TS.tolist()), words, order)
    whole = schedule._replace(evaluated=("every",) * 8)
    found = ends(schedule, pair, make_solver=make_solver) - ends(whole, pair, make_solver=make_solver)
    num_stages = 1 if make_solver is solvers.euler else 2
    predicted = reuse.predicted_error(model_of(pair, make_solver=make_solver), schedule, num_stages)
    assert predicted == pytest.approx(float(np.sqrt(np.mean(found**2))), rel=1e-3)


def test_the_growth_is_that_of_a_linear_field():
    pair = guidance.autoguidance_pair(lambda x, t, y: -x, lambda x, t, y: -x - 1.0)
    growth = model_of(pair, np.linspace(0, 1, 65, dtype=np.float32)).growth
    np.testing.assert_allclose(growth, np.exp(np.linspace(0, 1, 65) - 1), rtol=1e-4)


def test_the_prediction_is_of_the_size_of_the_error_on_the_ring():
    ts = np.linspace(0, 1, 33, dtype=np.float32)
    model = model_of(ts=ts)
    whole = ReuseSchedule(tuple(ts.tolist()), ("every",) * 32)
    exact = ends(whole)
    for period, order in ((2, 0), (4, 2)):
        schedule = guidance.reuse_every(ts, period, order)
        measured = float(np.sqrt(np.mean((ends(schedule) - exact) ** 2)))
        assert 0.5 < reuse.predicted_error(model, schedule) / measured < 2


@pytest.mark.parametrize(
    ("num_null", "order", "ratio"), [(3, 0, 1.2), (3, 1, 1.2), (4, 2, 2.5), (8, 1, 1.0), (1, 1, 1.0)]
)
def test_no_schedule_of_as_many_evaluations_is_predicted_much_better(num_null, order, ratio):
    model = model_of()
    found = reuse.plan(model, TS, num_null, order)
    assert found.schedule.evaluated.count("first") == num_null == found.num_null
    assert found.schedule.evaluated[0] == "first"

    def predicted(at):
        words = tuple("first" if step in (0, *at) else "none" for step in range(8))
        return reuse.predicted_error(model, ReuseSchedule(tuple(TS.tolist()), words, order))

    best = min(predicted(at) for at in combinations(range(1, 8), num_null - 1))
    assert found.error == pytest.approx(reuse.predicted_error(model, found.schedule))
    assert found.error <= ratio * best + 1e-9


def test_the_least_number_within_the_tolerance_is_found():
    model, tried = model_of(), []

    def measure(schedule):
        tried.append(schedule.evaluated.count("first"))
        return 1 / tried[-1]

    found = reuse.solve_schedule(measure, model, TS, 0.22)
    assert (found.num_null, found.error) == (5, 1 / 5)
    assert len(tried) <= 5
    assert reuse.solve_schedule(lambda schedule: 1.0, model, TS, 0.5).schedule.evaluated == ("every",) * 8
    assert reuse.solve_schedule(lambda schedule: 0.0, model, TS, 0.5).num_null == 1


def test_a_law_near_another_has_the_divergence_of_normals():
    matrix, other = jnp.array([[1.1, 0.2], [0.0, 0.9]]), jnp.array([[1.0, 0.1], [0.05, 1.0]])

    def pushed(matrix, shift):
        return lambda z: jnp.sum(matrix * z[None, :], axis=1) + shift

    ratios = jax.vmap(lambda z: certificates.map_log_ratio(pushed(matrix, 0.1), pushed(other, 0.0), z))(
        jax.random.normal(KEY, (4096, 2))
    )
    one, two = (np.asarray(each, np.float64) for each in (matrix, other))
    inverse = np.linalg.inv(two @ two.T)
    product = inverse @ one @ one.T
    shift = np.full(2, 0.1)
    exact = 0.5 * (np.trace(product) - 2 - np.linalg.slogdet(product)[1] + shift @ inverse @ shift)
    for estimate in (certificates.kl_divergence(ratios), certificates.kl_divergence_of_near(ratios)):
        assert abs(float(estimate.value) - exact) < 4 * float(estimate.standard_error)
    assert certificates.kl_divergence_of_near(ratios).standard_error < certificates.kl_divergence(ratios).standard_error


def test_a_map_that_does_not_end_at_the_sample_gives_nan():
    ratio = certificates.map_log_ratio(lambda z: z + 50.0, jnp.tanh, jnp.zeros(2))
    assert np.isnan(ratio)


@pytest.mark.slow
def test_a_third_of_the_evaluations_is_spared_at_a_thousandth_of_a_nat():
    ts, noise = np.linspace(0, 1, 33, dtype=np.float32), jax.random.normal(jax.random.key(6), (512, 2))
    model = model_of(ts=ts, noise=noise)
    plain = solvers.heun(guidance.given(guidance.extrapolate(PAIR, W), Y))

    def divergence(schedule):
        steps = solvers.with_field_state(solvers.heun, guidance.reused(PAIR, W, Y, schedule))
        flows = [lambda z, steps=each: solvers.integrate(steps, KEY, z, ts) for each in (steps, plain)]
        ratios = jax.jit(jax.vmap(lambda z: certificates.map_log_ratio(*flows, z, 6)))(noise)
        return float(certificates.kl_divergence_of_near(ratios).value)

    found = reuse.plan(model, ts, 12, 2)
    assert 1 - (64 + found.num_null) / 128 > 0.4
    assert divergence(found.schedule) < 1e-3
    assert divergence(guidance.reuse_every(ts, 2, 1)) < 1e-3
    assert divergence(guidance.reuse_every(ts, 2, 0)) > 1e-2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reuse.plan(model_of(), TS, 9), "num_null must be at most the 8 steps, got 9"),
        (lambda: reuse.plan(model_of(), TS[:5], 2), r"model\.moments must"),
        (lambda: reuse.error_model(Recorded(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3))), "recorded must be"),
        (lambda: reuse.predicted_error(ErrorModel(np.ones((9, 9)), np.ones(3)), guidance.reuse_every(TS, 2)), "growth"),
    ],
)
def test_what_does_not_belong_together_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
