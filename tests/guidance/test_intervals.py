"""Guidance intervals: what they give, at what cost, and how pieces stack."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers
from cfgjax.piecewise import Piecewise, piecewise

NULL, Y = 5, 1
KEY = jax.random.key(0)
START = jnp.array([0.6, -1.1])
FIELD = mixtures.ring(NULL, radius=1.0, std=0.5).vector_field(paths.linear())


def _counting(field, calls):
    """The field, noting the label of each evaluation as it runs; under vmap each label is noted."""

    def counted(x, t, y):
        jax.debug.callback(lambda x, y: calls.append(int(y)), x, y)
        return field(x, t, y)

    return counted


def _evaluations(build, ts, trace_times=False):
    """The labels at which the field is evaluated in one compiled solve of ``build(field)``."""
    calls = []
    solver = build(_counting(FIELD, calls))
    run = jax.jit(lambda x, ts: solvers.integrate(solver, KEY, x, ts))
    end = run(START, ts) if trace_times else jax.jit(lambda x: solvers.integrate(solver, KEY, x, ts))(START)
    jax.effects_barrier()
    return end, calls


def _build(make_solver, scale):
    return lambda field: make_solver(guidance.given(guidance.classifier_free(field, scale, NULL), Y))


@pytest.mark.parametrize(("make_solver", "stages"), [(solvers.euler, 1), (solvers.heun, 2)])
@pytest.mark.parametrize("trace_times", [False, True], ids=["concrete grid", "traced grid"])
def test_outside_the_interval_one_evaluation_is_made(make_solver, stages, trace_times):
    """10 steps, 4 of them inside [0.3, 0.7): 4 * 2 + 6 * 1 evaluations a stage; the null label inside only."""
    ts = jnp.linspace(0, 1, 11)
    _, calls = _evaluations(_build(make_solver, guidance.interval(4.0, 0.3, 0.7)), ts, trace_times)
    assert len(calls) == stages * (4 * 2 + 6)
    assert calls.count(NULL) == stages * 4
    _, everywhere = _evaluations(_build(make_solver, 4.0), ts, trace_times)
    assert len(everywhere) == stages * 20


def test_a_batch_pays_for_the_outside_once_as_well():
    calls = []
    guided = guidance.classifier_free(_counting(FIELD, calls), guidance.interval(4.0, 0.3, 0.7), NULL)
    solver = solvers.euler(guidance.given(guided, Y))
    ts = np.linspace(0, 1, 11, dtype=np.float32)
    jax.jit(jax.vmap(lambda x: solvers.integrate(solver, KEY, x, ts)))(jnp.stack([START, -START, 2 * START]))
    jax.effects_barrier()
    assert len(calls) == 3 * (4 * 2 + 6)


@pytest.mark.parametrize("make_solver", [solvers.euler, solvers.heun])
def test_the_pieces_are_solved_one_after_another(make_solver):
    """[0, 0.3] labelled, [0.3, 0.7] guided, [0.7, 1] labelled, as three solves."""
    solver = _build(make_solver, guidance.interval(4.0, 0.3, 0.7))(FIELD)
    found = solvers.integrate(solver, KEY, START, np.linspace(0, 1, 11, dtype=np.float32))
    ts, x = jnp.linspace(0, 1, 11), START
    labelled = make_solver(lambda x, t: FIELD(x, t, jnp.asarray(Y)))
    guided = _build(make_solver, 4.0)(FIELD)
    for part, solver in ((ts[:4], labelled), (ts[3:8], guided), (ts[7:], labelled)):
        x = solvers.integrate(solver, KEY, x, part)
    np.testing.assert_allclose(found, x, rtol=1e-5)
    plain = solvers.integrate(guided, KEY, START, ts)
    assert float(jnp.max(jnp.abs(found - plain))) > 1e-2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("make_solver", "order"), [(solvers.euler, 1), (solvers.heun, 2)])
def test_a_solver_keeps_its_order_where_the_edges_lie_on_the_grid(make_solver, order):
    """A field that jumps inside a step, or at a second stage, would leave order 1."""
    solver = _build(make_solver, guidance.interval(4.0, 0.25, 0.75))(FIELD)

    def end(num_steps):
        return solvers.integrate(solver, KEY, jnp.asarray(START, jnp.float64), np.linspace(0, 1, num_steps + 1))

    fine = _build(solvers.heun, guidance.interval(4.0, 0.25, 0.75))(FIELD)
    exact = solvers.integrate(fine, KEY, jnp.asarray(START, jnp.float64), np.linspace(0, 1, 8193))
    steps = np.array([64, 128, 256])
    errors = [float(jnp.linalg.norm(end(num_steps) - exact)) for num_steps in steps]
    assert abs(-np.polyfit(np.log(steps), np.log(errors), 1)[0] - order) < 0.15


def test_observations_cover_all_pieces_and_step_keys_run_on():
    """A split solve observes all n + 1 times, and step i has the key fold_in(key, i) in every piece."""
    field = guidance.classifier_free(FIELD, guidance.interval(4.0, 0.3, 0.7), NULL)
    path, ts = paths.linear(), np.linspace(0, 1, 11, dtype=np.float32)
    solver = solvers.euler_maruyama(path, guidance.given(field, Y), solvers.root_beta(path))
    end, (states, times) = solvers.integrate(solver, KEY, START, ts, observe=lambda carry, t: (carry.x, t))
    np.testing.assert_array_equal(times, ts)
    np.testing.assert_array_equal(states[-1], end)
    x = START
    for i, (t, t_next) in enumerate(itertools.pairwise(ts)):
        piece = solver.pieces[0 if t < 0.29 else 1 if t < 0.69 else 2]
        x = piece.step(jax.random.fold_in(KEY, i), piece.init(x), jnp.asarray(t), jnp.asarray(t_next)).x
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-4, atol=1e-5)


def test_the_way_back_takes_the_same_pieces():
    """There and back with many Heun steps returns to the start: each piece is used on the same part of time."""
    solver = _build(solvers.heun, guidance.interval(3.0, 0.25, 0.75))(FIELD)
    ts = np.linspace(0, 0.95, 381, dtype=np.float32)
    there = solvers.integrate(solver, KEY, START, ts)
    back = solvers.integrate(solver, KEY, there, ts[::-1].copy())
    np.testing.assert_allclose(back, START, atol=2e-3)


def test_traced_edges_give_the_same_field():
    """As in a sweep over intervals: start and stop are arguments of one compiled function."""
    times = jnp.linspace(0, 1, 21)

    def at(start, stop):
        guided = guidance.classifier_free(FIELD, guidance.interval(4.0, start, stop), NULL)
        return jax.vmap(lambda t: guided(START, t, jnp.asarray(Y)))(times)

    swept = jax.jit(jax.vmap(at))(jnp.array([0.0, 0.3]), jnp.array([0.5, 1.0]))
    for row, (start, stop) in zip(swept, ((0.0, 0.5), (0.3, 1.0)), strict=True):
        np.testing.assert_allclose(row, at(start, stop), rtol=1e-5)


def test_an_interval_holds_a_schedule_of_time_and_label():
    scale = guidance.interval(lambda t, y: 2 * t + y, 0.2, 0.8)
    assert float(guidance.scale_at(scale, 0.5, 3)) == 4.0
    assert float(guidance.scale_at(scale, 0.1, 3)) == 1.0
    assert float(guidance.scale_at(scale, 0.2, 3)) == pytest.approx(3.4)
    assert float(guidance.scale_at(scale, 0.8, 3)) == 1.0


def test_a_scale_of_label_gives_each_example_its_own():
    table = jnp.array([1.0, 5.0, 2.0, 0.0, 3.0])
    guided = guidance.classifier_free(FIELD, lambda t, y: table[y] + t, NULL)
    found = jax.vmap(guided, in_axes=(None, None, 0))(START, jnp.float32(0.5), jnp.arange(NULL))
    for y in range(NULL):
        expected = guidance.classifier_free(FIELD, float(table[y]) + 0.5, NULL)(START, jnp.float32(0.5), jnp.asarray(y))
        np.testing.assert_allclose(found[y], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "zero_based_scale", [2.0, lambda t: 2.0 + 0 * t, lambda t, y: 2.0 + 0 * t], ids=["number", "of t", "of t and y"]
)
def test_from_zero_based_scale_is_the_papers_convention(zero_based_scale):
    """u_y + s (u_y - u_null) is w = 1 + s."""
    x, t, y = START, jnp.float32(0.4), jnp.asarray(Y)
    null, labelled = FIELD(x, t, jnp.asarray(NULL)), FIELD(x, t, y)
    found = guidance.classifier_free(FIELD, guidance.from_zero_based_scale(zero_based_scale), NULL)(x, t, y)
    np.testing.assert_allclose(found, labelled + 2.0 * (labelled - null), rtol=1e-4)


def test_rules_stack_on_an_interval():
    """A threshold over rescaled guidance in an interval: pieces at its edges, each the stack of its piece."""
    path, pair = paths.linear(), guidance.pair(FIELD, NULL)
    inner = guidance.rescaled(pair, guidance.interval(4.0, 0.3, 0.7), 0.5)
    stacked = guidance.static_threshold(path, inner, 0.9)
    assert isinstance(stacked, Piecewise)
    assert stacked.edges == (0.3, 0.7)
    for t, part in ((0.1, FIELD), (0.5, guidance.rescaled(pair, 4.0, 0.5)), (0.9, FIELD)):
        expected = guidance.static_threshold(path, part, 0.9)(START, jnp.float32(t), jnp.asarray(Y))
        np.testing.assert_allclose(stacked(START, jnp.float32(t), jnp.asarray(Y)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make_solver", "stages"), [(solvers.euler, 1), (solvers.heun, 2)])
def test_a_start_without_movement_costs_nothing(make_solver, stages):
    """zero_init over an interval: three edges; 2 still steps, 1 labelled, 4 guided, 3 labelled."""

    def build(field):
        guided = guidance.classifier_free(field, guidance.interval(4.0, 0.3, 0.7), NULL)
        return make_solver(guidance.given(guidance.zero_init(guided, 0.2), Y))

    ts = np.linspace(0, 1, 11, dtype=np.float32)
    end, calls = _evaluations(build, ts)
    assert len(calls) == stages * (1 + 2 * 4 + 3)
    each = solvers.num_function_evaluations(build, FIELD, START, ts)
    assert each.tolist() == [stages * count for count in (0, 0, 1, 2, 2, 2, 2, 1, 1, 1)]
    solver = _build(make_solver, guidance.interval(4.0, 0.3, 0.7))(FIELD)
    np.testing.assert_allclose(end, solvers.integrate(solver, KEY, START, ts[2:]), rtol=1e-5)


@functools.cache
def _end_of_two_edges():
    """The exact end of the flow that is guided on [0.25, 0.75], by many steps; in double precision."""
    field = _build(solvers.heun, guidance.interval(4.0, 0.25, 0.75))(FIELD)
    return np.asarray(solvers.integrate(field, KEY, jnp.asarray(START, jnp.float64), np.linspace(0, 1, 4097)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("build", "least"),
    [
        (solvers.adams_bashforth, 1.8),
        (lambda field: solvers.dpm_solver(paths.linear(), field), 1.5),
        (lambda field: solvers.unipc(paths.linear(), field), 1.7),
    ],
    ids=["adams_bashforth", "dpm_solver", "unipc"],
)
def test_multistep_rules_forget_at_an_edge(build, least):
    """With the other piece's history every one of them is of order 1."""
    exact, start = _end_of_two_edges(), jnp.asarray(START, jnp.float64)
    solver = _build(build, guidance.interval(4.0, 0.25, 0.75))(FIELD)
    steps = np.array([64, 128, 256])
    errors = [
        float(jnp.linalg.norm(solvers.integrate(solver, KEY, start, np.linspace(0, 1, n + 1)) - exact)) for n in steps
    ]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] > least


def test_the_whole_interval_is_neutral_traced_too():
    """At t = 1 as well, where a field that is learned has two sides."""

    def field(x, t, y):
        return x * (y + 1.0)

    def at(start, stop):
        return guidance.classifier_free(field, guidance.interval(4.0, start, stop), NULL)(START, jnp.float32(1), 1)

    plain = guidance.classifier_free(field, 4.0, NULL)(START, jnp.float32(1), 1)
    np.testing.assert_allclose(at(0.0, 1.0), plain, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(at)(0.0, 1.0), plain, rtol=1e-6)


def test_a_half_precision_field_may_be_piecewise():
    """Pieces of several types give their common one: float32 with a traced scale inside."""

    def field(x, t, y):
        return (x * y).astype(jnp.bfloat16)

    def at(scale):
        guided = guidance.classifier_free(field, guidance.interval(scale, 0.3, 0.7), NULL)
        return guidance.zero_init(guided, 0.1)(START, jnp.float32(0.5), jnp.asarray(2))

    np.testing.assert_allclose(jax.jit(at)(jnp.float32(1.0)), 2 * START, rtol=1e-2)


def test_conversions_keep_the_pieces():
    guided = guidance.classifier_free(FIELD, guidance.interval(4.0, 0.25, 0.75), NULL)
    there = conversions.denoiser_of(paths.linear(), guided)
    back = conversions.field_of_denoiser(paths.linear(), there)
    assert isinstance(back, Piecewise)
    assert back.edges == (0.25, 0.75)
    found = back(START, jnp.float32(0.5), jnp.asarray(Y))
    np.testing.assert_allclose(found, guided(START, jnp.float32(0.5), jnp.asarray(Y)), rtol=1e-4)


def test_pieces_are_refined_to_common_edges():
    """(I2): a function of two piecewise values sees each pair of pieces that meet."""
    one, other = Piecewise((0.5,), ("a", "b")), Piecewise((0.25, 0.75), ("x", "y", "z"))
    joined = piecewise(lambda *values, last: "".join(values) + last)(one, other, last=Piecewise((0.5,), ("-", "+")))
    assert joined == Piecewise((0.25, 0.5, 0.75), ("ax-", "ay-", "by+", "bz+"))


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [
        (-0.1, 0.5, "start must be in"),
        (0.2, 1.5, "stop must be in"),
        (0.5, 0.5, "start must be under stop"),
        (0.8, 0.2, "start must be under stop"),
        (np.nan, 0.5, "start must be in"),
    ],
)
def test_intervals_that_are_none_are_refused(start, stop, words):
    with pytest.raises(ValueError, match=words):
        guidance.interval(2.0, start, stop)


def test_an_interval_of_an_interval_is_refused():
    inner = guidance.interval(2.0, 0.2, 0.8)
    with pytest.raises(ValueError, match="another interval"):
        guidance.interval(inner, 0.3, 0.5)
    with pytest.raises(ValueError, match=r"write interval\(from_zero_based_scale"):
        guidance.from_zero_based_scale(inner)
