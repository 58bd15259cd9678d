"""Stochastic solvers: diffusion coefficients, weak orders, churn, and the step to t = 1, in exact moments.

Where the field is affine a step is x -> a x + b + sum_i c_i noise_i, read off by steps on chosen states and noises, so
that mean and variance of the end follow without sampling.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.mixtures import LabelledMixture
from tests.conftest import EXACT_PATHS

KEY = jax.random.key(0)
MOMENTS = np.array([1.5, 0.5])


def _schedules(path):
    return {
        "constant": solvers.constant(0.7),
        "root_beta": solvers.root_beta(path),
        "root_linear": solvers.root_linear(),
        "decreasing": solvers.decreasing(),
        "increasing_decreasing": solvers.increasing_decreasing(),
        "memoryless": solvers.memoryless(path, start=1 / 16),
    }


def _gaussian_field(path, mean=1.5, variance=0.5):
    mixture = LabelledMixture(jnp.ones(1), jnp.array([[mean]]), jnp.array([[[variance]]]))
    return guidance.given(mixture.vector_field(path), 0)


def _patched(monkeypatch, noises):
    """The next draws of normal noise are these numbers."""
    draws = iter(noises)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.full(shape, next(draws), dtype))


def _affine(monkeypatch, build, num_draws):
    """(t, t_next, setting) -> (a, b, the variance of the noise) of a step of the affine solver build(setting)."""
    states = jnp.array([1.0, 0.0] + [0.0] * num_draws)
    noises = jnp.concatenate([jnp.zeros((2, num_draws)), jnp.eye(num_draws)])

    def coefficients(t, t_next, setting):
        solver = build(setting)

        def moved(x, noises):
            _patched(monkeypatch, noises)
            return solver.step(KEY, solver.init(jnp.full((1,), x)), t, t_next).x[0]

        ends = jax.vmap(moved)(states, noises)
        return ends[0] - ends[1], ends[1], jnp.sum((ends[2:] - ends[1]) ** 2)

    return jax.jit(jax.vmap(coefficients))


def _end(steps, mean=0.0, variance=1.0):
    for a, b, added in zip(*steps, strict=True):
        mean, variance = a * mean + b, a**2 * variance + added
    return np.array([mean, variance])


def _ends(monkeypatch, build, step_counts, num_draws=1):
    """The exact moments at t = 1 from N(0, 1) of build(num_steps), for each number of steps: [counts, 2]."""
    grids = [np.linspace(0, 1, num_steps + 1) for num_steps in step_counts]
    starts, stops = (np.concatenate([grid[part] for grid in grids]) for part in (slice(-1), slice(1, None)))
    settings = np.repeat(np.asarray(step_counts, float), step_counts)
    steps = [np.asarray(each) for each in _affine(monkeypatch, build, num_draws)(starts, stops, settings)]
    bounds = np.cumsum(step_counts)[:-1]
    return np.array([_end(part) for part in zip(*(np.split(each, bounds) for each in steps), strict=True)])


def _slope(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def test_diffusions_are_those_of_the_table():
    """sigma = sqrt(2 d) with SiT's d, strength^2 its factor."""
    path, t = paths.cosine(), np.linspace(0.05, 0.95, 7, dtype=np.float32)
    beta, b = np.cos(np.pi * t / 2), np.pi / 2 / np.tan(np.pi * t / 2)
    expected = {
        solvers.constant(np.sqrt(6.0)): 3.0 * np.ones_like(t),
        solvers.memoryless(path): b,
        solvers.root_beta(path, np.sqrt(3.0)): 3 * beta,
        solvers.root_linear(np.sqrt(3.0)): 3 * (1 - t),
        solvers.decreasing(): 0.25 * (np.cos(np.pi * t) + 1) ** 2,
        solvers.increasing_decreasing(np.sqrt(3.0)): 3 * np.sin(np.pi * t) ** 2,
    }
    for schedule, halved_square in expected.items():
        np.testing.assert_allclose(jax.vmap(schedule)(t), np.sqrt(2 * halved_square), rtol=3e-5)


@pytest.mark.parametrize("make", [solvers.root_linear, solvers.decreasing, solvers.increasing_decreasing])
def test_pathless_diffusions_are_admissible_and_vanish_at_the_end(make, path):
    assert float(make()(jnp.float32(1.0))) == 0
    assert callable(solvers.stochastic_heun(path, lambda x, t: x, make(2.0)).step)
    with pytest.raises(ValueError, match="strength must be"):
        make(-1.0)


def test_stochastic_heun_refuses_a_divergent_diffusion(exact_path):
    with pytest.raises(ValueError, match="diverges at t = 0"):
        solvers.stochastic_heun(exact_path, lambda x, t: x, solvers.memoryless(exact_path))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("path_name", "name"),
    [
        ("linear", "root_beta"),
        ("cosine", "constant"),
        ("cosine", "root_linear"),
        ("cosine", "decreasing"),
        ("cosine", "increasing_decreasing"),
        ("cosine", "memoryless"),
        ("variance_preserving", "root_linear"),
        ("polynomial_3", "root_beta"),
    ],
)
def test_stochastic_heun_keeps_the_marginals_to_weak_order_two(monkeypatch, path_name, name):
    """(D1) at w = 1 ends in the data's law whatever sigma is, and (D2) approaches it as h^2, up to t = 1.

    The kink of the held memoryless one, at 1/16, lies on these grids.
    """
    path, steps = EXACT_PATHS[path_name], np.array([64, 128, 256])
    solver = solvers.stochastic_heun(path, _gaussian_field(path), _schedules(path)[name])
    errors = np.linalg.norm(_ends(monkeypatch, lambda _: solver, steps, num_draws=2) - MOMENTS, axis=1)
    assert abs(_slope(steps, errors) - 2) < 0.15
    assert errors[-1] < 2e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["root_linear", "decreasing", "increasing_decreasing"])
def test_euler_maruyama_keeps_the_marginals_for_the_pathless_diffusions(monkeypatch, plain_or_steep_path, name):
    """(D1) at w = 1; Richardson's extrapolation removes the first order."""
    path = plain_or_steep_path
    solver = solvers.euler_maruyama(path, _gaussian_field(path), _schedules(path)[name])
    coarse, fine = _ends(monkeypatch, lambda _: solver, [500, 1000])
    np.testing.assert_allclose(2 * fine - coarse, MOMENTS, atol=2e-3)


def _generator(drift, diffusion):
    """phi -> L phi = phi_t + f phi_x + sigma^2 phi_xx / 2, on functions of (x [], t [])."""

    def apply(value):
        def moved(x, t):
            slope, rate = jax.grad(value, argnums=(0, 1))(x, t)
            return rate + drift(x, t) * slope + 0.5 * diffusion(t) ** 2 * jax.grad(jax.grad(value))(x, t)

        return moved

    return apply


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", [0.3, None])
def test_stochastic_heun_on_a_curved_field(monkeypatch, start):
    """One step's E[sin x'] is that of (1 + h L + h^2 L^2 / 2) sin x up to O(h^3): inside, and in the step to t = 1.

    By Gauss-Hermite quadrature of both draws of noise, on a mixture of two labels in 1-D.
    """
    path, diffusion = paths.linear(), solvers.root_linear(0.9)
    mixture = LabelledMixture(jnp.ones(2), jnp.array([[-0.8], [0.9]]), jnp.array([[[0.2]], [[0.3]]]))
    field = guidance.given(mixture.vector_field(path), 2)
    solver, x = solvers.stochastic_heun(path, field, diffusion), jnp.array([0.35])

    def drift(x, t):
        u, score = field(x[None], t)[0], mixture.score(path)(x[None], t, 2)[0]
        return u + 0.5 * diffusion(t) ** 2 * score

    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    pairs = np.array(list(itertools.product(nodes, nodes)))
    density = np.outer(weights, weights).ravel() / (2 * np.pi)
    first = _generator(drift, diffusion)(lambda x, t: jnp.sin(x))
    second = _generator(drift, diffusion)(first)

    def found(h):
        t = (1 - h if start is None else start) + 0 * h

        def moved(noises):
            _patched(monkeypatch, noises)
            return jnp.sin(solver.step(KEY, solver.init(x), t, 1.0 + 0 * h if start is None else t + h).x[0])

        mean = jnp.sum(density * jax.vmap(moved)(pairs))
        return mean - (jnp.sin(x[0]) + h * first(x[0], t) + 0.5 * h**2 * second(x[0], t))

    sizes = np.array([1 / 16, 1 / 32, 1 / 64])
    errors = np.abs(jax.jit(jax.vmap(found))(sizes))
    assert _slope(1 / sizes, errors) > 2.7


def _recorded(build, num_steps=5):
    times = []

    def field(x, t):
        jax.debug.callback(lambda t: times.append(float(t)), t)
        return x / (1 - t)

    end = solvers.integrate(build(field), KEY, jnp.ones(2), jnp.linspace(0, 1, num_steps + 1))
    jax.effects_barrier()
    return end, times


@pytest.mark.parametrize(
    ("build", "evaluations"),
    [
        (lambda field: solvers.stochastic_heun(paths.linear(), field, solvers.root_linear()), 10),
        (lambda field: solvers.churn(paths.linear(), field, 0.2), 10),
        (
            lambda field: solvers.with_final_step(
                solvers.stochastic_heun(paths.linear(), field, solvers.root_linear()),
                solvers.tweedie_step(paths.linear(), field),
            ),
            9,
        ),
    ],
    ids=["stochastic_heun", "churn", "with_final_step"],
)
def test_the_field_is_not_called_at_the_end(build, evaluations):
    end, times = _recorded(build)
    assert np.all(np.isfinite(end))
    assert len(times) == evaluations
    assert max(times) < 1


def test_stochastic_heun_without_diffusion_is_heun(plain_or_steep_path):
    path, field = plain_or_steep_path, lambda x, t: jnp.sin(x) * t
    x, ts = jnp.array([0.6, -1.1]), jnp.linspace(0, 1, 9)
    found = solvers.integrate(solvers.stochastic_heun(path, field, solvers.constant(0.0)), KEY, x, ts)
    np.testing.assert_allclose(found, solvers.integrate(solvers.heun(field), KEY, x, ts), rtol=1e-5)


@pytest.mark.parametrize(("amount", "start", "stop"), [(0.0, 0.0, 1.0), (0.3, 0.9, 1.0), (0.3, 0.0, 0.25)])
def test_churn_of_nothing_is_heun_exactly(plain_or_steep_path, amount, start, stop):
    """With no amount, or outside its interval, a step is Heun's to the last bit."""
    path, field = plain_or_steep_path, lambda x, t: jnp.sin(x) * t
    x, times = jnp.array([0.6, -1.1]), (jnp.float32(0.25), jnp.float32(0.5))
    churned = solvers.churn(path, field, amount, start, stop)
    found = churned.step(KEY, churned.init(x), *times).x
    np.testing.assert_array_equal(found, solvers.heun(field).step(KEY, churned.init(x), *times).x)


@pytest.mark.usefixtures("x64")
def test_churn_has_the_law_of_the_earlier_time(monkeypatch, exact_path):
    """(N1): a Gaussian's moments at t become those at the time whose noise level is 1.2 times as high."""
    solver = solvers.churn(exact_path, lambda x, t: 0 * x, 0.2)
    starts = np.array([0.0, 0.4, 0.97])
    steps = _affine(monkeypatch, lambda _: solver, 1)(starts, np.full(3, 0.98), starts)
    times = np.linspace(0, 0.97, 200_001)
    levels = exact_path.alpha(times) / exact_path.beta(times)
    for step, t in zip(np.stack(steps, axis=1), starts, strict=True):
        earlier = np.interp(exact_path.alpha(t) / (1.2 * exact_path.beta(t)), levels, times)
        found = _end([[part] for part in step], *_law(exact_path, t))
        np.testing.assert_allclose(found, _law(exact_path, earlier), rtol=1e-6, atol=1e-9)


def _law(path, t):
    alpha, beta = path.alpha(jnp.asarray(t)), path.beta(jnp.asarray(t))
    return np.array([alpha * MOMENTS[0], alpha**2 * MOMENTS[1] + beta**2])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("total", [1.0])
def test_churn_keeps_the_marginals_to_order_two(monkeypatch, exact_path, total):
    """The exact end moments approach the data's as h^2, for an amount that is shared among the steps."""
    steps, field = np.array([32, 64, 128]), _gaussian_field(exact_path)
    ends = _ends(monkeypatch, lambda num_steps: solvers.churn(exact_path, field, total / num_steps), steps)
    errors = np.linalg.norm(ends - MOMENTS, axis=1)
    assert _slope(steps, errors) > 1.8
    assert errors[-1] < 1e-3


def test_churn_with_more_noise_is_wider(monkeypatch):
    """noise_scale multiplies the standard deviation of what is added, and nothing else."""
    path = paths.cosine()
    steps = _affine(monkeypatch, lambda scale: solvers.churn(path, _gaussian_field(path), 0.2, noise_scale=scale), 1)
    a, b, added = np.asarray(steps(np.full(2, 0.4), np.full(2, 0.5), np.array([1.0, 1.5])))
    np.testing.assert_allclose([a[1], b[1]], [a[0], b[0]], rtol=1e-5)
    np.testing.assert_allclose(added[1], 2.25 * added[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"amount": -0.1}, "amount"),
        ({"amount": np.nan}, "amount"),
        ({"amount": 0.1, "noise_scale": -1.0}, "noise_scale"),
        ({"amount": 0.1, "start": 1.5}, "start"),
        ({"amount": 0.1, "stop": -0.5}, "stop"),
    ],
)
def test_bad_churn_is_refused(settings, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        solvers.churn(paths.linear(), lambda x, t: x, **settings)


def _last_steps(path, field, diffusion):
    return {
        "euler": solvers.euler_step(field),
        "tweedie": solvers.tweedie_step(path, field),
        "mean": solvers.mean_step(path, field, diffusion),
    }


def _last_errors(monkeypatch, name, diffusion, sizes):
    """Errors of the end's mean and variance, from the exact law at 1 - h."""
    path = paths.cosine()
    field = _gaussian_field(path)
    solver = solvers.with_final_step(
        solvers.euler_maruyama(path, field, diffusion), _last_steps(path, field, diffusion)[name]
    )
    steps = _affine(monkeypatch, lambda _: solver, 1)(1 - sizes, np.ones_like(sizes), sizes)
    steps = np.stack([np.asarray(each) for each in steps], axis=1)
    ends = [_end([[part] for part in step], *_law(path, 1 - h)) for step, h in zip(steps, sizes, strict=True)]
    return np.abs(np.array(ends) - MOMENTS).T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "constant", "orders"),
    [("euler", False, (2, 2)), ("tweedie", False, (None, 2)), ("mean", False, (2, 2)), ("mean", True, (2, 1))],
)
def test_last_steps_err_as_documented(monkeypatch, name, constant, orders):
    """(E1) to (E3), on a path with beta = O(h)."""
    diffusion = solvers.constant(0.8) if constant else solvers.root_beta(paths.cosine())
    sizes = 1 / np.array([64.0, 128.0, 256.0])
    for errors, order in zip(_last_errors(monkeypatch, name, diffusion, sizes), orders, strict=True):
        if order is None:
            assert np.max(errors) < 1e-12
        else:
            assert abs(_slope(1 / sizes, errors) - order) < 0.1


@pytest.mark.usefixtures("x64")
def test_tweedies_variance_falls_short_by_the_posteriors(monkeypatch):
    """(E2): S beta^2 / (alpha^2 S + beta^2), and a constant sigma's mean step by h sigma^2 (E3)."""
    sizes = np.array([1 / 16, 1 / 64])
    alpha, beta = np.cos(np.pi * sizes / 2), np.sin(np.pi * sizes / 2)
    found = _last_errors(monkeypatch, "tweedie", solvers.root_linear(), sizes)[1]
    np.testing.assert_allclose(found, 0.5 * beta**2 / (0.5 * alpha**2 + beta**2), rtol=1e-9)
    missing = _last_errors(monkeypatch, "mean", solvers.constant(0.8), np.array([1e-4]))[1]
    np.testing.assert_allclose(missing, 0.64e-4, rtol=1e-2)


def test_last_steps_by_hand():
    """On the straight path, u = sin x: E = x - t u, D = x + (1 - t) u."""
    path, x, t, h = paths.linear(), jnp.array([0.6, -1.1]), 0.75, 0.25
    last = _last_steps(path, lambda x, t: jnp.sin(x), solvers.constant(0.8))
    u = np.sin(x)
    expected = {
        "euler": x + h * u,
        "tweedie": x + (1 - t) * u,
        "mean": x + h * (u - 0.64 / (2 * (1 - t)) * (x - t * u)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(last[name](x, jnp.float32(t), jnp.float32(t + h)), value, rtol=1e-5)


@pytest.mark.parametrize("name", ["euler", "tweedie", "mean"])
def test_only_the_step_to_the_end_is_replaced(name):
    """The grid but for its last point is the solver's own; the last step ignores the key."""
    path, field = paths.cosine(), lambda x, t: jnp.sin(x)
    plain = solvers.euler_maruyama(path, field, solvers.root_linear())
    last = _last_steps(path, field, solvers.root_linear())[name]
    solver = solvers.with_final_step(plain, last)
    x, ts = jnp.array([0.6, -1.1]), jnp.linspace(0, 1, 6)
    assert solver.is_forward_only
    almost = solvers.integrate(plain, KEY, x, ts[:-1])
    _, states = solvers.integrate(solver, KEY, x, ts, observe=lambda carry, t: carry.x)
    np.testing.assert_allclose(states[-2], almost, rtol=1e-6)
    np.testing.assert_allclose(states[-1], last(almost, ts[-2], ts[-1]), rtol=1e-5)


def _every(path, field):
    """Every solver of these files but the renoising one, which takes a pair."""
    plain = solvers.euler_maruyama(path, field, solvers.root_linear())
    return {
        "churn": solvers.churn(path, field, 0.1),
        "implicit_euler": solvers.implicit_euler(field, 3),
        "predictor_corrector_guidance": solvers.predictor_corrector_guidance(
            path, field, field, solvers.relative_step(path)
        ),
        "reversible": solvers.reversible(solvers.heun, field),
        "stochastic_heun": solvers.stochastic_heun(path, field, solvers.root_linear()),
        "with_final_step": solvers.with_final_step(plain, solvers.tweedie_step(path, field)),
    }


NAMES = list(_every(paths.linear(), lambda x, t: x))


@pytest.mark.parametrize("name", NAMES)
def test_state_keeps_its_type(name):
    """A float32 state of any shape stays so where the field computes in bfloat16, and times in double precision."""
    solver = _every(paths.cosine(), lambda x, t: (x * 2).astype(jnp.bfloat16))[name]
    with jax.enable_x64(True):
        ts = jnp.linspace(0, 1, 3, dtype=jnp.float64)
        end = solvers.integrate(solver, jax.random.key(0), jnp.ones((2, 3), jnp.float32), ts)
    assert end.dtype == jnp.float32
    assert end.shape == (2, 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_guidance_interval_is_split_at_its_edges(name):
    """A Piecewise field makes a Piecewise solver: outside the interval its steps are the labelled field's own."""
    path = paths.linear()

    def labelled(x, t, y):
        return 0.5 * jnp.sin(x + y)

    guided = guidance.given(guidance.classifier_free(labelled, guidance.interval(3.0, 0.25, 0.5), 4), 1)
    piecewise = _every(path, guided)[name]
    plain = _every(path, guidance.given(labelled, 1))[name]
    x, late, early = jnp.array([0.6, -1.1]), jnp.array([0.5, 0.75]), jnp.array([0.25, 0.5])
    found, expected = (solvers.integrate(solver, KEY, x, late) for solver in (piecewise, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found, expected = (solvers.integrate(solver, KEY, x, early) for solver in (piecewise, plain))
    assert np.max(np.abs(found - expected)) > 1e-3
