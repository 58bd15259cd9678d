"""Paths: (P1) to (P4) at the ends, inside, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import paths

INNER = np.linspace(0.05, 0.95, 19)


def _coefficients_at(path, ts):
    return jax.vmap(lambda t: paths.coefficients(path, t))(jnp.asarray(ts))


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_end_points_are_exact(exact_path, double):
    with jax.enable_x64(double):
        start, end = paths.coefficients(exact_path, 0.0), paths.coefficients(exact_path, 1.0)
    assert (float(start.alpha), float(start.beta)) == (0.0, 1.0)
    assert (float(end.alpha), float(end.beta)) == (1.0, 0.0)


def test_original_schedule_ends_in_data_and_starts_with_a_trace_of_it():
    path = paths.variance_preserving(zero_terminal=False)
    start, end = paths.coefficients(path, 0.0), paths.coefficients(path, 1.0)
    assert (float(end.alpha), float(end.beta)) == (1.0, 0.0)
    np.testing.assert_allclose(start.alpha, np.exp(-(0.1 + 19.9 / 2) / 2), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_derivatives_agree_with_finite_differences(path):
    width = 1e-5
    here, above, below = (_coefficients_at(path, INNER + shift) for shift in (0, width, -width))
    np.testing.assert_allclose(here.alpha_dot, (above.alpha - below.alpha) / (2 * width), rtol=2e-7)
    np.testing.assert_allclose(here.beta_dot, (above.beta - below.beta) / (2 * width), rtol=2e-7)


def test_coefficients_do_not_jump(path):
    ts = np.linspace(0, 1, 2001)
    found = _coefficients_at(path, ts)
    assert np.all(np.diff(found.alpha) > -1e-7)
    assert np.all(np.diff(found.beta) < 1e-7)
    assert np.max(np.abs(np.diff(found.alpha))) < 0.01


def test_wronskian_is_positive_inside(path):
    assert np.all(_coefficients_at(path, INNER).wronskian > 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.linear(), np.ones(19)),
        (paths.cosine(), np.full(19, np.pi / 2)),
        (paths.polynomial(2), 2 * INNER),
        (paths.polynomial(3), 3 * INNER**2),
        (paths.polynomial(1.5), 1.5 * INNER**0.5),
    ],
    ids=["linear", "cosine", "polynomial_2", "polynomial_3", "polynomial_1.5"],
)
def test_wronskian_closed_forms(path, expected):
    """The values that (P4) names."""
    np.testing.assert_allclose(_coefficients_at(path, INNER).wronskian, expected, rtol=1e-12)


@pytest.mark.parametrize("zero_terminal", [True, False])
def test_variance_is_preserved(zero_terminal):
    found = _coefficients_at(paths.variance_preserving(zero_terminal=zero_terminal), np.linspace(0, 1, 101))
    np.testing.assert_allclose(found.alpha**2 + found.beta**2, 1.0, atol=2e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("rate_min", "rate_max"), [(0.1, 20.0), (0.5, 8.0)])
def test_variance_preserving_closed_forms(rate_min, rate_max):
    """Song et al.'s equation 32 by numeric integration of the rate, and Lin et al.'s shift of its alpha."""

    def alpha(t):
        s = 1 - t
        grid = np.linspace(0, s, 2001)
        return np.exp(-0.5 * np.trapezoid(rate_min + grid * (rate_max - rate_min), grid))

    original = np.array([alpha(t) for t in INNER])
    shifted = (original - alpha(0)) / (1 - alpha(0))
    found = _coefficients_at(paths.variance_preserving(rate_min, rate_max, zero_terminal=False), INNER)
    np.testing.assert_allclose(found.alpha, original, rtol=1e-9)
    found = _coefficients_at(paths.variance_preserving(rate_min, rate_max), INNER)
    np.testing.assert_allclose(found.alpha, shifted, rtol=1e-9)


@pytest.mark.parametrize("t", [0.0, 1e-3, 0.4, 0.97, 1.0])
def test_sample_is_the_path_at_its_own_noise(path, t):
    """(P1), and (P2) with z and noise held."""
    z = jnp.array([[0.3, -2.0], [1.1, 0.0]])
    drawn = paths.sample(path, jax.random.key(1), z, t)
    c = paths.coefficients(path, t)
    np.testing.assert_allclose(drawn.x, c.alpha * z + c.beta * drawn.noise, rtol=1e-6)
    np.testing.assert_allclose(drawn.field, c.alpha_dot * z + c.beta_dot * drawn.noise, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_target_is_the_time_derivative_of_the_sample(path):
    z, key = jnp.array([0.3, -2.0]), jax.random.key(1)
    velocity = jax.jvp(lambda t: paths.sample(path, key, z, t).x, (0.6,), (1.0,))[1]
    np.testing.assert_allclose(paths.sample(path, key, z, 0.6).field, velocity, rtol=1e-12)


def test_noise_is_standard_normal():
    """Mean, variance and correlation with the data within 4 standard errors."""
    num_samples = 20_000
    z = jnp.linspace(-1, 1, num_samples)
    noise = np.asarray(paths.sample(paths.linear(), jax.random.key(2), z, 0.5).noise)
    error = 4 / np.sqrt(num_samples)
    assert abs(noise.mean()) < error
    assert abs(noise.var() - 1) < np.sqrt(2) * error
    assert abs(np.corrcoef(noise, z)[0, 1]) < error


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.0, 0.02, 0.5, 0.98])
def test_conditional_field_and_score_at_a_sample(path, t):
    """(P2) and (P3)."""
    z = jnp.array([0.3, -2.0])
    drawn = paths.sample(path, jax.random.key(1), z, t)
    np.testing.assert_allclose(paths.conditional_field(path, drawn.x, z, t), drawn.field, rtol=1e-10)
    score = -drawn.noise / paths.coefficients(path, t).beta
    np.testing.assert_allclose(paths.conditional_score(path, drawn.x, z, t), score, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.0, 0.3, 0.9])
def test_conditional_score_is_the_gradient_of_the_log_density(path, t):
    """(P3)."""
    x, z, c = jnp.array([0.7, 0.1]), jnp.array([0.3, -2.0]), paths.coefficients(path, t)

    def log_density(x):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, c.alpha * z, c.beta))

    np.testing.assert_allclose(paths.conditional_score(path, x, z, t), jax.grad(log_density)(x), rtol=1e-10)


@pytest.mark.parametrize("t", [0.0, 1.0, 0, 1])
def test_everything_is_finite_at_both_ends(path, t):
    x, z = jnp.array([0.7, 0.1]), jnp.array([0.3, -2.0])
    values = (
        paths.coefficients(path, t),
        paths.sample(path, jax.random.key(0), z, t),
        paths.conditional_field(path, x, z, t),
        paths.conditional_score(path, x, z, t),
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values))


def test_derivatives_in_time_are_finite_at_both_ends(path):
    for t in (0.0, 1.0):
        gradient = jax.grad(lambda t: paths.sample(path, jax.random.key(0), jnp.ones(()), paths.before_end(t)).x)(t)
        assert np.isfinite(gradient)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_time_keeps_at_least_32_bits(dtype):
    assert paths.as_time(jnp.asarray(0.5, dtype)).dtype == jnp.float32
    assert paths.before_end(jnp.asarray(1, dtype)) == np.nextafter(np.float32(1), np.float32(0))


def test_before_end_leaves_earlier_times_alone():
    for t in (0.0, 0.3, float(np.nextafter(np.float32(1), np.float32(0)))):
        assert float(paths.before_end(t)) == float(np.float32(t))


def test_power_under_one_is_refused():
    with pytest.raises(ValueError, match="power"):
        paths.polynomial(0.5)


@pytest.mark.parametrize(("rates", "name"), [((-0.1, 20.0), "rate_min"), ((0.1, 0.0), "rate_max")])
def test_bad_rates_are_refused(rates, name):
    with pytest.raises(ValueError, match=name):
        paths.variance_preserving(*rates)


def test_a_steep_variance_preserving_path_does_not_overflow():
    path = paths.variance_preserving(0.1, 400.0)
    ts = jnp.linspace(0, 1, 101)
    values = jax.vmap(lambda t: paths.coefficients(path, t))(ts)
    assert all(np.all(np.isfinite(leaf)) for leaf in values)
    np.testing.assert_allclose(np.square(values.alpha) + np.square(values.beta), 1.0, atol=1e-5)
    assert (float(values.alpha[0]), float(values.alpha[-1])) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: paths.polynomial(np.inf), "power"),
        (lambda: paths.variance_preserving(0.1, np.inf), "rate_max"),
        (lambda: paths.variance_preserving(np.nan), "rate_min"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(make, name):
    with pytest.raises(ValueError, match=f"{name} must be .* and finite, got"):
        make()
