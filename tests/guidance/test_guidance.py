"""Guidance: (G1) to (G3) on exact fields, exact ends of the scale, and the dropped label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers

TIMES = np.array([0.02, 0.3, 0.7, 0.98])
SCALES = np.array([-1.0, 0.0, 0.4, 1.0, 3.0, 7.5])
POINTS = np.random.default_rng(1).normal(size=(5, 2))
NULL = 3
Y = 1


def _relative(found, expected):
    return np.linalg.norm(np.asarray(found) - np.asarray(expected)) / np.linalg.norm(np.asarray(expected))


def _over(view):
    """(x, t, scale) -> value, at all times, scales and points, with these axes in front."""
    by_point = jax.vmap(view, in_axes=(0, None, None))
    by_scale = jax.vmap(by_point, in_axes=(None, None, 0))
    by_time = jax.jit(jax.vmap(by_scale, in_axes=(None, 0, None)))
    return by_time(jnp.asarray(POINTS), jnp.asarray(TIMES), jnp.asarray(SCALES))


def _both_rules(path, mixture):
    """Classifier-free and classifier guidance of the same exact mixture, on the grid of ``_over``."""
    field, classifier = mixture.vector_field(path), mixture.label_log_probs(path)

    def rules(x, t, scale):
        free = guidance.classifier_free(field, scale, NULL)
        other = guidance.classifier(path, guidance.given(field, NULL), classifier, scale)
        return jnp.stack([free(x, t, jnp.asarray(Y)), other(x, t, jnp.asarray(Y))])

    return np.moveaxis(_over(rules), -2, 0)


def test_classifier_guidance_is_classifier_free_guidance(path, skewed):
    """(G3) on every path, at every time and scale, in single precision."""
    free, other = _both_rules(path, skewed)
    for index in np.ndindex(len(TIMES), len(SCALES)):
        assert _relative(other[index], free[index]) < 1e-4


@pytest.mark.usefixtures("x64")
def test_classifier_guidance_is_classifier_free_guidance_in_double_precision(path, clustered):
    """(G3)."""
    free, other = _both_rules(path, clustered)
    for index in np.ndindex(len(TIMES), len(SCALES)):
        assert _relative(other[index], free[index]) < 1e-10


@pytest.mark.usefixtures("x64")
def test_guidance_commutes_with_conversion(path, clustered):
    """Guide the field and convert, or convert and guide: one result, for score, noise prediction and denoiser."""
    field = clustered.vector_field(path)

    def both(x, t, scale):
        guided = guidance.classifier_free(field, scale, NULL)
        pairs = []
        for view in (conversions.score_of, conversions.noise_of, conversions.denoiser_of):
            converted_first = guidance.classifier_free(view(path, field), scale, NULL)
            pairs.append(jnp.stack([view(path, guided)(x, t, jnp.asarray(Y)), converted_first(x, t, jnp.asarray(Y))]))
        return jnp.stack(pairs)

    found = np.asarray(_over(both))
    np.testing.assert_allclose(found[..., 0, :], found[..., 1, :], rtol=1e-8, atol=1e-9)


def _ends(field, x, t, y, scale):
    """The guided field, and the field itself on the stacked labels, both from one call of each."""
    guided = guidance.classifier_free(field, scale, NULL)(x, t, y)
    return guided, jax.vmap(field, in_axes=(None, None, 0))(x, t, jnp.stack([y, jnp.asarray(NULL)]))


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_ends_of_the_scale_are_exact(transform, scale, clustered):
    """(G1): w = 1 is the labelled value to the last bit, and w = 0 the null one."""
    call = transform(lambda x, t: _ends(clustered.vector_field(paths.linear()), x, t, jnp.asarray(Y), scale))
    for x in jnp.asarray(POINTS, jnp.float32):
        guided, (labelled, null) = call(x, jnp.float32(0.4))
        np.testing.assert_array_equal(guided, labelled if scale == 1 else null)


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_ends_of_a_traced_scale_are_exact(transform, clustered):
    field = clustered.vector_field(paths.cosine())
    call = transform(lambda x, scale: _ends(field, x, jnp.float32(0.4), jnp.asarray(Y), scale))
    for x in jnp.asarray(POINTS, jnp.float32):
        guided, (labelled, _) = call(x, jnp.float32(1.0))
        np.testing.assert_array_equal(guided, labelled)
        guided, (_, null) = call(x, jnp.float32(0.0))
        np.testing.assert_array_equal(guided, null)


def _wild_field(x, t, y):
    """A field without a density, whose labels differ by many orders of magnitude."""
    return jnp.where(y == NULL, 1e8, 1.0) * jnp.sin(3 * x + t)


def test_a_field_called_alone_agrees_to_the_last_bit():
    """An elementwise field is the same under vmap as alone, so w = 1 is the plain call exactly."""
    x, t = jnp.asarray(POINTS[0], jnp.float32), jnp.float32(0.4)
    for scale, y in ((1.0, Y), (0.0, NULL)):
        found = guidance.classifier_free(_wild_field, scale, NULL)(x, t, jnp.asarray(Y))
        np.testing.assert_array_equal(found, _wild_field(x, t, jnp.asarray(y)))


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_interpolation_is_exact_at_its_ends(transform):
    """The plain form null + w (labelled - null) loses the labelled value here."""
    null, labelled = jnp.array([1e8, -3.0, 1e-8]), jnp.array([1.0, 1e7, 0.1])
    interpolate = transform(guidance.interpolate)
    np.testing.assert_array_equal(interpolate(null, labelled, 0.0), null)
    np.testing.assert_array_equal(interpolate(null, labelled, 1.0), labelled)
    assert not np.array_equal(null + 1.0 * (labelled - null), labelled)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [-2.0, 0.25, 0.5, 0.75, 1.5, 8.0])
def test_interpolation_formula(scale):
    null, labelled = jnp.array([1.0, -3.0]), jnp.array([0.5, 7.0])
    expected = (1 - scale) * null + scale * labelled
    np.testing.assert_allclose(guidance.interpolate(null, labelled, scale), expected, rtol=1e-14)


def test_interpolation_has_no_jump_and_the_right_slope_where_it_changes_end():
    null, labelled = jnp.float32(-3.0), jnp.float32(7.0)
    slopes = [jax.grad(lambda scale: guidance.interpolate(null, labelled, scale))(scale) for scale in (0.4, 0.5, 0.6)]
    np.testing.assert_allclose(slopes, 10.0, rtol=1e-6)
    np.testing.assert_allclose(guidance.interpolate(null, labelled, np.nextafter(np.float32(0.5), 1)), 2.0, rtol=1e-6)


def test_a_scale_may_be_a_number_a_function_or_mapped(clustered):
    field, t = clustered.vector_field(paths.linear()), jnp.float32(0.25)
    x, y = jnp.asarray(POINTS[0], jnp.float32), jnp.asarray(Y)

    def guided(scale):
        return guidance.classifier_free(field, scale, NULL)(x, t, y)

    np.testing.assert_allclose(guided(lambda t: 2 + 4 * t), guided(3.0), rtol=1e-6)
    np.testing.assert_allclose(guided(3), guided(3.0), rtol=1e-6)
    swept = jax.vmap(guided)(jnp.array([0.5, 3.0, 6.0]))
    np.testing.assert_allclose(swept, [guided(0.5), guided(3.0), guided(6.0)], rtol=1e-5)


def test_an_interval_is_a_function_of_time(clustered):
    """A scale of 1 outside an interval gives the labelled field there."""
    field = clustered.vector_field(paths.linear())
    guided = guidance.classifier_free(field, lambda t: jnp.where((t > 0.2) & (t < 0.8), 4.0, 1.0), NULL)
    x, y = jnp.asarray(POINTS[0], jnp.float32), jnp.asarray(Y)
    np.testing.assert_allclose(guided(x, jnp.float32(0.1), y), field(x, jnp.float32(0.1), y), rtol=1e-5)
    expected = guidance.classifier_free(field, 4.0, NULL)(x, jnp.float32(0.5), y)
    np.testing.assert_allclose(guided(x, jnp.float32(0.5), y), expected, rtol=1e-6)


def test_classifier_takes_a_scale_of_time(clustered):
    path = paths.linear()
    null, probs = guidance.given(clustered.vector_field(path), NULL), clustered.label_log_probs(path)
    x, t, y = jnp.asarray(POINTS[0], jnp.float32), jnp.float32(0.25), jnp.asarray(Y)
    found = guidance.classifier(path, null, probs, lambda t: 12 * t)(x, t, y)
    np.testing.assert_allclose(found, guidance.classifier(path, null, probs, 3.0)(x, t, y), rtol=1e-6)


def test_the_field_is_called_once():
    calls = []

    def field(x, t, y):
        calls.append(y)
        return x * y

    found = guidance.classifier_free(field, 2.0, NULL)(jnp.ones(2), jnp.float32(0.5), jnp.asarray(Y))
    assert len(calls) == 1
    np.testing.assert_allclose(found, [-1.0, -1.0])


def test_guidance_acts_at_every_stage_of_heun(clustered):
    """One Heun step of the guided field, written out: an unguided second stage would differ."""
    field, x, t, t_next = clustered.vector_field(paths.cosine()), jnp.asarray(POINTS[0], jnp.float32), 0.3, 0.5

    def guided(x, t):
        null, labelled = (field(x, jnp.float32(t), jnp.asarray(y)) for y in (NULL, Y))
        return null + 3.0 * (labelled - null)

    first = guided(x, t)
    expected = x + (t_next - t) / 2 * (first + guided(x + (t_next - t) * first, t_next))
    solver = solvers.heun(guidance.given(guidance.classifier_free(field, 3.0, NULL), Y))
    found = solver.step(jax.random.key(0), solver.init(x), jnp.float32(t), jnp.float32(t_next)).x
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("start", [1e-2, 1e-4])
def test_classifier_at_time_zero_is_near_its_limit(start, skewed):
    """(G3)'s left side is held at ``start``, and so O(start) from u_y - u_null = alpha' (E[z|y] - E[z]) at t = 0."""
    path, field = paths.linear(), skewed.vector_field(paths.linear())
    null, x = guidance.given(field, NULL), jnp.asarray(POINTS[0])
    guided = guidance.classifier(path, null, skewed.label_log_probs(path), 1.0, start=start)
    found = jax.jit(lambda x, t: guided(x, t, jnp.asarray(Y)) - null(x, t))(x, 0.0)
    weights, means = np.asarray(skewed.weights[:, 0]), np.asarray(skewed.means[:, 0])
    assert _relative(found, means[Y] - weights @ means / weights.sum()) < 5 * start


def test_classifier_term_is_bounded_by_start(path):
    """A classifier whose gradient is 1 at all times gets b(start), not b(0), at t = 0."""
    guided = guidance.classifier(path, lambda x, t: 0 * x, lambda x, t: jnp.stack([x[0], x[1]]), 1.0, start=0.1)
    c = paths.coefficients(path, 0.1)
    expected = float(c.beta * c.wronskian / c.alpha)
    for t in (0.0, 0.05, 0.1):
        np.testing.assert_allclose(guided(jnp.zeros(2), jnp.float32(t), jnp.asarray(1)), [0.0, expected], rtol=1e-5)


def test_classifier_is_finite_on_the_closed_interval(path, skewed):
    null, probs = guidance.given(skewed.vector_field(path), NULL), skewed.label_log_probs(path)
    guided = guidance.classifier(path, null, probs, 4.0)
    at = jax.jit(jax.vmap(lambda t: guided(jnp.asarray(POINTS[0], jnp.float32), t, jnp.asarray(Y))))
    found = at(jnp.linspace(0, 1, 11))
    assert np.all(np.isfinite(found))


def test_a_classifier_without_information_changes_nothing(path):
    """Where p(y|x) does not depend on x, (G2) is the null field for every scale."""
    null = mixtures.ring().vector_field(path)
    guided = guidance.classifier(path, guidance.given(null, 8), lambda x, t: jnp.log(jnp.array([0.3, 0.7])), 5.0)
    x, t = jnp.asarray(POINTS[0], jnp.float32), jnp.float32(0.3)
    np.testing.assert_array_equal(guided(x, t, jnp.asarray(0)), null(x, t, jnp.asarray(8)))


@pytest.mark.parametrize("start", [0.0, -0.1, 1.5])
def test_a_start_outside_the_interval_is_refused(start):
    with pytest.raises(ValueError, match="start"):
        guidance.classifier(paths.linear(), lambda x, t: x, lambda x, t: x, 1.0, start=start)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(ValueError, match="scale must be finite"):
        guidance.classifier_free(_wild_field, scale, NULL)
    with pytest.raises(ValueError, match="scale must be finite"):
        guidance.classifier(paths.linear(), lambda x, t: x, lambda x, t: x, scale)


def test_given_fixes_the_label(skewed):
    field, x, t = skewed.vector_field(paths.linear()), jnp.asarray(POINTS[0], jnp.float32), jnp.float32(0.3)
    values = [guidance.given(field, y)(x, t) for y in range(4)]
    for y, value in enumerate(values):
        np.testing.assert_array_equal(value, field(x, t, jnp.asarray(y)))
    assert len({tuple(np.asarray(value).tolist()) for value in values}) == 4


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_labels_are_dropped_at_their_rate_one_coin_each(rate):
    """The frequency within 4 standard errors, and neighbours independent: draws are not shared."""
    num_examples = 20_000
    keys = jax.random.split(jax.random.key(0), num_examples)
    labels = jax.vmap(lambda key: guidance.drop_condition(key, Y, rate, NULL))(keys)
    dropped = np.asarray(labels == NULL)
    assert set(np.unique(labels)) == {Y, NULL}
    assert abs(dropped.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / num_examples)
    assert abs(np.corrcoef(dropped[:-1], dropped[1:])[0, 1]) < 4 / np.sqrt(num_examples)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, [0, 1, 2]), (1.0, [NULL, NULL, NULL])])
def test_rates_of_zero_and_one_are_exact(rate, expected):
    keys = jax.random.split(jax.random.key(0), (1000, 3))
    labels = jax.vmap(jax.vmap(lambda key, y: guidance.drop_condition(key, y, rate, NULL)), (0, None))(
        keys, jnp.arange(3)
    )
    np.testing.assert_array_equal(labels, np.broadcast_to(expected, (1000, 3)))


@pytest.mark.parametrize("rate", [-0.1, 1.1, np.nan])
def test_a_rate_outside_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        guidance.drop_condition(jax.random.key(0), Y, rate, NULL)


@pytest.mark.parametrize("traced", [False, True])
def test_classifier_guidance_at_the_null_label_is_the_null_field(traced, clustered):
    """The classifier has no row K: its term is none, and not that of label K - 1."""
    path, null = paths.linear(), clustered.num_classes
    null_field = guidance.given(clustered.vector_field(path), null)
    guided = guidance.classifier(path, null_field, clustered.label_log_probs(path), 3.0)
    x, t = jnp.array([0.3, -0.4]), jnp.float32(0.5)
    found = (jax.jit(guided) if traced else guided)(x, t, jnp.int32(null))
    np.testing.assert_allclose(found, null_field(x, t), rtol=1e-6)
    assert not np.allclose(guided(x, t, jnp.int32(null - 1)), null_field(x, t), atol=1e-2)


@pytest.mark.parametrize("start", [0.0, 1.0, -0.1, 2.0])
def test_a_start_outside_its_interval_is_refused(start):
    with pytest.raises(ValueError, match="start must be above 0 and under 1"):
        guidance.classifier(paths.linear(), lambda x, t: x, lambda x, t: x, 1.0, start=start)
