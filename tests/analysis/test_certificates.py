"""(C1) to (C4): divergences and bounds of Gaussians in closed form, and of a mixture's student draw by draw."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis import certificates, likelihood

PATH = paths.linear()
MEAN, VARIANCES = np.array([0.8, -1.5]), np.array([0.25, 2.0])
NOISES = np.random.default_rng(0).normal(size=(400, 2))
ONCE, THRICE = np.array([0.0, 1.0]), np.array([0.0, 0.3, 0.45, 1.0])
FINE = np.linspace(0, 1, 1001)

pytestmark = pytest.mark.usefixtures("x64")


def _variance(t):
    return t**2 * VARIANCES + (1 - t) ** 2


def _field(x, t):
    """The field of N(MEAN, diag VARIANCES) on the linear path."""
    return MEAN + (t * VARIANCES - (1 - t)) / _variance(t) * (x - t * MEAN)


def _exact(x, t, r):
    """The average velocity of its trajectories x_r = r MEAN + sqrt(V_r / V_t) (x - t MEAN)."""
    end = r * MEAN + jnp.sqrt(_variance(r) / _variance(t)) * (x - t * MEAN)
    return jnp.where(r == t, _field(x, t), (end - x) / jnp.where(r == t, 1, r - t))


def _trajectory(noise, t):
    return t * MEAN + jnp.sqrt(_variance(t)) * noise


def _student(x, t, r):
    """A flow map beside the exact one, not affine in x."""
    return _exact(x, t, r) + 0.1 * jnp.sin(x[::-1] + 2 * t) * jnp.cos(r) + 0.05


def _log_normal(x, mean, variances):
    return -0.5 * np.sum((x - mean) ** 2 / variances + np.log(2 * np.pi * variances), axis=-1)


# (C1)


@pytest.mark.parametrize("ts", [ONCE, THRICE], ids=["once", "thrice"])
def test_jumps_of_the_exact_map_have_the_density_of_its_law(ts):
    log_q, x, sign = jax.jit(jax.vmap(lambda noise: certificates.jump_log_density(_exact, noise, ts)))(NOISES)
    np.testing.assert_allclose(x, MEAN + np.sqrt(VARIANCES) * NOISES, rtol=1e-10)
    np.testing.assert_allclose(log_q, _log_normal(np.asarray(x), MEAN, VARIANCES), rtol=1e-10)
    np.testing.assert_array_equal(sign, np.ones(len(NOISES)))


def test_the_density_of_a_linear_map_of_any_shape():
    """x_1 = A x_0, with an A that mixes the coordinates: log N(x_0) - log |det A|, and the sign of the determinant."""
    matrix = np.random.default_rng(1).normal(size=(4, 4))
    flow_map = lambda x, t, r: ((matrix @ x.reshape(-1)).reshape(x.shape) - x) / (1 - t)  # noqa: E731
    noise = NOISES[:2].reshape(2, 2, 1)
    log_q, x, sign = jax.jit(lambda noise: certificates.jump_log_density(flow_map, noise, ONCE))(noise)
    expected = _log_normal(noise.ravel(), 0, np.ones(4)) - np.log(abs(np.linalg.det(matrix)))
    np.testing.assert_allclose(log_q, expected, rtol=1e-10)
    np.testing.assert_allclose(x, (matrix @ noise.ravel()).reshape(2, 2, 1), rtol=1e-10)
    assert sign == np.sign(np.linalg.det(matrix))


def test_a_map_that_folds_has_more_density_than_is_told():
    """x_1 = |x_0|: each sample has two noises, and twice the density; on the one side the sign is -1."""
    noises = np.array([[-0.7], [0.7]])
    fold = lambda x, t, r: jnp.abs(x) - x  # noqa: E731
    log_q, x, sign = jax.vmap(lambda noise: certificates.jump_log_density(fold, noise, ONCE))(noises)
    np.testing.assert_array_equal(x, [[0.7], [0.7]])
    np.testing.assert_array_equal(sign, [-1, 1])
    np.testing.assert_allclose(np.exp(log_q).sum(), np.sqrt(2 / np.pi) * np.exp(-0.245), rtol=1e-10)


def _affine(x, t, r):
    """A student whose law is N(MEAN + 0.1, 1.2^2 VARIANCES)."""
    end = MEAN + 0.1 + 1.2 * jnp.sqrt(VARIANCES / _variance(t)) * (x - t * MEAN)
    return (end - x) / (1 - t)


def test_the_divergence_of_two_gaussians():
    """Each log-ratio by the closed densities; their mean within 4 standard errors of the closed divergence."""
    divergence = likelihood.exact_divergence(_field)
    back = np.linspace(1, 0, 257)

    def ratio(noise):
        draw = partial(certificates.jump_log_density, _affine, ts=ONCE)
        return certificates.log_ratio(solvers.heun, divergence, draw, noise, back)

    found = np.asarray(jax.jit(jax.vmap(ratio))(NOISES))
    x, variances = MEAN + 0.1 + 1.2 * np.sqrt(VARIANCES) * NOISES, 1.44 * VARIANCES
    expected = _log_normal(x, MEAN + 0.1, variances) - _log_normal(x, MEAN, VARIANCES)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    value, error = certificates.kl_divergence(found)
    exact = 0.5 * np.sum(1.44 + 0.01 / VARIANCES - 1 - np.log(1.44))
    assert abs(value - exact) < 4 * error
    assert float(value) == pytest.approx(found.mean()) and float(error) == pytest.approx(found.std() / 20)


@pytest.mark.parametrize("scale", [pytest.param(0.0, marks=pytest.mark.slow), 3.0])
def test_a_student_that_is_the_guided_field_has_no_divergence(scale):
    """Draw by draw, for the ring's guided ODE, forwards and backwards by grids of other lengths."""
    field = guidance.given(guidance.classifier_free(mixtures.ring(3).vector_field(PATH), scale, 3), 1)
    divergence = likelihood.exact_divergence(field)
    draw = partial(likelihood.sample_log_density, solvers.heun, divergence, ts=np.linspace(0, 1, 301))
    ratio = lambda noise: certificates.log_ratio(solvers.heun, divergence, draw, noise, np.linspace(1, 0, 257))  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(ratio))(NOISES[:16]), np.zeros(16), atol=5e-3)


# (C2)


def _wasserstein(mean, std, other_mean, other_std):
    """Between Gaussians with diagonal covariances."""
    return np.sqrt(np.sum((mean - other_mean) ** 2) + np.sum((std - other_std) ** 2))


def test_the_coupling_of_increasing_maps_is_the_distance():
    """Of N(0, I) exactly, in draws whose mean and covariance are exact."""
    white = (NOISES - NOISES.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(NOISES.T, ddof=0)).T)
    student, teacher = MEAN + 0.1 + 1.2 * np.sqrt(VARIANCES) * white, MEAN + np.sqrt(VARIANCES) * white
    bound, error = certificates.coupling_bound(student, teacher)
    distance = _wasserstein(MEAN + 0.1, 1.2 * np.sqrt(VARIANCES), MEAN, np.sqrt(VARIANCES))
    np.testing.assert_allclose(bound, distance, rtol=1e-10)
    squares = np.sum((student - teacher) ** 2, axis=1)
    np.testing.assert_allclose(error, squares.std() / 20 / (2 * distance), rtol=1e-10)


def test_another_coupling_is_above_the_distance_and_none_is_zero():
    student, teacher = MEAN - np.sqrt(VARIANCES) * NOISES, MEAN + np.sqrt(VARIANCES) * NOISES
    assert certificates.coupling_bound(student, teacher).value > 1  # one law
    assert certificates.coupling_bound(teacher, teacher) == (0.0, 0.0)


# (C3)


def _ends(ts):
    """Where the student's jumps take x from t to 1 over the grid."""

    def flow(x, t):
        for start, stop in pairwise(ts):
            is_over = (t >= stop) & (stop < 1)
            first = jnp.where(is_over, stop, jnp.where(t < start, start, t))  # of one derivative at each time
            x = x + (stop - first) * _student(x, first, stop)
        return x

    return flow


def _gauss(ts, order=24):
    """Nodes and weights of Gauss and Legendre between each pair of neighbours."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    spans = np.diff(ts)[:, None]
    return (ts[:-1, None] + spans * (nodes + 1) / 2).ravel(), (spans * weights / 2).ravel()


@pytest.mark.parametrize("ts", [ONCE, THRICE], ids=["once", "thrice"])
def test_what_parts_student_and_teacher_is_the_integral_of_the_residual(ts):
    """(C3), to 1e-8, along the teacher's trajectories in closed form."""
    times, weights = _gauss(ts)
    flow = _ends(ts)

    def parted(noise):
        residuals = jax.vmap(lambda t: certificates.residual(flow, _field, _trajectory(noise, t), t))(times)
        return jnp.sum(weights[:, None] * residuals, axis=0), _trajectory(noise, 1.0) - flow(noise, 0.0)

    found, expected = jax.jit(jax.vmap(parted))(NOISES[:50])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert np.min(np.max(np.abs(expected), axis=1)) > 1e-3


def test_the_residual_of_a_flow_map_is_its_eulerian_one():
    """u_T - U + (1 - t) dU/dt, with dU/dt by a central difference along the trajectory; of the exact map 0."""
    flow = lambda x, t: x + (1 - t) * _exact(x, t, 1.0)  # noqa: E731

    @jax.jit
    def both(noise, t, step):
        x = _trajectory(noise, t)
        before, after = (_student(_trajectory(noise, s), s, 1.0) for s in (t - step, t + step))
        expected = _field(x, t) - _student(x, t, 1.0) + (1 - t) * (after - before) / (2 * step)
        found = (certificates.residual(each, _field, x, t) for each in (_ends(ONCE), flow))
        return *found, expected

    of_student, of_exact, expected = both(NOISES[0], 0.4, 1e-5)
    np.testing.assert_allclose(of_student, expected, atol=1e-7)
    np.testing.assert_allclose(of_exact, np.zeros(2), atol=1e-10)


def test_the_residual_of_a_field_is_the_formula_of_alekseev_and_groebner():
    """The student's flow of a shifted field: e = -(d_x phi) shift, d_x phi = sqrt(V_1 / V_t)."""
    shift, t = np.array([0.2, -0.1]), 0.4

    def flow(x, t):
        return solvers.integrate(
            solvers.heun(lambda x, t: _field(x, t) + shift), jax.random.key(0), x, t + (1 - t) * jnp.linspace(0, 1, 201)
        )

    found = certificates.residual(flow, _field, NOISES[0], t)
    np.testing.assert_allclose(found, -np.sqrt(VARIANCES / _variance(t)) * shift, rtol=1e-4)


@pytest.mark.parametrize("ts", [ONCE, THRICE], ids=["once", "thrice"])
def test_the_bound_by_residuals_is_above_the_coupling(ts):
    """On the same draws, whose residuals sum up to what parts them."""
    flow = _ends(ts)
    grid = np.union1d(np.linspace(0, 1, 301), ts)
    along = partial(certificates.residuals_along, solvers.heun, flow, _field, ts=grid)
    residuals, ends = jax.jit(jax.vmap(along))(NOISES)
    np.testing.assert_allclose(ends, MEAN + np.sqrt(VARIANCES) * NOISES, atol=1e-4)
    coupling = certificates.coupling_bound(jax.vmap(lambda noise: flow(noise, 0.0))(NOISES), ends).value
    bound = certificates.residual_bound(residuals, grid)
    assert coupling <= bound < 3 * coupling
    parted = np.trapezoid(np.asarray(residuals), grid, axis=1)
    np.testing.assert_allclose(np.sqrt(np.mean(np.sum(parted**2, axis=1))), coupling, rtol=3e-3)


def test_the_bound_of_a_residual_that_is_alike_everywhere_is_the_distance():
    """Of a student that ends beside the teacher by a number: coupling, bound and distance are one."""
    flow = lambda x, t: x + (1 - t) * (_exact(x, t, 1.0) + 0.3)  # noqa: E731
    along = jax.jit(jax.vmap(lambda noise: certificates.residuals_along(solvers.heun, flow, _field, noise, FINE)))
    residuals, ends = along(NOISES[:9])
    student = jax.vmap(lambda noise: flow(noise, 0.0))(NOISES[:9])
    for bound in (certificates.coupling_bound(student, ends).value, certificates.residual_bound(residuals, FINE)):
        np.testing.assert_allclose(bound, 0.3 * np.sqrt(2), rtol=1e-4)


# (C4)


def _rates(field, ts):
    """The growth rate of a field that is affine in x, which is one number at each time."""
    return jax.jit(jax.vmap(lambda t: certificates.growth_rate(field, jnp.ones(2), t)))(ts)


def test_the_growth_rate_is_the_largest_eigenvalue_of_the_symmetric_part():
    matrix = np.random.default_rng(2).normal(size=(3, 3))
    expected = np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    found = certificates.growth_rate(lambda x, t: t * (matrix @ x), jnp.ones(3), 0.5)
    np.testing.assert_allclose(found, expected / 2, rtol=1e-10)
    slopes = [np.max((t * VARIANCES - (1 - t)) / _variance(t)) for t in FINE[::100]]
    np.testing.assert_allclose(_rates(_field, FINE[::100]), slopes, rtol=1e-10)


def test_the_bound_of_a_shifted_field_with_one_rate_is_the_distance():
    """Of a round Gaussian: d' = L d + |shift|, the student's and the teacher's laws shifted by one number."""
    variance, shift = 0.5, np.array([0.2, -0.1])
    field = lambda x, t: (t * variance - (1 - t)) / (t**2 * variance + (1 - t) ** 2) * x  # noqa: E731
    errors = np.broadcast_to(shift, (3, len(FINE), 2))
    bound = certificates.residual_bound(errors, FINE, _rates(field, FINE))
    drift = solvers.integrate(solvers.heun(lambda x, t: field(x, t) + shift), jax.random.key(0), jnp.zeros(2), FINE)
    np.testing.assert_allclose(bound, np.linalg.norm(drift), rtol=1e-4)


def test_the_bound_by_growth_is_above_the_distance_of_two_gaussians():
    """The student's law in closed form: its field is that of a Gaussian beside the teacher's."""
    mean, variances = MEAN + 0.1, 1.3 * VARIANCES
    student = lambda x, t: mean + (t * variances - (1 - t)) / (t**2 * variances + (1 - t) ** 2) * (x - t * mean)  # noqa: E731
    at = lambda noise, t: _field(x := _trajectory(noise, t), t) - student(x, t)  # noqa: E731
    errors = jax.vmap(lambda noise: jax.vmap(lambda t: at(noise, t))(FINE))(NOISES)
    bound = certificates.residual_bound(errors, FINE, _rates(student, FINE))
    distance = _wasserstein(mean, np.sqrt(variances), MEAN, np.sqrt(VARIANCES))
    assert distance < bound < 5 * distance
    assert certificates.residual_bound(errors, FINE) != bound


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: certificates.kl_divergence(jnp.ones((2, 2))), "log_ratios must"),
        (
            lambda: certificates.coupling_bound(jnp.ones((3, 2)), jnp.ones((3, 1))),
            "teacher_samples must have the shape",
        ),
        (lambda: certificates.coupling_bound(jnp.ones((0, 2)), jnp.ones((0, 2))), "samples must be .* not empty"),
        (lambda: certificates.residual_bound(jnp.ones((4, 3, 2)), ONCE), r"residuals must be \[n, 2, \*D\]"),
        (lambda: certificates.residual_bound(jnp.ones((4, 2, 2)), ONCE, jnp.ones(3)), "rates must have the shape"),
        (lambda: certificates.residual_bound(jnp.ones((4, 2, 2)), ONCE[::-1]), "ts must increase, from noise to data"),
        (lambda: certificates.jump_log_density(lambda x, t, r: x, jnp.ones(2), ONCE[::-1]), "ts must increase"),
        (
            lambda: certificates.residuals_along(solvers.heun, lambda x, t: x, lambda x, t: x, jnp.ones(2), ONCE[::-1]),
            "ts must increase",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
