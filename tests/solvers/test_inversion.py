"""From data to noise and back: the plain way's error against the scale, and two ways that return exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers

KEY = jax.random.key(0)
SCALES = np.array([1.0, 3.0, 7.0])
NUM_STEPS = 32


def _guided(scale):
    field = mixtures.ring(5, radius=1.0, std=0.4).vector_field(paths.linear())
    return guidance.given(guidance.classifier_free(field, scale, 5), 1)


def _plain(make_solver):
    def trip(field, z, up):
        solver = make_solver(field)
        return solvers.integrate(solver, KEY, solvers.integrate(solver, KEY, z, up[::-1]), up)

    return trip


def _implicit(field, z, up):
    noise = solvers.integrate(solvers.implicit_euler(field, 60), KEY, z, up[::-1])
    return solvers.integrate(solvers.euler(field), KEY, noise, up)


def _reversible(field, z, up):
    solver = solvers.reversible(solvers.heun, field)
    noise, partners = solvers.integrate(solver, KEY, z, up[::-1], observe=lambda carry, t: carry.partner)
    return solvers.integrate(solvers.reversible(solvers.heun, field, partner=partners[-1]), KEY, noise, up)


def _round_trip_errors(trip):
    """The largest distance from data to data over 16 draws of label 1, for each scale: [3]."""
    mixture = mixtures.ring(5, radius=1.0, std=0.4)
    data = jax.vmap(lambda key: mixture.sample(key, 1))(jax.random.split(KEY, 16))
    up = jnp.linspace(0, 1, NUM_STEPS + 1)

    def error(scale, z):
        return jnp.linalg.norm(trip(_guided(scale), z, up) - z)

    sweep = jax.jit(jax.vmap(jax.vmap(error, in_axes=(None, 0)), in_axes=(0, None)))
    return np.max(sweep(jnp.asarray(SCALES), data), axis=1)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_plain_way_back_is_off_by_more_with_more_guidance():
    """Euler by a large part of the data's spread; Heun by little at w = 1, and 30 times as much at w = 7."""
    euler, heun = _round_trip_errors(_plain(solvers.euler)), _round_trip_errors(_plain(solvers.heun))
    assert np.all(euler > 0.05)
    assert euler[2] > 2 * euler[0]
    assert np.all(np.diff(heun) > 0)
    assert heun[2] > 30 * heun[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("trip", [_implicit, _reversible], ids=["implicit_euler", "reversible"])
def test_the_exact_ways_return_to_rounding_at_every_scale(trip):
    assert np.all(_round_trip_errors(trip) < 1e-12)


@pytest.mark.slow
def test_the_reversible_way_returns_in_single_precision():
    assert np.all(_round_trip_errors(_reversible) < 5e-4)


@pytest.mark.usefixtures("x64")
def test_the_iteration_converges_as_documented():
    """(V1) on dx = -L x: each iteration's error is |h| L times the last one's."""

    def error(rate, num_iterations):
        found = _one_step(rate, num_iterations).x[0]
        return abs(found - 1 / (1 - 0.1 * rate))

    np.testing.assert_allclose(error(4.0, 6) / error(4.0, 5), 0.4, rtol=1e-6)


def _one_step(rate, *num_iterations, x=1.0):
    """From 0.5 to 0.4 on dx = -rate x, with q = rate / 10."""
    solver = solvers.implicit_euler(lambda x, t: -rate * x, *num_iterations)
    return solver.step(KEY, solver.init(jnp.full(1, x)), jnp.asarray(0.5), jnp.asarray(0.4))


@pytest.mark.usefixtures("x64")
def test_by_default_it_iterates_20_times():
    assert float(_one_step(4.0).change) == pytest.approx(0.4**20, rel=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_iterations", [2, 5, 40])
def test_an_iteration_that_does_not_contract_says_so(num_iterations):
    """x is NaN and the carry has q; of one that contracts it has q and the last change, which tells the error left."""
    for rate in (10.0, 12.0, 30.0):
        end = _one_step(rate, num_iterations)
        assert np.isnan(end.x[0])
        assert float(end.contraction) == pytest.approx(rate / 10, rel=1e-9)
        assert np.isfinite(end.change)
    for q in (0.4, 0.9, 0.99):
        end = _one_step(10 * q, num_iterations)
        error = abs(float(end.x[0]) - 1 / (1 - q))
        is_settled = q == 0.4 and num_iterations == 40
        assert float(end.contraction) == (0 if is_settled else pytest.approx(q, rel=1e-6))
        assert float(end.change) == pytest.approx(q**num_iterations, rel=1e-6, abs=1e-15)
        assert error == pytest.approx(float(end.change) * q / (1 - q), rel=1e-6, abs=1e-15)


def test_the_time_from_which_on_it_does_not_contract_is_seen():
    """dx = -a(t) x with q = 2 under t = 1/2: the states before are kept, and the carry keeps the worst q."""
    solver = solvers.implicit_euler(lambda x, t: jnp.where(t < 0.49, -8.0, -1.0) * x, 10)
    ts = jnp.array([1.0, 0.75, 0.5, 0.25, 0.0])
    end, (states, seen) = jax.jit(
        lambda x: solvers.solve(solver, KEY, x, ts, lambda carry, t: (carry.x, carry.contraction))
    )(jnp.ones(2))
    np.testing.assert_array_equal(np.isnan(states[:, 0]), [False, False, False, True, True])
    np.testing.assert_allclose(seen[1:3], 0.25, rtol=1e-2)
    assert float(end.contraction) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_change_of_a_rounding_is_no_failure(dtype):
    """A field of 0, one that is constant, an empty state and one iteration alone."""
    for field in (lambda x, t: 0 * x, lambda x, t: 0 * x + 1):
        solver = solvers.implicit_euler(field)
        for x in (jnp.zeros(2, dtype), jnp.full(3, 1000, dtype), jnp.zeros(0, dtype)):
            end = solvers.solve(solver, KEY, x, jnp.linspace(1, 0, 4))[0]
            assert end.x.dtype == dtype
            assert np.all(np.isfinite(end.x.astype(jnp.float32)))
            assert float(end.contraction) == 0
    assert np.isfinite(_one_step(30.0, 1).x[0])


def test_a_multistep_rule_is_not_made_reversible():
    with pytest.raises(ValueError, match="make_solver must make a rule of one step"):
        solvers.reversible(solvers.adams_bashforth, lambda x, t: x)


@pytest.mark.usefixtures("x64")
def test_one_reversible_step_by_hand():
    """(V2) with Euler's rule on dx = sin t x, and back."""
    c, t, h = 0.9, 0.25, 0.125
    solver = solvers.reversible(solvers.euler, lambda x, t: jnp.sin(t) * x, c, partner=jnp.array([3.0]))
    start, times = solver.init(jnp.array([2.0])), (jnp.asarray(t), jnp.asarray(t + h))
    end = solver.step(KEY, start, *times)
    y = c * 2 + (1 - c) * 3 + h * np.sin(t) * 3
    np.testing.assert_allclose(end.x, [y], rtol=1e-12)
    np.testing.assert_allclose(end.partner, [3 + h * np.sin(t + h) * y], rtol=1e-12)
    back = solver.step(KEY, end, *times[::-1])
    np.testing.assert_allclose([back.x[0], back.partner[0]], [2, 3], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_the_reversible_form_has_the_rules_order(name, order):
    """dx = (t - x) dt from 1 ends in 2 / e."""
    solver = solvers.reversible(getattr(solvers, name), lambda x, t: t - x, 0.9999)
    steps = np.array([32, 64, 128])
    ends = [solvers.integrate(solver, KEY, jnp.asarray(1.0), jnp.linspace(0, 1, n + 1)) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(np.abs(np.asarray(ends) - 2 / np.e)), 1)[0]
    assert abs(slope - order) < 0.1


@pytest.mark.usefixtures("x64")
def test_coupling_grows_on_the_way_back_as_documented():
    """(V2) with u = 0 and two states: y - z is divided by c in each of n steps, and multiplied on the way there."""
    solver = solvers.reversible(solvers.euler, lambda x, t: 0 * x, 0.9, partner=jnp.asarray(1.0))
    for ts, factor in ((jnp.linspace(1, 0, 11), 0.9**-10), (jnp.linspace(0, 1, 11), 0.9**10)):
        np.testing.assert_allclose(solvers.integrate(solver, KEY, jnp.asarray(3.0), ts) - 1, 2 * factor, rtol=1e-9)


def test_the_implicit_way_does_not_call_the_field_at_the_start():
    """From t = 1 down every evaluation is at a step's end."""
    times = []

    def field(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return x / (1 - t)

    solver = solvers.implicit_euler(lambda x, t: -field(x, t), 2)
    solvers.integrate(solver, KEY, jnp.ones(2), jnp.array([1.0, 0.75, 0.5, 0.0])).block_until_ready()
    jax.effects_barrier()
    assert sorted(times) == [0.0, 0.0, 0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("value", [0.0, 1.5, np.nan])
def test_bad_couplings_are_refused(value):
    with pytest.raises(ValueError, match="coupling must be"):
        solvers.reversible(solvers.heun, lambda x, t: x, value)


def test_no_iteration_is_refused():
    with pytest.raises(ValueError, match="num_iterations must be"):
        solvers.implicit_euler(lambda x, t: x, 0)
