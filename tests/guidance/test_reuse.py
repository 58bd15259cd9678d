"""Guidance that spares evaluations of the null side: what it counts, what it makes of them, and where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.types import ReuseSchedule

NULL = 8
TS = np.linspace(0, 1, 17, dtype=np.float32)
FIELD = mixtures.ring(NULL).vector_field(paths.linear())
PAIR = guidance.pair(FIELD, NULL)
KEY = jax.random.key(0)
NOISE = jax.random.normal(jax.random.key(1), (6, 2))


def scheduled(words, order=1, ts=TS):
    evaluated = tuple({"e": "every", "f": "first", "n": "none"}[letter] for letter in words)
    return ReuseSchedule(tuple(ts.tolist()), evaluated, order)


def reused_end(schedule, scale=2.0, pair=PAIR, ts=TS, make_solver=solvers.heun, y=1):
    def end(x):
        solver = solvers.with_field_state(make_solver, guidance.reused(pair, scale, y, schedule))
        return solvers.integrate(solver, KEY, x, ts)

    return jax.jit(jax.vmap(end))(NOISE)


def plain_end(scale=2.0, pair=PAIR, ts=TS, make_solver=solvers.heun, y=1):
    field = guidance.given(guidance.extrapolate(pair, scale), y)
    return jax.jit(jax.vmap(lambda x: solvers.integrate(make_solver(field), KEY, x, ts)))(NOISE)


@pytest.mark.parametrize("make_solver", [solvers.euler, solvers.heun, solvers.rk4])
def test_evaluating_everywhere_is_the_guided_field_bitwise(make_solver):
    found = reused_end(scheduled("e" * 16), make_solver=make_solver)
    np.testing.assert_array_equal(found, plain_end(make_solver=make_solver))


@pytest.mark.parametrize("words", ["f" * 16, "fn" * 8, "een" * 5 + "n"])
def test_scale_1_is_the_labelled_field_bitwise_whatever_is_known(words):
    found = reused_end(scheduled(words), jnp.float32(1.0))
    np.testing.assert_array_equal(found, plain_end(jnp.float32(1.0)))


def _pair_apart(difference):
    """Two sides of which the difference is a function of t alone."""

    def labelled(x, t, y):
        return jnp.cos(x) + t

    return guidance.autoguidance_pair(labelled, lambda x, t, y: labelled(x, t, y) - difference(t))


@pytest.mark.parametrize("words", ["fnnn" * 3, "n" * 12])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_difference_that_is_a_polynomial_of_the_order_is_extrapolated_exactly(order, words):
    schedule = scheduled("eeef" + words, order)  # two evaluations at one time are one: no quotient of 0
    same, other = (_pair_apart(lambda t, n=n: (1 + 2 * t) ** n) for n in (order, order + 1))
    np.testing.assert_allclose(reused_end(schedule, pair=same), plain_end(pair=same), atol=2e-4)
    assert np.max(np.abs(reused_end(schedule, pair=other) - plain_end(pair=other))) > 2e-3


def _runs_of(build):
    """How often each example evaluates the field while the compiled program runs."""
    count = []

    def counted(x, t, y):
        jax.debug.callback(lambda *_: count.append(1), x, y)
        return FIELD(x, t, y)

    jax.block_until_ready(jax.jit(jax.vmap(lambda x: solvers.integrate(build(counted), KEY, x, TS)))(NOISE))
    jax.effects_barrier()
    return len(count) / len(NOISE)


@pytest.mark.parametrize(
    ("words", "scale", "wanted"),
    [
        ("e" * 16, 2.0, [4] * 16),
        ("f" * 16, 2.0, [3] * 16),
        ("fn" * 8, 2.0, [3, 2] * 8),
        ("en" * 8, 2.0, [4, 2] * 8),
        ("fn" * 8, guidance.interval(2.0, 0.1, 0.9), [2, 2, *[3, 2] * 6, 2, 2]),
        ("fnnn" * 4, guidance.interval(2.0, 3 / 16, 0.5), [2] * 3 + [3, 3, 2, 2, 2] + [2] * 8),
    ],
)
def test_spared_evaluations_are_not_counted_and_not_run(words, scale, wanted):
    def build(field):
        pair = guidance.pair(field, NULL)
        return solvers.with_field_state(solvers.heun, guidance.reused(pair, scale, 1, scheduled(words)))

    counted = solvers.num_function_evaluations(build, FIELD, NOISE[0], TS)
    assert counted.tolist() == wanted
    assert _runs_of(build) == sum(wanted)


def test_rules_that_take_turns_are_traced_once_each():
    traced = []

    def field(x, t, y):
        traced.append(1)
        return FIELD(x, t, y)

    reused_end(scheduled("fn" * 8), pair=guidance.pair(field, NULL))
    few = len(traced)
    reused_end(scheduled("fnnenfnenfnfnnen"), pair=guidance.pair(field, NULL))
    # three rules of two evaluations each, traced for types and values: far under the 32 of the whole solve
    assert few <= 16 and len(traced) - few <= 24


def test_the_order_of_heuns_rule_is_that_of_the_extrapolation():
    exact = plain_end(ts=np.linspace(0, 1, 129, dtype=np.float32), make_solver=solvers.rk4)
    for order, slope in ((0, 1), (1, 2)):
        errors = []
        for num_steps in (16, 32, 64):
            ts = np.linspace(0, 1, num_steps + 1, dtype=np.float32)
            found = reused_end(guidance.reuse_every(ts, 1, order), ts=ts)
            errors.append(np.sqrt(np.mean((found - exact) ** 2)))
        assert np.polyfit(np.log([16, 32, 64]), np.log(errors), 1)[0] == pytest.approx(-slope, abs=0.35)


def test_outside_an_interval_the_labelled_field_is_alone():
    scale = guidance.interval(3.0, 0.25, 0.75)
    found = reused_end(scheduled("n" * 4 + "e" * 8 + "n" * 4), scale)
    np.testing.assert_array_equal(found, plain_end(scale))
    between = reused_end(scheduled("n" * 16), scale)
    assert np.all(np.isfinite(between)) and np.max(np.abs(between - found)) > 1e-2


def test_it_acts_on_pairs_of_other_rules_and_through_other_builds():
    pair = guidance.projected(paths.linear(), PAIR)
    np.testing.assert_array_equal(reused_end(scheduled("e" * 16), pair=pair), plain_end(pair=pair))
    field = guidance.reused(PAIR, 2.0, 1, scheduled("e" * 16), guidance.rescaled).pieces[0]
    found, _ = field.apply(NOISE[0], jnp.float32(0.5), field.init(NOISE[0]))
    np.testing.assert_array_equal(found, guidance.rescaled(PAIR, 2.0)(NOISE[0], jnp.float32(0.5), 1))


def test_a_traced_interval_evaluates_by_the_schedule_everywhere():
    def end(edge):
        return reused_end(scheduled("e" * 16), guidance.interval(3.0, edge, 0.75))

    np.testing.assert_allclose(jax.jit(end)(0.25), plain_end(guidance.interval(3.0, 0.25, 0.75)), atol=0.05)


def test_nothing_is_known_before_the_schedule_begins():
    late = reused_end(scheduled("fn" * 8), ts=TS[1:])
    assert np.all(np.isnan(late))
    assert np.all(np.isfinite(reused_end(scheduled("fn" * 8), ts=TS[2:])))


def test_a_decreasing_grid_goes_its_own_way():
    back = TS[::-1].copy()
    found = reused_end(scheduled("fn" * 8, ts=back), ts=back)
    assert np.all(np.isfinite(found))
    np.testing.assert_array_equal(reused_end(scheduled("e" * 16, ts=back), ts=back), plain_end(ts=back))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluated": ("every",) * 3}, r"schedule\.evaluated must be 16 words for the steps, got 3"),
        ({"evaluated": ("often",) * 16}, r"schedule\.evaluated must be one of every, first, none, got 'often'"),
        ({"order": 9}, r"schedule\.order must be"),
        ({"ts": (0.0, 0.5, 0.2)}, r"schedule\.ts must increase"),
    ],
)
def test_a_schedule_that_is_none_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        guidance.reused(PAIR, 2.0, 1, scheduled("e" * 16)._replace(**change))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda pair, scale: guidance.stages(pair, (0.5,), (scale, 0.0)), ValueError, r"in pieces with the edges \(0"),
        (lambda pair, scale: 3, TypeError, r"build must give a field, got int"),
    ],
)
def test_a_build_that_makes_no_one_field_is_named(build, error, message):
    field = guidance.reused(PAIR, 2.0, 1, scheduled("fn" * 8), build)
    for piece in field.pieces[:2]:
        with pytest.raises(error, match=message):
            piece.apply(NOISE[0], jnp.float32(0.5), piece.init(NOISE[0]))


def test_what_is_several_pieces_is_built_once():
    built = []

    @piecewise
    def doubled(value):
        built.append(value)
        return [value, value]

    one, other = object(), object()
    found = doubled(Piecewise((0.25, 0.5, 0.75), (one, other, one, other)))
    assert built == [one, other]
    assert found.pieces[0] is found.pieces[2] and found.pieces[1] is found.pieces[3]
