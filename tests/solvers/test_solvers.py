"""Solvers: measured orders, the ends of time, admissible diffusions, and the one scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.mixtures import LabelledMixture

KEY = jax.random.key(0)
START = np.array([0.6, -1.1])


def _solvers(path, field):
    """Every solver of the library, by name."""
    return {
        "euler": solvers.euler(field),
        "heun": solvers.heun(field),
        "euler_maruyama": solvers.euler_maruyama(path, field, solvers.root_beta(path)),
    }


def _slope(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stop", [0.9, 1.0])
@pytest.mark.parametrize(("name", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_order_on_the_guided_flow(name, order, stop):
    """(O1) is of order 1 and (O2) of order 2, on a curved guided flow, before the end and up to it."""
    mixture = mixtures.ring(5, radius=1.0, std=0.5)
    guided = guidance.classifier_free(mixture.vector_field(paths.cosine()), 1.5, 5)
    solver = getattr(solvers, name)(guidance.given(guided, 1))

    def end(num_steps):
        return solvers.integrate(solver, KEY, jnp.asarray(START), jnp.linspace(0, stop, num_steps + 1))

    steps = np.array([64, 128, 256])
    fine = solvers.integrate(
        solvers.heun(guidance.given(guided, 1)), KEY, jnp.asarray(START), jnp.linspace(0, stop, 16_385)
    )
    errors = [np.linalg.norm(end(num_steps) - fine) for num_steps in steps]
    assert abs(_slope(steps, errors) - order) < 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "order"), [("euler", 1.0), ("heun", 2.0)])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.2, 0.9)])
def test_order_on_an_equation_with_a_known_solution(name, order, ends):
    """dx = -2 t x^2 dt has the solution 1 / (1 + t^2); forwards and backwards."""
    solver = getattr(solvers, name)(lambda x, t: -2 * t * x**2)
    start, exact = 1 / (1 + ends[0] ** 2), 1 / (1 + ends[1] ** 2)
    steps = np.array([64, 128, 256, 512])
    ends_found = [
        solvers.integrate(solver, KEY, jnp.asarray(start), jnp.linspace(ends[0], ends[1], n + 1)) for n in steps
    ]
    assert abs(_slope(steps, np.abs(np.asarray(ends_found) - exact)) - order) < 0.1


def _recorded_times(build, ts):
    """All the times at which a solver calls its field."""
    times = []

    def field(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return x / (1 - t)

    end = solvers.integrate(build(field), KEY, jnp.ones(2), ts)
    jax.effects_barrier()
    return end, times


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 1), ("heun", 2), ("euler_maruyama", 1)])
def test_the_field_is_not_called_at_the_end(name, evaluations):
    """A field that blows up as 1/(1 - t) leaves a finite state, from the documented number of evaluations."""
    path, num_steps = paths.linear(), 7
    ts = jnp.linspace(0, 1, num_steps + 1)
    end, times = _recorded_times(lambda field: _solvers(path, field)[name], ts)
    assert np.all(np.isfinite(end))
    assert len(times) == evaluations * num_steps
    assert max(times) < 1


def test_heun_evaluates_at_both_ends_of_a_step_before_the_last():
    _, times = _recorded_times(solvers.heun, jnp.array([0.0, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(sorted(times), [0.0, 0.25, 0.25, 0.5, 0.5, 0.75])


@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama"])
def test_ends_are_finite_and_lie_at_the_label(path, name):
    """For w = 0, 1 and 4 from t = 0 to t = 1; with w >= 1 in label 2's component, 2.4 standard deviations or less."""
    mixture = mixtures.ring(4, radius=2.0, std=0.4)
    field, key = mixture.vector_field(path), jax.random.key(1)

    def draw(scale, key):
        guided = guidance.given(guidance.classifier_free(field, scale, 4), 2)
        x = jax.random.normal(key, (2,))
        return solvers.integrate(_solvers(path, guided)[name], key, x, jnp.linspace(0, 1, 65))

    sweep = jax.jit(jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None)))
    ends = np.asarray(sweep(jnp.array([0.0, 1.0, 4.0]), jax.random.split(key, 64)))
    assert np.all(np.isfinite(ends))
    assert np.all(np.linalg.norm(ends[1].mean(axis=0) - [-2.0, 0.0]) < 0.3)
    assert np.all(ends[2, :, 0] < -1)
    assert np.ptp(ends[0, :, 0]) > 3


def _affine_steps(monkeypatch, solver, starts, stops):
    """a, b, c of each step x -> a x + b + c noise, of a solver whose field is affine: [steps, 3]."""

    def moved(x, noise, t, t_next):
        monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.full(shape, noise, dtype))
        return solver.step(KEY, solver.init(jnp.full((1,), x)), t, t_next).x[0]

    def coefficients(t, t_next):
        b = moved(0.0, 0.0, t, t_next)
        return jnp.stack([moved(1.0, 0.0, t, t_next) - b, b, moved(0.0, 1.0, t, t_next) - b])

    return np.asarray(jax.jit(jax.vmap(coefficients))(jnp.asarray(starts), jnp.asarray(stops)))


def _end_moments(monkeypatch, solver, step_counts):
    """The exact mean and variance at t = 1 of an affine solver started in N(0, 1), for each number of steps."""
    grids = [np.linspace(0, 1, num_steps + 1) for num_steps in step_counts]
    starts, stops = (np.concatenate([grid[part] for grid in grids]) for part in (slice(-1), slice(1, None)))
    moments = []
    for steps in np.split(_affine_steps(monkeypatch, solver, starts, stops), np.cumsum(step_counts)[:-1]):
        mean, variance = 0.0, 1.0
        for a, b, c in steps:
            mean, variance = a * mean + b, a**2 * variance + c**2
        moments.append((mean, variance))
    return np.array(moments)


def _gaussian_field(path):
    """The field of N(1.5, 0.5) in 1-D, which is affine in x."""
    mixture = LabelledMixture(jnp.ones(1), jnp.array([[1.5]]), jnp.array([[[0.5]]]))
    return guidance.given(mixture.vector_field(path), 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_euler_maruyama_has_weak_order_one(monkeypatch, strength):
    """(D1): mean and variance of its end, exact for an affine drift, approach those of the data."""
    path, steps = paths.cosine(), np.array([64, 128, 256, 512])
    solver = solvers.euler_maruyama(path, _gaussian_field(path), solvers.root_beta(path, strength))
    errors = np.abs(_end_moments(monkeypatch, solver, steps) - [1.5, 0.5])
    assert abs(_slope(steps, errors[:, 0]) - 1) < 0.1
    assert abs(_slope(steps, errors[:, 1]) - 1) < 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["constant", "root_beta", "memoryless"])
def test_the_diffusion_keeps_the_marginals_for_every_sigma(monkeypatch, exact_path, name):
    """(D1) at w = 1 ends in the data's law whatever sigma is; Richardson's extrapolation removes the first order."""
    schedules = {
        "constant": solvers.constant(0.7),
        "root_beta": solvers.root_beta(exact_path),
        "memoryless": solvers.memoryless(exact_path, start=0.05),
    }
    solver = solvers.euler_maruyama(exact_path, _gaussian_field(exact_path), schedules[name])
    coarse, fine = _end_moments(monkeypatch, solver, [2000, 4000])
    np.testing.assert_allclose(2 * fine - coarse, [1.5, 0.5], atol=5e-3)


def test_euler_maruyama_without_diffusion_is_euler(path):
    """(D1) with sigma = 0."""
    field = guidance.given(mixtures.ring().vector_field(path), 2)
    x, ts = jnp.asarray(START, jnp.float32), jnp.linspace(0, 1, 9)
    found = solvers.integrate(solvers.euler_maruyama(path, field, solvers.constant(0.0)), KEY, x, ts)
    np.testing.assert_allclose(found, solvers.integrate(solvers.euler(field), KEY, x, ts), rtol=1e-5)


def test_euler_maruyama_step_by_hand():
    """(D1): x + h [u - (sigma^2 / 2 beta) E] + sigma sqrt(h) noise on the straight path, with E = x - t u."""
    x, t, h, sigma = jnp.asarray(START, jnp.float32), 0.25, 0.125, 0.8
    field = lambda x, t: jnp.sin(x)  # noqa: E731
    solver = solvers.euler_maruyama(paths.linear(), field, solvers.constant(sigma))
    noise = jax.random.normal(KEY, (2,))
    drift = jnp.sin(x) - sigma**2 / (2 * (1 - t)) * (x - t * jnp.sin(x))
    found = solver.step(KEY, solver.init(x), jnp.float32(t), jnp.float32(t + h)).x
    np.testing.assert_allclose(found, x + h * drift + sigma * np.sqrt(h) * noise, rtol=1e-5)


def _accepts(path, diffusion):
    return solvers.euler_maruyama(path, lambda x, t: x, diffusion)


@pytest.mark.parametrize("start", [0.0, 1e-6])
def test_memoryless_diffusion_is_refused_at_the_start(exact_path, start):
    """1/alpha diverges at t = 0, and a cut at 1e-6 does not mend it."""
    with pytest.raises(ValueError, match="diverges at t = 0"):
        _accepts(exact_path, solvers.memoryless(exact_path, start=start))


def test_memoryless_diffusion_held_before_a_start_is_accepted(exact_path):
    assert callable(_accepts(exact_path, solvers.memoryless(exact_path, start=0.02)).step)


def test_memoryless_formula(path):
    """sigma^2 / 2 = b = beta W / alpha; on the straight path (1 - t) / t."""
    c = paths.coefficients(path, 0.3)
    expected = np.sqrt(2 * float(c.beta * c.wronskian / c.alpha))
    np.testing.assert_allclose(solvers.memoryless(path)(jnp.float32(0.3)), expected, rtol=1e-6)
    np.testing.assert_allclose(solvers.memoryless(paths.linear())(jnp.float32(0.2)), np.sqrt(8.0), rtol=1e-6)
    held = solvers.memoryless(path, start=0.3)
    np.testing.assert_allclose(held(jnp.float32(0.1)), expected, rtol=1e-6)


def test_root_beta_formula(path):
    expected = 3 * np.sqrt(2 * float(path.beta(jnp.float32(0.3))))
    np.testing.assert_allclose(solvers.root_beta(path, 3.0)(jnp.float32(0.3)), expected, rtol=1e-6)
    assert float(solvers.root_beta(path)(jnp.float32(1.0))) == 0


def test_divergence_at_the_end_is_refused():
    with pytest.raises(ValueError, match="diverges at t = 1"):
        _accepts(paths.linear(), lambda t: 1 / (1 - t))


@pytest.mark.parametrize("value", [-1.0, -1e-3])
def test_negative_diffusion_is_refused(value):
    with pytest.raises(ValueError, match="not negative"):
        _accepts(paths.linear(), lambda t: value * jnp.ones_like(t))


@pytest.mark.parametrize("make", [solvers.constant, lambda value: solvers.root_beta(paths.linear(), value)])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_bad_strengths_are_refused(make, value):
    with pytest.raises(ValueError, match="must be at least 0 and finite"):
        make(value)


@pytest.mark.parametrize(
    "make", [lambda path: solvers.constant(1.0), lambda path: solvers.constant(5.0), solvers.root_beta]
)
def test_regular_diffusions_are_accepted(path, make):
    assert callable(_accepts(path, make(path)).step)


def test_the_check_also_works_inside_jit():
    def draw(key):
        solver = _accepts(paths.linear(), solvers.memoryless(paths.linear()))
        return solvers.integrate(solver, key, jnp.ones(2), jnp.linspace(0, 1, 3))

    with pytest.raises(ValueError, match="diverges at t = 0"):
        jax.jit(draw)(KEY)


def test_a_traced_strength_passes():
    def draw(strength):
        solver = _accepts(paths.linear(), solvers.root_beta(paths.linear(), strength))
        return solvers.integrate(solver, KEY, jnp.ones(2), jnp.linspace(0, 1, 3))

    np.testing.assert_allclose(jax.jit(draw)(1.5), draw(1.5), rtol=1e-6)


@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama"])
def test_observations_hold_both_ends(name):
    solver = _solvers(paths.linear(), lambda x, t: jnp.sin(x))[name]
    x, ts = jnp.asarray(START, jnp.float32), jnp.linspace(0, 1, 6)
    end, (states, times) = solvers.integrate(solver, KEY, x, ts, observe=lambda carry, t: (carry.x, t))
    np.testing.assert_array_equal(times, ts)
    np.testing.assert_array_equal(states[0], x)
    np.testing.assert_array_equal(states[-1], end)
    np.testing.assert_array_equal(end, solvers.integrate(solver, KEY, x, ts))
    np.testing.assert_allclose(states[3], solvers.integrate(solver, KEY, x, ts[:4]), rtol=1e-6)


def test_each_step_takes_a_key_of_its_own():
    """Step i takes fold_in(key, i), as documented: the scan is these steps one after another."""
    solver = solvers.euler_maruyama(paths.linear(), lambda x, t: jnp.sin(x), solvers.constant(1.0))
    ts, carry = jnp.linspace(0.25, 0.75, 4), solver.init(jnp.zeros(2))
    for i in range(3):
        carry = solver.step(jax.random.fold_in(KEY, i), carry, ts[i], ts[i + 1])
    np.testing.assert_allclose(solvers.integrate(solver, KEY, jnp.zeros(2), ts), carry.x, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_integration_backwards_returns_to_the_start():
    """Noise to data and back: the remaining error falls with Heun's order."""
    field = guidance.given(mixtures.ring(5, radius=1.0, std=0.5).vector_field(paths.linear()), 5)
    solver, steps = solvers.heun(field), np.array([32, 128])

    def error(num_steps):
        ts = jnp.linspace(0, 0.95, num_steps + 1)
        there = solvers.integrate(solver, KEY, jnp.asarray(START), ts)
        return np.linalg.norm(solvers.integrate(solver, KEY, there, ts[::-1]) - START)

    errors = [error(num_steps) for num_steps in steps]
    assert errors[-1] < 1e-3
    assert _slope(steps, errors) > 1.9


def test_uneven_grids_are_followed():
    """Two Euler steps of dx = dt x by hand."""
    found = solvers.integrate(solvers.euler(lambda x, t: x), KEY, jnp.float32(1.0), jnp.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(found, 1.25 * 1.75)


@pytest.mark.parametrize(
    ("ts", "words"),
    [
        (np.zeros((2, 2), np.float32), "1-D"),
        (np.zeros(1, np.float32), "at least 2"),
        (np.float32(1.0), "1-D"),
        (np.array([0, 1]), "floating"),
        (np.array([0.0, 0.5, 0.5], np.float32), "increase"),
        (np.array([0.0, 0.5, 0.2], np.float32), "increase"),
        (np.array([0.0, np.nan], np.float32), "finite"),
    ],
)
def test_bad_grids_are_refused(ts, words):
    with pytest.raises(ValueError, match=words):
        solvers.integrate(solvers.euler(lambda x, t: x), KEY, jnp.ones(2), ts)


@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama"])
def test_state_keeps_its_type(name):
    """A float32 state stays so where the field computes in bfloat16, and a scan may carry it."""
    solver = _solvers(paths.linear(), lambda x, t: (x * 2).astype(jnp.bfloat16))[name]
    end = solvers.integrate(solver, KEY, jnp.ones(2, jnp.float32), jnp.linspace(0, 1, 3))
    assert end.dtype == jnp.float32


def test_a_stochastic_solver_refuses_the_way_back():
    solver = solvers.euler_maruyama(paths.linear(), lambda x, t: x, solvers.root_beta(paths.linear()))
    with pytest.raises(ValueError, match="ts must increase for a solver that runs forwards only"):
        solvers.integrate(solver, KEY, jnp.ones(2), np.linspace(1, 0, 5, dtype=np.float32))


def test_whole_numbers_are_integrated_as_floating_point_ones():
    """dx = x from 1: not truncated at each step."""
    ts = jnp.linspace(0, 1, 65)
    end = solvers.integrate(solvers.heun(lambda x, t: x), jax.random.key(0), jnp.array([1, 2]), ts)
    np.testing.assert_allclose(end, np.exp(1.0) * np.array([1, 2]), rtol=1e-3)
