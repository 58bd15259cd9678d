"""(I1) to (I4): what is measured is replaced exactly, what is not is left; biased and unbiased cases in moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers, steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.piecewise import Piecewise
from cfgjax.steering import operators
from cfgjax.types import Measurement

KEY = jax.random.key(0)
TS = np.linspace(0, 1, 9, dtype=np.float32)
MASK = np.array([1.0, 0.0])
X = np.array([0.7, -0.3], np.float32)


def _field(path, mean=(0.0, 0.0), correlation=0.0):
    covariance = jnp.array([[1.0, correlation], [correlation, 1.0]])
    mixture = LabelledMixture(jnp.ones(1), jnp.asarray(mean)[None], covariance[None])
    return guidance.given(mixture.vector_field(path), 0)


def _nothing(x, t):
    return jnp.zeros_like(x)


OPERATORS = {
    "rows": (operators.matrix(np.array([[1.0, 2.0, 0.0, -1.0], [0.5, 0.0, 1.0, 1.0]])), (4,)),
    "dependent rows": (operators.matrix(np.array([[1.0, 2.0, 0.0, 1.0], [2.0, 4.0, 0.0, 2.0]])), (4,)),
    "mask": (operators.mask(jnp.array([1.0, 0.0, 1.0, 0.0])), (4,)),
    "means": (operators.pooled(2), (4, 4, 1)),
    "blur": (operators.blurred(np.array([[0.1, 0.2, 0.1]])), (3, 4, 2)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OPERATORS)
def test_the_measured_part_is_replaced_and_the_rest_left(name):
    """A x' = A A^+ (alpha m + ...), (1 - A^+ A) x' = (1 - A^+ A) x, with A^+ of NumPy; at t = 1 without noise."""
    operator, shape = OPERATORS[name]
    size = int(np.prod(shape))
    matrix = np.stack([np.asarray(operator(row.reshape(shape))).ravel() for row in jnp.eye(size)], axis=1)
    inverse, rng = np.linalg.pinv(matrix), np.random.default_rng(0)
    x, value = rng.normal(size=shape), np.asarray(operator(jnp.asarray(rng.normal(size=shape))))
    solver = steering.replacement(paths.cosine(), solvers.euler(_nothing), Measurement(operator, value, 0.0))
    end = np.asarray(solver.step(KEY, solver.init(jnp.asarray(x)), jnp.float64(0.5), jnp.float64(1.0)).x)
    np.testing.assert_allclose(end.ravel(), x.ravel() + inverse @ (value.ravel() - matrix @ x.ravel()), atol=1e-8)


@pytest.mark.parametrize("noise_std", [0.0, 0.6])
def test_a_replaced_part_has_the_law_of_a_state(noise_std):
    """Mean alpha m, covariance beta^2 A A^T + alpha^2 s^2 I, within 4 standard errors; the rest is untouched."""
    path, t, number = paths.linear(), jnp.float32(0.4), 20_000
    matrix, value = np.array([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]]), np.array([0.3, -1.0])
    measurement = Measurement(operators.matrix(matrix), jnp.asarray(value), noise_std)
    solver = steering.replacement(path, solvers.euler(_nothing), measurement)
    x = jnp.array([0.2, -0.7, 1.1])
    step = jax.jit(jax.vmap(lambda key: solver.step(key, solver.init(x), t / 2, t).x))
    ends = np.asarray(step(jax.random.split(KEY, number)), float)
    rest = np.eye(3) - np.linalg.pinv(matrix) @ matrix
    np.testing.assert_allclose(ends @ rest, np.tile(rest @ np.asarray(x), (number, 1)), atol=1e-5)
    off = ends @ matrix.T - 0.4 * value
    covariance = 0.36 * matrix @ matrix.T + 0.16 * noise_std**2 * np.eye(2)
    for values, wanted in ((off, np.zeros(2)), (off[:, :, None] * off[:, None], covariance)):
        assert np.all(np.abs(values.mean(axis=0) - wanted) < 4 * values.std(axis=0) / np.sqrt(number))


@pytest.mark.parametrize("build", [steering.replacement, lambda *rest: steering.repaint(*rest, 3)])
@pytest.mark.parametrize("make_solver", [solvers.heun, lambda field: solvers.ddim(paths.cosine(), field)])
def test_of_independent_coordinates_the_measured_ends_at_the_measurement_and_the_other_is_free(build, make_solver):
    """A step that starts at its own state: with one resampling the other coordinate's trajectory is the solver's."""
    path = paths.cosine()
    solver = make_solver(_field(path, (1.0, -0.5)))
    steered = build(path, solver, Measurement(operators.mask(MASK), jnp.array([2.5, 0.0]), 0.0))
    end = jax.jit(lambda x: solvers.integrate(steered, KEY, x, TS))(X)
    assert end[0] == 2.5
    if build is steering.replacement:
        free = jax.jit(lambda x: solvers.integrate(solver, KEY, x, TS))(X)
        np.testing.assert_allclose(end[1], free[1], rtol=1e-6)


def test_it_follows_the_solver_of_a_guided_field_in_pieces():
    path = paths.linear()
    mixture = LabelledMixture(jnp.ones(2), jnp.array([[1.0, -0.5], [-1.0, 0.5]]), jnp.stack([jnp.eye(2)] * 2))
    scale = guidance.interval(3.0, 0.25, 0.75)
    solver = solvers.heun(guidance.given(guidance.classifier_free(mixture.vector_field(path), scale, 0), 1))
    steered = steering.replacement(path, solver, Measurement(operators.mask(MASK), jnp.array([2.5, 0.0]), 0.0))
    assert isinstance(steered, Piecewise)
    ends = [solvers.integrate(each, KEY, X, TS) for each in (steered, solver)]
    assert ends[0][0] == 2.5
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-6)


def test_with_a_mask_of_zeros_it_is_the_solver_and_with_ones_the_measurement():
    path, value = paths.linear(), jnp.array([1.5, -2.0])
    solver = solvers.heun(_field(path, correlation=0.8))

    @jax.jit
    def end(mask, value):
        steered = steering.replacement(path, solver, Measurement(operators.mask(mask), value, 0.3 * (1 - mask[0])))
        return solvers.integrate(steered, KEY, X, TS)

    plain = jax.jit(lambda x: solvers.integrate(solver, KEY, x, TS))(X)
    np.testing.assert_array_equal(end(jnp.zeros(2), jnp.zeros(2)), plain)
    np.testing.assert_allclose(end(jnp.ones(2), value), value, rtol=1e-6)


def test_with_one_resampling_repaint_is_replacement_bitwise():
    path, measurement = paths.cosine(), Measurement(operators.mask(MASK), jnp.array([1.0, 0.0]), 0.2)
    solver = solvers.euler_maruyama(path, _field(path, correlation=0.8), solvers.root_beta(path))
    ends = [
        jax.jit(lambda x, steered=steered: solvers.integrate(steered, KEY, x, TS))(X)
        for steered in (
            steering.replacement(path, solver, measurement),
            steering.repaint(path, solver, measurement, 1),
        )
    ]
    np.testing.assert_array_equal(*ends)


def _end_of_the_other(path, correlation, num_resamplings, number=20_000):
    """Mean and variance of the coordinate that is not measured, the other being 1.5; with standard errors."""
    measurement = Measurement(operators.mask(MASK), jnp.array([1.5, 0.0]), 0.0)

    @jax.jit
    @jax.vmap
    def draw(key):
        state_key, solver_key = jax.random.split(key)
        solver = solvers.heun(_field(path, correlation=correlation))
        steered = steering.repaint(path, solver, measurement, num_resamplings)
        return solvers.integrate(steered, solver_key, jax.random.normal(state_key, (2,)), np.linspace(0, 1, 21))

    ends = np.asarray(draw(jax.random.split(KEY, number)), float)[:, 1]
    return ends.mean(), ends.var(), ends.std() / np.sqrt(number), ends.var() * np.sqrt(2 / number)


@pytest.mark.slow
def test_replacement_is_exact_for_independent_coordinates_and_lags_otherwise():
    """The posterior of the other has mean 1.5 c and variance 1 - c^2; RePaint comes nearer the more often."""
    mean, variance, *errors = _end_of_the_other(paths.linear(), 0.0, 1)
    assert abs(mean) < 4 * errors[0] and abs(variance - 1) < 4 * errors[1] + 0.01
    biases = [abs(_end_of_the_other(paths.linear(), 0.8, count)[0] - 1.2) for count in (1, 4, 16)]
    assert biases[0] > 0.2 and biases[1] < 0.6 * biases[0] and biases[2] < 0.5 * biases[1]


def test_noise_of_a_state_at_the_earlier_time():
    """(I4): of a point at t' mean k x and variance beta^2 - (k beta')^2, between two steps that add 0.8."""
    path, number = paths.cosine(), 20_000
    nothing = Measurement(operators.mask(jnp.zeros(1)), jnp.zeros(1), 0.0)
    seen = steering.repaint(path, solvers.euler(lambda x, t: 2.0 * jnp.ones_like(x)), nothing, 2)
    t, t_next = jnp.float32(0.3), jnp.float32(0.7)
    step = jax.jit(jax.vmap(lambda key: seen.step(key, seen.init(jnp.full(1, 0.9)), t, t_next).x[0]))
    ends = np.asarray(step(jax.random.split(KEY, number)), float)
    (alpha, beta), (later, later_beta) = ((float(path.alpha(each)), float(path.beta(each))) for each in (t, t_next))
    mean, variance = alpha / later * (0.9 + 0.8) + 0.8, beta**2 - (alpha / later * later_beta) ** 2
    assert abs(ends.mean() - mean) < 4 * np.sqrt(variance / number)
    assert abs(ends.var() / variance - 1) < 4 * np.sqrt(2 / number)


def test_one_trace_serves_every_measurement_and_each_example_has_its_own():
    traces, path = [], paths.linear()

    @jax.jit
    @jax.vmap
    def end(matrix, value, noise_std, count):
        traces.append(1)
        measurement = Measurement(operators.matrix(matrix), value, noise_std)
        return solvers.integrate(steering.repaint(path, solvers.euler(_field(path)), measurement, count), KEY, X, TS)

    rng = np.random.default_rng(0)
    matrices, values = rng.normal(size=(3, 1, 2)), rng.normal(size=(3, 1))
    for shift in (0.0, 1.0):
        ends = end(matrices, values + shift, np.zeros(3), np.array([1, 2, 3]))
        np.testing.assert_allclose(np.sum(matrices * np.asarray(ends)[:, None], axis=-1), values + shift, atol=1e-5)
    assert len(traces) == 1


def test_gradients_pass_through_what_is_not_measured():
    """Of (1 - A^+ A) x + A^+ m they are the transposes 1 - A^+ A and (A^+)^T, for dependent rows as well."""
    matrix = np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    inverse, weights = np.linalg.pinv(matrix), np.array([1.0, -2.0, 0.5])

    def end(x, value):
        solver = steering.replacement(
            paths.linear(), solvers.euler(_nothing), Measurement(operators.matrix(matrix), value, 0.0)
        )
        return jnp.sum(weights * solver.step(KEY, solver.init(x), jnp.float32(0.5), jnp.float32(1.0)).x)

    of_state, of_value = jax.jit(jax.grad(end, (0, 1)))(jnp.array([0.3, -1.0, 2.0]), jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(of_state, (np.eye(3) - inverse @ matrix).T @ weights, atol=1e-5)
    np.testing.assert_allclose(of_value, inverse.T @ weights, atol=1e-5)


def test_evaluations_are_counted():
    path, measurement = paths.linear(), Measurement(operators.mask(MASK), jnp.zeros(2), 0.0)

    def counts(build):
        return solvers.num_function_evaluations(build, lambda x, t: -x, jnp.ones(2), np.linspace(0, 1, 3)).tolist()

    assert counts(lambda field: steering.replacement(path, solvers.heun(field), measurement)) == [2, 2]
    assert counts(lambda field: steering.repaint(path, solvers.heun(field), measurement, 5)) == [10, 10]


def _mistaken(build, solver, size=2, noise_std=0.0):
    steered = build(paths.linear(), solver, Measurement(operators.mask(MASK), jnp.zeros(size), noise_std))
    return solvers.integrate(steered, KEY, X, TS)


@pytest.mark.parametrize("build", [steering.replacement, steering.repaint])
def test_mistakes_are_named(build):
    solver = solvers.euler(_nothing)
    with pytest.raises(ValueError, match=r"solver must be a rule of one step, got a multistep one"):
        _mistaken(build, solvers.adams_bashforth(_nothing))
    with pytest.raises(TypeError, match=r"solver must be a Solver"):
        _mistaken(build, _nothing)
    with pytest.raises(ValueError, match=r"measurement\.value must have the shape \(2,\), got \(3,\)"):
        _mistaken(build, solver, 3)
    with pytest.raises(ValueError, match=r"measurement\.noise_std must be"):
        _mistaken(build, solver, noise_std=-1.0)
    with pytest.raises(TypeError, match=r"measurement must be a Measurement"):
        build(paths.linear(), solver, MASK)
    with pytest.raises(ValueError, match=r"mask must have the shape \(3,\), got \(2,\)"):
        measurement = Measurement(operators.mask(MASK), jnp.zeros(2), 0.0)
        solvers.integrate(build(paths.linear(), solver, measurement), KEY, jnp.ones(3), TS)
    with pytest.raises(ValueError, match=r"measurement\.operator must be linear"):
        measurement = Measurement(jnp.square, jnp.zeros(2), 0.0)
        solvers.integrate(build(paths.linear(), solver, measurement), KEY, X, TS)


def test_a_count_of_resamplings_is_at_least_one():
    with pytest.raises(ValueError, match=r"num_resamplings must be at least 1, got 0"):
        steering.repaint(
            paths.linear(), solvers.euler(_nothing), Measurement(operators.mask(MASK), jnp.zeros(2), 0.0), 0
        )
