"""(L6) and (L7): their minimisers and fixed points on Gaussians, how fixed points are reached, and densities of w."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, losses, paths
from cfgjax.types import Interval

KEYS = jax.random.split(jax.random.key(0), 64)
MEANS, VARIANCES = (0.5, -1.0), (2.0, 0.5)
"""Of two Gaussians on the line: label 0 stands for the null, label 1 for y."""


def _coefficients(path, label, t):
    """(a, b) of the field a + b x of one of the two Gaussians, by its variance along the path."""
    c = paths.coefficients(path, jnp.asarray(t))
    variance = c.alpha**2 * VARIANCES[label] + c.beta**2
    slope = (c.alpha * c.alpha_dot * VARIANCES[label] + c.beta * c.beta_dot) / variance
    return jnp.stack([(c.alpha_dot - slope * c.alpha) * MEANS[label], slope])


def _field_of(coefficients):
    return lambda x, t: coefficients[0] + coefficients[1] * x


def _at(t):
    return lambda key: jnp.asarray(t)


def _newton(loss, parameters, rate=1.0):
    """A step of the rate towards the least value of a quadratic loss; at rate 1 to it."""
    slope, curvature = jax.grad(loss)(parameters), jax.hessian(loss)(parameters)
    return parameters - rate * jnp.linalg.solve(curvature, slope)


@pytest.mark.usefixtures("x64")
def test_the_student_of_two_gaussians_is_the_guided_field_at_every_scale(exact_path):
    """Of a student linear in (1, x) x (1, w), solved exactly; at both ends of time, too."""
    scales = losses.uniform_scale(-1.0, 4.0)

    def loss(parameters, fields, t, key):
        scale_key, data_key, loss_key = jax.random.split(key, 3)
        scale = scales(scale_key)
        teacher, student = (_field_of(pair[0] + scale * pair[1]) for pair in (fields, parameters))
        z = 2 * jax.random.normal(data_key, (1,))
        return losses.distilled_guidance(exact_path, student, teacher, loss_key, z, time_density=_at(t))

    @jax.jit
    def fitted(t):
        null, labelled = (_coefficients(exact_path, label, t) for label in (0, 1))
        fields = jnp.stack([null, labelled - null])
        mean = lambda row: jnp.mean(jax.vmap(partial(loss, row.reshape(2, 2), fields, t))(KEYS))  # noqa: E731
        return _newton(mean, jnp.zeros(4)).reshape(2, 2), fields

    for t in (0.0, 0.4, 1.0):
        np.testing.assert_allclose(*fitted(t), rtol=1e-8, atol=1e-8)


def test_the_loss_of_a_student_by_hand():
    """The mean over coordinates, with its weight, at the sample of the module's own keys."""
    path, z, key = paths.cosine(), jnp.array([[0.3, -1.2, 2.0]]), jax.random.key(3)
    t = jnp.float32(0.25)
    x = np.asarray(paths.sample(path, jax.random.split(key)[1], z, t).x)
    found = losses.distilled_guidance(
        path,
        lambda x, t: jnp.sin(x),
        lambda x, t: t * x,
        key,
        z,
        time_density=lambda key: t,
        weight=lambda t: 3 * t,
    )
    np.testing.assert_allclose(found, 0.75 * np.mean((np.sin(x) - 0.25 * x) ** 2), rtol=1e-5)


def test_a_teacher_does_not_learn():
    def loss(size, teacher_size):
        return losses.distilled_guidance(
            paths.linear(), lambda x, t: size * x, lambda x, t: teacher_size * x, jax.random.key(1), jnp.ones(2)
        )

    of_student, of_teacher = jax.grad(loss, (0, 1))(0.5, 2.0)
    assert of_student < 0 and of_teacher == 0


def test_the_oracle_s_guided_field_is_the_least_of_all(clustered):
    """Bitwise 0, at every scale and label, for a teacher that is the guided oracle; above 0 beside it."""
    path = paths.linear()
    exact = clustered.vector_field(path)

    def loss(shift, key, y, scale):
        teacher = guidance.given(guidance.classifier_free(exact, scale, 3), y)
        return losses.distilled_guidance(path, lambda x, t: teacher(x, t) + shift, teacher, key, jnp.ones(2))

    each = jax.jit(jax.vmap(loss, (None, 0, 0, 0)))
    arguments = KEYS[:8], jnp.arange(8) % 4, jnp.linspace(-1.0, 6.0, 8)
    np.testing.assert_array_equal(each(0.0, *arguments), np.zeros(8))
    np.testing.assert_allclose(each(0.1, *arguments), np.full(8, 0.01), rtol=1e-3)


# Model guidance

SPREADS = np.sqrt(VARIANCES)


PATH, TIME = paths.cosine(), 0.4


def _mean_loss(kind):
    """The mean of a loss (field, key, z) over draws of the labelled Gaussian, as a function of (a, b)."""

    def one(parameters, key):
        data_key, loss_key = jax.random.split(key)
        z = MEANS[1] + SPREADS[1] * jax.random.normal(data_key, (1,))
        return kind(PATH, _field_of(parameters), key=loss_key, z=z, time_density=_at(TIME))

    return lambda parameters: jnp.mean(jax.vmap(partial(one, parameters))(KEYS))


def _model_guidance(scale, kappa):
    null_field = _field_of(_coefficients(PATH, 0, TIME))
    return _mean_loss(partial(losses.model_guidance, null_field=null_field, scale=scale, kappa=kappa))


def _fixed_point(scale):
    """(1 - w) u_null + w u_y, with u_y the least squares fit of the draws' own velocities."""
    labelled = _newton(_mean_loss(losses.flow_matching), jnp.zeros(2))
    return (1 - scale) * _coefficients(PATH, 0, TIME) + scale * labelled, labelled


@pytest.mark.usefixtures("x64")
def test_model_guidance_rests_at_the_guided_field():
    """The slope is 0 at the fixed point and there alone: with kappa = 1 - 1/w, and with another one."""

    @jax.jit
    def slopes(scale, kappa):
        guided, labelled = _fixed_point(scale)
        by = [_model_guidance(scale, None), _model_guidance(scale, kappa)]
        return [jax.grad(loss)(guided + shift) for loss in by for shift in (0.0, 0.1)], labelled

    for scale, kappa in ((3.0, 0.5), (1.0, 0.0), (0.75, -0.5), (0.1, 0.9)):
        (own, beside, other, far), labelled = slopes(scale, kappa)
        np.testing.assert_allclose([own, other], np.zeros((2, 2)), atol=1e-9)
        assert min(np.linalg.norm(beside), np.linalg.norm(far)) > 1e-3
    error = 4 * SPREADS[1] / np.sqrt(len(KEYS))
    np.testing.assert_allclose(labelled, _coefficients(PATH, 1, TIME), atol=2 * error)


@pytest.mark.usefixtures("x64")
def test_every_step_moves_the_error_by_its_factor():
    """By 1 - rate (1 - kappa): repeated fits (rate 1) with kappa = 1 - 1/w reach the guided field for w > 1/2 alone."""
    error = jnp.array([1.0, -2.0])

    @jax.jit
    def moved(scale, kappa, rate):
        guided, _ = _fixed_point(scale)
        steps = [partial(_newton, _model_guidance(scale, each), rate=rate) for each in (None, kappa)]
        return [step(step(guided + error)) - guided for step in steps]

    for scale, kappa, rate in ((3.0, 0.0, 1.0), (0.6, 0.5, 0.1), (0.5, 0.25, 1.0), (0.4, -0.5, 1.0), (0.4, 0.0, 0.5)):
        factors = [1 - rate / scale, 1 - rate * (1 - kappa)]
        for found, factor in zip(moved(scale, kappa, rate), factors, strict=True):
            np.testing.assert_allclose(found, factor**2 * np.asarray(error), rtol=1e-6, atol=1e-9)
        assert (abs(factors[0]) < 1) == (scale > rate / 2)


def test_the_oracle_s_guided_field_has_no_slope(clustered):
    """The mean slope towards more guidance is within 4 standard errors of 0, and not at another scale's field."""
    path, scale = paths.linear(), 2.5
    exact = clustered.vector_field(path)

    def slope(of, key):
        label_key, data_key, loss_key = jax.random.split(key, 3)
        y = clustered.sample_label(label_key)
        z, guided = clustered.sample(data_key, y), guidance.classifier_free(exact, of, 3)

        def loss(shift):
            more = lambda x, t: (1 + shift) * guided(x, t, y) - shift * exact(x, t, 3)  # noqa: E731
            return losses.model_guidance(path, more, guidance.given(exact, 3), loss_key, z, scale)

        return jax.grad(loss)(0.0)

    keys = jax.random.split(jax.random.key(4), 5000)
    each = jax.jit(jax.vmap(slope, (None, 0)))
    (at_rest, error), (other, _) = (
        (np.mean(s), np.std(s) / np.sqrt(len(s))) for s in (each(scale, keys), each(1.0, keys))
    )
    assert abs(at_rest) < 4 * error < abs(other)


def test_at_scale_one_it_is_flow_matching(path):
    z, key = jnp.array([0.3, -1.2]), jax.random.key(2)
    found = losses.model_guidance(path, lambda x, t: jnp.sin(x), lambda x, t: 9 * x, key, z, 1.0)
    np.testing.assert_allclose(found, losses.flow_matching(path, lambda x, t: jnp.sin(x), key, z), rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_its_kappa_does_not_allow_is_refused(scale):
    loss = partial(
        losses.model_guidance, paths.linear(), lambda x, t: x, lambda x, t: x, jax.random.key(0), jnp.ones(2)
    )
    with pytest.raises(ValueError, match=r"scale must be above 0 where kappa is 1 - 1/scale, got -?\d\.0"):
        loss(scale)
    assert np.isfinite(loss(scale, kappa=0.0))


# Densities of the guidance scale

NUM_DRAWS = 20_000
MANY = jax.random.split(jax.random.key(5), NUM_DRAWS)


def _power_law(w, low, high, power):
    """The distribution function of the density that is proportional to w^-power."""
    if power == 1:
        return np.log(w / low) / np.log(high / low)
    return (w ** (1 - power) - low ** (1 - power)) / (high ** (1 - power) - low ** (1 - power))


@pytest.mark.parametrize(
    ("density", "low", "high", "power"),
    [
        (losses.uniform_scale(-1.0, 5.0), -1.0, 5.0, 0),
        (losses.power_scale(0.5, 8.0), 0.5, 8.0, 1),
        (losses.power_scale(0.5, 8.0, 0.0), 0.5, 8.0, 0),
        (losses.power_scale(1.0, 8.0, 2.5), 1.0, 8.0, 2.5),
        (losses.power_scale(1.0, 8.0, -1.0), 1.0, 8.0, -1),
    ],
)
def test_scales_have_their_distribution(density, low, high, power):
    """At five levels within 4 standard errors, and none outside the range."""
    scales = np.asarray(jax.jit(jax.vmap(density))(MANY), np.float64)
    assert low <= scales.min() and scales.max() <= high * (1 + 1e-6)
    for w in np.linspace(low, high, 7)[1:-1]:
        level = _power_law(w, low, high, power)
        assert abs(np.mean(scales < w) - level) < 4 * np.sqrt(level * (1 - level) / NUM_DRAWS)


@pytest.mark.usefixtures("x64")
def test_a_power_density_passes_over_the_logarithmic_one_without_a_jump():
    draw = jax.jit(lambda power: losses.power_scale(0.5, 8.0, power)(KEYS[3]))
    exact = 0.5 * 16 ** float(jax.random.uniform(KEYS[3]))
    for power in (1.0, 1 + 1e-5, 1 - 1e-5, 1 + 1e-3):
        assert float(draw(power)) == pytest.approx(exact, rel=3 * abs(power - 1) + 1e-4)


def test_edges_of_intervals_have_their_densities():
    """Half of them all of [0, 1]; the others' start under 1/2, their stop above; scales as without intervals."""
    density = losses.scale_interval(losses.uniform_scale(1.0, 3.0))
    found = jax.jit(jax.vmap(density))(MANY)
    assert isinstance(found, Interval)
    whole = (np.asarray(found.start) == 0) & (np.asarray(found.stop) == 1)
    assert abs(whole.mean() - 0.5) < 4 * 0.5 / np.sqrt(NUM_DRAWS)
    start, stop = np.asarray(found.start)[~whole], np.asarray(found.stop)[~whole]
    assert start.max() < 0.5 <= stop.min()
    for edge, middle in ((start, 0.25), (stop, 0.75)):
        assert abs(edge.mean() - middle) < 4 * 0.5 / np.sqrt(12 * len(edge))
    assert abs(np.asarray(found.scale).mean() - 2) < 4 * 2 / np.sqrt(12 * NUM_DRAWS)


def test_of_two_edges_the_earlier_is_the_start():
    density = losses.scale_interval(lambda key: 2.0, lambda key: 0.75, lambda key: 0.25, whole_rate=0.0)
    assert density(KEYS[0]) == Interval(2.0, 0.25, 0.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.uniform_scale(3.0, 3.0), r"low must be under high, got 3\.0 and 3\.0"),
        (lambda: losses.power_scale(4.0, 3.0), "low must be under high"),
        (lambda: losses.power_scale(0.0, 3.0), "low must be above 0"),
        (lambda: losses.scale_interval(lambda key: jnp.ones(2))(KEYS[0]), r"scale_density\(key\) must be one number"),
        (lambda: losses.scale_interval(lambda key: 1.0, lambda key: 2.0)(KEYS[0]), r"start_density\(key\) must be in"),
        (
            lambda: losses.scale_interval(lambda key: 1.0, stop_density=lambda key: -1.0)(KEYS[0]),
            r"stop_density\(key\)",
        ),
    ],
)
def test_bad_densities_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
