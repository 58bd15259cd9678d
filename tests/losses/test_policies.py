"""(L9) and (L10): their least values on two Gaussians in closed form, by hand in NumPy, and the density of steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, losses, paths
from tests.support.guided_normal import KEY, LABEL, MEANS, VARIANCES, Nodes, draws, expectation

PATH = paths.linear()
AT_ONCE = Nodes((np.zeros(1), np.ones(1)), np.ones(1))
"""A quadrature of one pair of times, which a test replaces by its own."""
STEPS = ((0.2, 0.3), (0.5, 0.6), (0.8, 0.9))


def _pair(path, means=MEANS, variances=VARIANCES):
    """The exact sides for two Gaussians: by default N(0, 2), the null, and N(1, 1)."""

    def field(row):
        def at(x, t, y):
            c = paths.coefficients(path, t)
            rate = c.alpha * c.alpha_dot * variances[row] + c.beta * c.beta_dot
            slope = rate / (c.alpha**2 * variances[row] + c.beta**2)
            return c.alpha_dot * means[row] + slope * (x - c.alpha * means[row])

        return at

    return guidance.autoguidance_pair(field(1), field(0))


def _steps(t, t_next):
    return lambda key: (jnp.asarray(t), jnp.asarray(t_next))


def _views(path, t, row, means=MEANS, variances=VARIANCES):
    """(a, b) of E = a + b x and of D = a + b x of one of the two Gaussians."""
    alpha, beta = float(path.alpha(t)), float(path.beta(t))
    total = alpha**2 * variances[row] + beta**2
    gain = alpha * variances[row] / total
    noise, denoiser = (-beta * alpha * means[row] / total, beta / total), (means[row] * (1 - gain * alpha), gain)
    return np.array(noise), np.array(denoiser)


def _excess_by_hand(t, t_next, repulsion):
    """The least w - 1 of (L9) at b = 2: means of x' given z against t' z, and, without repulsion, the spread of x'."""
    (null_noise, null_clean), (noise, clean) = (_views(PATH, t, row) for row in (0, 1))
    own = t_next * clean + (1 - t_next) * noise
    more = t_next * (clean - null_clean) + (1 - t_next) * (noise - null_noise)
    of_z = lambda line: np.array([line[0], t * line[1]])  # noqa: E731
    second = np.array([[1, MEANS[LABEL]], [MEANS[LABEL], VARIANCES[LABEL] + MEANS[LABEL] ** 2]])
    off, way = of_z(own) - np.array([0, t_next]), of_z(more)
    spread = (1 - repulsion) * (1 - t) ** 2
    slope, curvature = off @ second @ way + spread * own[1] * more[1], way @ second @ way + spread * more[1] ** 2
    return -slope / curvature


@jax.jit
def _consistency_slopes(scale, t, t_next, repulsion):
    """The mean slope of (L9) in w at a scale, of 20,000 points of the label, and its standard error."""

    def loss(scale, key):
        data_key, loss_key = jax.random.split(key)
        z = MEANS[LABEL] + jnp.sqrt(VARIANCES[LABEL]) * jax.random.normal(data_key, (1,))
        return losses.self_consistency(
            PATH, _pair(PATH), lambda t, t_next, y: scale, loss_key, z, 0,
            times=_steps(t, t_next), exponent=2.0, repulsion=repulsion,
        )  # fmt: skip

    slopes = jax.vmap(jax.grad(loss), in_axes=(None, 0))(scale, jax.random.split(KEY, 20_000))
    return jnp.mean(slopes), jnp.std(slopes) / jnp.sqrt(slopes.size)


@pytest.mark.parametrize(("repulsion", "known"), [(0.0, (1.40, 2.00, 0.80)), (1.0, (-0.06, -0.60, -0.97))])
def test_squares_are_least_where_the_closed_form_has_it(repulsion, known):
    """The mean slope is within 4 standard errors of 0 there, and at w = 1, where the fields are exact, it is not."""
    for step, number in zip(STEPS, known, strict=True):
        excess = _excess_by_hand(*step, repulsion)
        assert excess == pytest.approx(number, abs=0.006)
        least, error = _consistency_slopes(1 + excess, *step, repulsion)
        exact, other = _consistency_slopes(1.0, *step, repulsion)
        assert abs(least) < 4 * error
        assert abs(exact) > 4 * other or abs(excess) < 0.1


@pytest.mark.usefixtures("x64")
def test_shared_noise_is_least_at_exact_fields():
    """The step's difference from the state of the same noise is that of denoisers, whose loss is least at w = 1."""
    pair, step = _pair(PATH), (0.5, 0.6)

    def of(scale, z, times):
        clean = conversions.denoiser_of(PATH, guidance.extrapolate(pair, scale))
        return losses.denoiser_matching(PATH, clean, KEY, z, 0, time_density=lambda key: times(key)[0])

    at = AT_ONCE._replace(points=tuple(np.array([each]) for each in step))
    slope = jax.jit(lambda scale: expectation(partial(jax.grad(of), scale), draws(LABEL, 4), at))
    np.testing.assert_allclose(slope(1.0), 0, atol=1e-10)
    assert slope(1.4) > 1e-3
    z, noise, scale = np.array([0.7]), np.array([-0.4]), 1.8
    x, later = (t * z + (1 - t) * noise for t in step)
    found = conversions.from_field(PATH, guidance.extrapolate(pair, scale)(x, 0.5, 0), x, 0.5)
    np.testing.assert_allclose(
        0.6 * found.denoiser + 0.4 * found.noise - later, (0.6 - 0.4 * 0.5 / 0.5) * (found.denoiser - z), rtol=1e-6
    )


def test_self_consistency_by_hand():
    """b = 1.5 in 2-D with three draws, half of the repulsion and a reward, at the states of the loss's own keys."""
    path, z, y = paths.cosine(), jnp.array([0.3, -1.2]), 2
    t, t_next = 0.25, 0.625
    pair = guidance.pair(lambda x, t, y: jnp.sin(x + y) + t * x, 5)
    found = losses.self_consistency(
        path, pair, lambda t, t_next, y: t + 4 * t_next + y, jax.random.key(3), z, y, times=_steps(t, t_next),
        exponent=1.5, repulsion=0.5, num_draws=3, reward=lambda x, t: t * jnp.sum(x**3),
    )  # fmt: skip
    _, start_key, end_key = jax.random.split(jax.random.key(3), 3)
    starts, noised = (
        np.stack([paths.sample(path, key, z, time).x for key in jax.random.split(keys, 3)])
        for keys, time in ((start_key, t), (end_key, t_next))
    )
    c, ahead = paths.coefficients(path, t), paths.coefficients(path, t_next)
    null, labelled = np.sin(starts + 5) + t * starts, np.sin(starts + y) + t * starts
    guided = null + (t + 4 * t_next + y) * (labelled - null)
    denoiser = (c.beta * guided - c.beta_dot * starts) / c.wronskian
    moved = ahead.alpha * denoiser + ahead.beta * (c.alpha_dot * starts - c.alpha * guided) / c.wronskian
    far = lambda one, other: np.linalg.norm(one[:, None] - other[None], axis=-1) ** 1.5  # noqa: E731
    energy = far(moved, noised).mean() - 0.25 * far(moved, moved).sum() / 6
    np.testing.assert_allclose(found, energy - t_next * (moved**3).sum(axis=1).mean(), rtol=1e-5)


def test_equal_sides_have_no_slope():
    """At the null label, bitwise; of one step from noise to data, which moves all draws to one point, it is finite."""
    pair = guidance.pair(lambda x, t, y: jnp.where(y == 7, 1.0, 2.0) - x, 7)

    @jax.jit
    @jax.grad
    def slope(scale, y, t, t_next):
        told = lambda t, t_next, y: scale  # noqa: E731
        return losses.self_consistency(PATH, pair, told, KEY, jnp.ones(1), y, times=_steps(t, t_next))

    assert slope(2.0, 7, 0.3, 0.6) == 0 != slope(2.0, 1, 0.3, 0.6)
    assert np.isfinite(slope(2.0, 1, 0.0, 1.0))


def test_steps_are_apart_and_uniform_among_pairs():
    """t' - t is at least the gap, and above it has the distribution 1 - ((1 - l) / (1 - gap))^2; t is uniform under."""
    gap, number = 0.25, 20_000
    t, t_next = map(np.asarray, jax.vmap(losses.times_apart(gap))(jax.random.split(KEY, number)))
    length = t_next - t
    assert length.min() > gap - 1e-6 and t.min() >= 0 and t_next.max() <= 1
    for level in (0.3, 0.5, 0.8):
        share = 1 - ((1 - level) / (1 - gap)) ** 2
        assert abs(np.mean(length < level) - share) < 4 * np.sqrt(share * (1 - share) / number)
    assert abs(np.mean(t / (1 - length)) - 0.5) < 4 / np.sqrt(12 * number)
    np.testing.assert_array_equal(losses.times_apart(1.0)(KEY), (0, 1))


# Annealed guidance


def _annealed_slope(path, pair, scale, preference, t, t_next):
    """The expectation of (L10) and of its slope in w, over data and noise by quadrature."""

    def loss(scale, z, times):
        told = lambda t, y, gap: scale  # noqa: E731
        return losses.annealed_guidance(path, pair, told, KEY, z, 0, preference, times=times)

    at = AT_ONCE._replace(points=(jnp.array([t]), jnp.array([t_next])))
    return expectation(partial(jax.value_and_grad(loss), scale), draws(LABEL, 4), at)


@pytest.mark.usefixtures("x64")
def test_without_a_preference_exact_fields_want_the_labelled_side(plain_or_steep_path):
    slopes = jax.jit(partial(_annealed_slope, plain_or_steep_path, _pair(plain_or_steep_path)))
    for t in (0.3, 0.7):
        assert abs(slopes(1.0, 0.0, t, t + 0.1)[1]) < 1e-9
        assert slopes(1.5, 0.0, t, t + 0.1)[1] > 1e-5


@pytest.mark.usefixtures("x64")
def test_of_equal_variances_the_gap_is_known_and_no_scale_changes_it():
    """E_y - E_null = -alpha beta (mean_y - mean_null) / V, whatever the state: so no slope at a preference of 1."""
    variances, t_next = (1.5, 1.5), 0.5
    slopes = jax.jit(partial(_annealed_slope, PATH, _pair(PATH, variances=variances)))
    value, slope = slopes(3.0, 1.0, 0.4, t_next)
    gap = -t_next * (1 - t_next) * (MEANS[1] - MEANS[0]) / (t_next**2 * 1.5 + (1 - t_next) ** 2)
    np.testing.assert_allclose([value, slope], [gap**2, 0], atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_whole_preference_lands_where_the_sides_agree_best():
    """The least w by affine maps: x' = p + q x + w (r + s x), and the gap at t' is a line in x'."""
    slopes = jax.jit(partial(_annealed_slope, PATH, _pair(PATH)))
    for t, t_next in STEPS:
        (null_noise, null_clean), (_, clean) = (_views(PATH, t, row) for row in (0, 1))
        start, way = t_next * null_clean + (1 - t_next) * null_noise, t_next * (clean - null_clean)
        gap = _views(PATH, t_next, 1)[0] - _views(PATH, t_next, 0)[0]
        mean, square = t * MEANS[LABEL], t**2 * VARIANCES[LABEL] + (1 - t) ** 2 + (t * MEANS[LABEL]) ** 2
        second = np.array([[1, mean], [mean, square]])
        off, more = np.array([gap[0], 0]) + gap[1] * start, gap[1] * way
        least = -(off @ second @ more) / (more @ second @ more)
        value, slope = slopes(least, 1.0, t, t_next)
        beside, other = slopes(least + 0.5, 1.0, t, t_next)
        assert abs(slope) < 1e-10 < other
        np.testing.assert_allclose(beside - value, 0.25 * (more @ second @ more), rtol=1e-8)


def test_annealed_guidance_by_hand():
    """A scale that is a function of time, label and gap, at the state of the loss's own key, with its weight."""
    path, z, y, preference = paths.cosine(), jnp.array([0.3, -1.2]), 2, 0.3
    pair = guidance.pair(lambda x, t, y: jnp.sin(x + y) + t * x, 5)
    found = losses.annealed_guidance(
        path, pair, lambda t, y, gap: t + y * gap, jax.random.key(3), z, y, preference, times=_steps(0.25, 0.5),
        weight=lambda t: 2 + t,
    )  # fmt: skip
    at = paths.sample(path, jax.random.split(jax.random.key(3))[1], z, 0.25)

    def views(x, t):
        both = (conversions.from_field(path, jnp.sin(x + each) + t * x, x, t) for each in (5, y))
        return [(np.asarray(each.noise), np.asarray(each.denoiser)) for each in both]

    (null_noise, null_clean), (noise, clean) = views(at.x, jnp.float32(0.25))
    scale = 0.25 + y * np.linalg.norm(noise - null_noise)
    half = np.sqrt(0.5)
    ahead = half * (null_clean + scale * (clean - null_clean)) + half * null_noise
    (null_ahead, _), (noise_ahead, _) = views(jnp.asarray(ahead), jnp.float32(0.5))
    fidelity = np.mean((null_noise + scale * (noise - null_noise) - np.asarray(at.noise)) ** 2)
    agreement = np.mean((noise_ahead - null_ahead) ** 2)
    np.testing.assert_allclose(found, 2.25 * (preference * agreement + (1 - preference) * fidelity), rtol=1e-5)


def test_slopes_are_finite_at_both_ends():
    """From pure noise, where the gap is 0, and to the data."""

    @jax.jit
    @jax.grad
    def slope(factor, t, t_next):
        told = lambda t, y, gap: 1 + factor * gap  # noqa: E731
        return losses.annealed_guidance(PATH, _pair(PATH), told, KEY, jnp.ones(1), 0, 0.5, times=_steps(t, t_next))

    slopes = [slope(2.0, *step) for step in ((0.0, 0.5), (0.5, 1.0), (0.0, 1.0))]
    assert np.all(np.isfinite(slopes))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda **given: losses.self_consistency(times=_steps(0.5, 1.5), **given), r"times\(key\)\[1\] must be in"),
        (lambda **given: losses.self_consistency(num_draws=1, **given), "num_draws must be at least 2"),
        (lambda **given: losses.self_consistency(exponent=2.5, **given), "exponent must be"),
        (
            lambda **given: losses.annealed_guidance(preference=1.5, times=_steps(0.2, 0.3), **given),
            "preference must be in",
        ),
    ],
)
def test_what_no_loss_takes_is_refused(loss, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(path=PATH, pair=_pair(PATH), scale_of=lambda *_: 1.0, key=KEY, z=jnp.ones(1), y=0)


@pytest.mark.parametrize("loss", [losses.self_consistency, partial(losses.annealed_guidance, preference=0.5)])
def test_a_scale_that_is_not_one_number_is_refused(loss):
    told = lambda *_: jnp.ones(2)  # noqa: E731
    with pytest.raises(ValueError, match="scale_of must be one number"):
        loss(PATH, _pair(PATH), told, KEY, jnp.ones(1), 0, times=_steps(0.2, 0.3))
