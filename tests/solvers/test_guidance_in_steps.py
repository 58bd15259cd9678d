"""Rules that guide within the step, and in several solves: one step by hand, limits as steps shrink, exact laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, paths, solvers
from cfgjax.types import Pair
from tests.support import normals

PATH, KEY, Y = paths.linear(), normals.KEY, normals.LABEL
X, T, T_NEXT = jnp.array([0.6, -1.1]), jnp.float32(0.3), jnp.float32(0.5)
TS = np.linspace(0, 1, 5)


def _field(x, t, y):
    """An elementwise field: bitwise the same alone as under vmap."""
    return jnp.sin(3 * x + t) * (y + 1.0)


def _step(solver, x=X, t=T, t_next=T_NEXT):
    return solver.step(KEY, solver.init(x), t, t_next).x


def _compiled(solver, x, t, t_next):
    return jax.jit(lambda x, t, t_next: _step(solver, x, t, t_next))(*map(jnp.asarray, (x, t, t_next)))


def _counted(build):
    return solvers.num_function_evaluations(lambda field: build(guidance.pair(field, 3)), _field, X, TS).tolist()


@pytest.mark.usefixtures("x64")
def test_a_rectified_step_by_hand():
    """Affine fields a t + b x: the predictor is half a step at t, both sides of the corrector stand at t + h / 2."""
    pair = guidance.pair(lambda x, t, y: jnp.where(y == Y, 3.0 * t + 0.5 * x, 1.0 - 2.0 * x), normals.NULL)
    x, t, h, w = np.array([0.6, -1.1]), 0.3, 0.2, 2.5
    middle = x + 0.1 * (3 * t + 0.5 * x)
    expected = x + h * (3 * t + 0.5 * x + (w - 1) * (3 * (t + 0.1) + 0.5 * middle - 1 + 2 * middle))
    found = _compiled(solvers.rectified_cfg_plus_plus(pair, Y, w), x, t, t + h)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    scheduled = solvers.rectified_cfg_plus_plus(pair, Y, lambda t: 1 + 5 * t)
    np.testing.assert_allclose(_compiled(scheduled, x, t, t + h), expected, 1e-12)


@pytest.mark.usefixtures("x64")
def test_rectified_guidance_is_plain_guidance_as_steps_shrink():
    """At w = 2 the mean 1.6232 and variance 1/2 of the guided ODE, to first order: a halved step halves the error."""
    exact = normals.moments(lambda t: (-1.0, 2.0), normals.LAWS)
    solver = solvers.rectified_cfg_plus_plus(normals.pair(PATH), Y, 2.0)
    errors = [np.subtract(normals.end_of(solver, number), exact) for number in (200, 400)]
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.03)
    np.testing.assert_allclose(exact, (1.6232, 0.5), atol=5e-5)


def test_rectified_guidance_at_one_is_eulers_rule_of_the_labelled_field():
    pair = guidance.pair(_field, 3)
    euler = _step(solvers.euler(guidance.given(_field, Y)))
    for one in (1, jnp.float32(1), lambda t: 1.0):
        np.testing.assert_array_equal(_step(solvers.rectified_cfg_plus_plus(pair, Y, one)), euler)
    counts = [_counted(lambda pair, w=w: solvers.rectified_cfg_plus_plus(pair, Y, w)) for w in (1, 2.0)]
    assert counts == [[1] * 4, [3] * 4]


def test_a_projected_step_without_repeats_is_eulers_rule_of_the_guided_field():
    pair = guidance.pair(_field, 3)
    for scale in (0.0, 0.3, 1.0, 2.5):
        expected = _step(solvers.euler(guidance.given(guidance.extrapolate(pair, jnp.float32(scale)), Y)))
        for iterate in (solvers.picard(0), solvers.anderson(0)):
            np.testing.assert_array_equal(_step(solvers.manifold_projected(pair, Y, scale, iterate)), expected)
    counts = [_counted(lambda pair, k=k: solvers.manifold_projected(pair, Y, 2.0, solvers.picard(k))) for k in (0, 3)]
    assert counts == [[2] * 4, [8] * 4]
    accelerated = _counted(lambda pair: solvers.manifold_projected(pair, Y, 2.0, solvers.anderson(3)))
    assert accelerated == [8] * 4


def test_an_iterate_that_gives_another_shape_is_named():
    with pytest.raises(ValueError, match=r"iterate must give the shape \(2,\), got \(1,\)"):
        _step(solvers.manifold_projected(guidance.pair(_field, 3), Y, 2.0, lambda g, x: g(x)[:1]))


@pytest.mark.usefixtures("x64")
def test_a_projected_step_by_hand():
    """Two repeats of half a step back and half a step forth, both at t, then Euler; none from ``stop`` on."""
    null, labelled = lambda x, t: 1.0 - 2.0 * x * t, lambda x, t: 3.0 * t + 0.5 * x
    pair = guidance.pair(lambda x, t, y: jnp.where(y == Y, labelled(x, t), null(x, t)), normals.NULL)
    start, h, w = np.array([0.6, -1.1]), 0.2, 2.5

    def euler(x, t):
        return x + h * (null(x, t) + w * (labelled(x, t) - null(x, t)))

    x, t = start, 0.3
    for _ in range(2):
        x = x - h / 2 * null(x, t)
        x = x + h / 2 * labelled(x, t)
    solver = solvers.manifold_projected(pair, Y, w, stop=0.35)
    found = [_compiled(solver, start, time, time + h) for time in (0.3, 0.4)]
    np.testing.assert_allclose(found, [euler(x, 0.3), euler(start, 0.4)], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_projected_guidance_is_plain_guidance_at_more_as_steps_shrink():
    """(M3): at w = 2 with K = 2 repeats up to T it ends where w + 1 up to T and w from there on do, to first order."""
    exact = normals.moments(lambda t: (-2.0, 3.0) if t < 0.5 else (-1.0, 2.0), normals.LAWS)
    solver = solvers.manifold_projected(normals.pair(PATH), Y, 2.0, solvers.picard(2), stop=0.5)
    errors = [np.subtract(normals.end_of(solver, number), exact) for number in (400, 800)]
    assert np.max(np.abs(errors[0])) < 0.01
    np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.05)
    everywhere = solvers.manifold_projected(normals.pair(PATH), Y, 2.0, solvers.picard(2), stop=1.0)
    np.testing.assert_allclose(normals.end_of(everywhere, 4000)[1], 0.25, atol=4e-4)


@pytest.mark.usefixtures("x64")
def test_anderson_solves_affine_maps_exactly():
    """Without a ridge all states of one number come to ONE point; with one the variance is left; the sign is seen."""
    pair = normals.pair(PATH)
    ends = [
        normals.end_of(solvers.manifold_projected(pair, Y, 2.0, solvers.anderson(2, ridge), stop=1.0), 50)[1]
        for ridge in (0.0, 1e-2)
    ]
    assert ends[0] < 1e-18
    assert ends[1] > 1e-4
    x = solvers.anderson(2, 0.0)(lambda x: 0.25 * x + 3, jnp.full((1,), 10.0))
    np.testing.assert_allclose(x, 4.0, rtol=1e-12)
    still = solvers.anderson(3, 0.0)(lambda x: x, jnp.ones(2))
    np.testing.assert_array_equal(still, np.ones(2))


@pytest.mark.usefixtures("x64")
def test_a_projected_state_is_where_both_fields_agree():
    """At the fixed point half a step back by the null field and half a step forth by the label's undo each other."""
    pair, h, t = normals.pair(PATH), 0.2, jnp.asarray(0.3)
    null, labelled = (normals.normal(PATH, *law) for law in normals.LAWS)
    still = solvers.picard(2000)(lambda x: (z := x - h / 2 * null(x, t)) + h / 2 * labelled(z, t), jnp.ones(1))
    np.testing.assert_allclose(labelled(still - h / 2 * null(still, t), t), null(still, t), rtol=1e-9)
    solver = solvers.manifold_projected(pair, Y, 2.0, solvers.anderson(2, 0.0))
    guided = 2 * labelled(still, t) - null(still, t)
    np.testing.assert_allclose(_compiled(solver, jnp.ones(1), t, t + h), still + h * guided, rtol=1e-9)


def test_fields_that_agree_are_left_alone():
    pair = guidance.pair(lambda x, t, y: 2.0 * t - x * t, 3)
    back = X - 0.1 * (2 * T - X * T)
    solver = solvers.manifold_projected(pair, Y, 2.0, solvers.picard(1))
    again = back + 0.1 * (2 * T - back * T)
    np.testing.assert_allclose(_step(solver), again + 0.2 * (2 * T - again * T), rtol=1e-6)


@pytest.mark.parametrize("make", [solvers.rectified_cfg_plus_plus, solvers.manifold_projected])
def test_sides_are_not_spread_over_the_state(make):
    pair = Pair(lambda x, t, y: (jnp.ones(()), jnp.ones(())), lambda x, t, y: jnp.ones(()))
    with pytest.raises(ValueError, match=r"pair must give the shape \(2,\), got \(\)"):
        _step(make(pair, Y, 2.0))


@pytest.mark.usefixtures("x64")
def test_cfg_plus_plus_takes_a_policy():
    """Of the gap: at each x it is the step of the number that the policy is there; a constant policy is that number."""
    pair, x, t, t_next = normals.pair(PATH), jnp.array([0.6, -1.1]), jnp.asarray(0.3), jnp.asarray(0.5)
    policy = guidance.gap_policy(PATH, lambda t, y, gap: 0.2 + gap)
    null, labelled = (conversions.from_field(PATH, side, x, t).noise for side in pair.both(x, t, Y))
    number = 0.2 + np.linalg.norm(labelled - null)
    found = _compiled(solvers.cfg_plus_plus(PATH, pair, Y, policy), x, t, t_next)
    np.testing.assert_allclose(
        found, _compiled(solvers.cfg_plus_plus(PATH, pair, Y, float(number)), x, t, t_next), 1e-9
    )
    assert number > 0.3


def _gibbs(scale, level, num_rounds, num_steps=100):
    """The slope and, by 4,000 keys, the ends of Gibbs-like guidance from the states -1 and 1."""
    pair = normals.pair(PATH)
    labelled, guided = (solvers.heun(guidance.given(guidance.extrapolate(pair, w), Y)) for w in (1, scale))
    start = conversions.time_at(PATH, 1.0, level)
    refining = start + (1 - start) * jnp.linspace(0, 1, num_steps + 1)
    grid = np.linspace(0, 1, 33)

    def end(key, x):
        refined = np.append(np.asarray(refining)[:-1], 1.0)
        return solvers.gibbs_like(PATH, labelled, guided, key, jnp.full((1,), x), grid, refined, num_rounds)[0]

    keys = jax.random.split(jax.random.key(3), 4000)
    draws = jax.jit(jax.vmap(lambda key: end(key, jax.random.normal(jax.random.fold_in(key, 9)))))(keys)
    ends = jax.jit(jax.vmap(lambda x: end(KEY, x)))(jnp.array([-1.0, 1.0]))
    return float(ends[1] - ends[0]) / 2, np.asarray(draws)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("level", "num_rounds", "stationary"), [(1.0, 3, 0.6), (0.5, 4, None)])
def test_rounds_draw_towards_the_tilted_law_by_their_closed_form(level, num_rounds, stationary):
    """(G2) at w = 2: a state is forgotten by sqrt(F) each round, and the variance goes to F r^2 / (1 - F)."""
    factor = (1 / (1 + level**2)) ** 2 * (2 / (2 + level**2)) ** -1
    limit = factor * level**2 / (1 - factor)
    if stationary is not None:
        np.testing.assert_allclose((factor, limit), (0.375, stationary), rtol=1e-9)
    slope, draws = _gibbs(2.0, level, num_rounds)
    np.testing.assert_allclose(slope, factor ** (num_rounds / 2), rtol=3e-3)
    expected = factor**num_rounds * (1 - limit) + limit
    assert abs(draws.var() - expected) < 4 * expected * np.sqrt(2 / draws.size)


@pytest.mark.usefixtures("x64")
def test_rounds_at_one_keep_the_labelled_law():
    _, draws = _gibbs(1.0, 1.0, 2)
    assert abs(draws.mean() - 1) < 4 / np.sqrt(draws.size)
    assert abs(draws.var() - 1) < 4 * np.sqrt(2 / draws.size)


def test_no_rounds_are_the_first_solve():
    pair, grid = guidance.pair(_field, 3), np.linspace(0, 1, 5)
    labelled, guided = (solvers.heun(guidance.given(guidance.extrapolate(pair, w), Y)) for w in (1, 2.0))
    refining = np.linspace(0.5, 1, 3)

    def run(number):
        return solvers.gibbs_like(PATH, labelled, guided, KEY, X, grid, refining, number)

    expected = jax.jit(lambda: solvers.integrate(labelled, KEY, X, grid))()
    np.testing.assert_array_equal(jax.jit(lambda: run(0))(), expected)
    traced = jax.jit(run)
    np.testing.assert_allclose(traced(0), expected, rtol=1e-6)
    np.testing.assert_allclose(traced(2), run(2), rtol=1e-5)
    with pytest.raises(ValueError, match=r"refining_ts must end at 1, where the data are, got 0\.9"):
        solvers.gibbs_like(PATH, labelled, guided, KEY, X, grid, np.linspace(0.5, 0.9, 3))
    with pytest.raises(TypeError, match="refining must be a Solver"):
        solvers.gibbs_like(PATH, labelled, solvers.heun, KEY, X, grid, refining)
