"""The rules of guidance: each against its paper's formula in its own space, its neutral setting, w = 1 bitwise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, mixtures, paths, solvers
from cfgjax.guidance.projections import denoiser_slope
from tests.support import tables

NULL, Y = tables.NULL, 1
TIMES = np.array([0.0, 0.02, 0.3, 0.7, 0.98, 1.0])
INSIDE = TIMES[1:-1]
POINTS = np.random.default_rng(2).normal(size=(4, 2))


def _stack(path, field, scale):
    damped = guidance.tangential_damping(path, guidance.pair(field, NULL))
    return guidance.rescaled(guidance.projected(path, guidance.cfg_zero_star(damped)), scale)


RULES = {name: row.build for name, row in tables.RULES.items()} | {"stack": _stack}
NEUTRAL = {name: (row.neutral, row.tolerance) for name, row in tables.RULES.items() if row.neutral is not None}


@pytest.fixture(params=list(RULES))
def rule(request):
    """Every rule that has a scale, and a stack of them."""
    return RULES[request.param]


def _grid(view, times=INSIDE):
    """A view (x, t) -> value, at all times and points, [times, points, ...]."""
    at = jax.jit(jax.vmap(jax.vmap(view, in_axes=(0, None)), in_axes=(None, 0)))
    return np.asarray(at(jnp.asarray(POINTS), jnp.asarray(times)))


def _plain(x, t, y):
    """An elementwise field: bitwise the same under vmap as alone; its labels differ in size and sign."""
    return jnp.where(y == NULL, 1e3, 1.0) * (x + t) * (y - 1.5)


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_scale_one_is_the_labelled_field_to_the_bit(rule, transform, path):
    def guided(x, t, scale):
        return rule(path, _plain, scale)(x, t, jnp.asarray(Y))

    call, x = transform(guided), jnp.asarray(POINTS[0], jnp.float32)
    for t in jnp.asarray([0.0, 0.3, 1.0], jnp.float32):
        np.testing.assert_array_equal(call(x, t, 1.0), jnp.float32(-0.5) * (x + t))


def test_every_rule_is_finite_and_moves_with_the_scale_on_the_closed_interval(rule, plain_or_steep_path, clustered):
    path, field = plain_or_steep_path, clustered.vector_field(plain_or_steep_path)
    found = [_grid(lambda x, t, w=w: rule(path, field, w)(x, t, jnp.asarray(Y)), TIMES) for w in (0.0, 4.0)]
    assert np.all(np.isfinite(found))
    assert np.all(np.abs(found[0] - found[1])[1:-1].max(axis=(1, 2)) > 1e-3)


@pytest.mark.parametrize("name", list(RULES))
def test_a_sample_does_not_depend_on_its_batch(name, clustered):
    """The same example beside others gives the same value bitwise: nothing is normalised over a batch."""
    field = clustered.vector_field(paths.linear())
    guided = RULES[name](paths.linear(), field, 4.0)
    batch = jax.jit(jax.vmap(guided, in_axes=(0, None, None)))
    first = batch(jnp.asarray(POINTS, jnp.float32), jnp.float32(0.4), Y)
    others = np.array(POINTS, np.float32) * 100
    others[0] = POINTS[0]
    np.testing.assert_array_equal(batch(jnp.asarray(others), jnp.float32(0.4), Y)[0], first[0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("neutral", "tolerance"),
    [
        *NEUTRAL.values(),
        (
            lambda path, field, scale: guidance.static_threshold(
                path, RULES["classifier_free"](path, field, scale), np.inf
            ),
            0,
        ),
        (
            lambda path, field, scale: guidance.static_threshold(
                path, RULES["classifier_free"](path, field, scale), 1e3
            ),
            0,
        ),
        (
            lambda path, field, scale: guidance.dynamic_threshold(
                path, RULES["classifier_free"](path, field, scale), 100.0, 1e3
            ),
            0,
        ),
        (lambda path, field, scale: guidance.zero_init(RULES["classifier_free"](path, field, scale), 0.0), 0),
        (
            lambda path, field, scale: guidance.classifier_free(field, guidance.interval(scale, 0.0, 1.0), NULL),
            0,
        ),
    ],
    ids=[*NEUTRAL, "infinite max_norm", "wide max_norm", "dynamic", "zero_init", "interval"],
)
def test_neutral_settings_are_classifier_free_guidance(neutral, tolerance, clustered, plain_or_steep_path):
    path, field = plain_or_steep_path, clustered.vector_field(plain_or_steep_path)

    def both(x, t):
        plain = RULES["classifier_free"](path, field, 3.0)
        return jnp.stack([neutral(path, field, 3.0)(x, t, jnp.asarray(Y)), plain(x, t, jnp.asarray(Y))])

    found = _grid(both)
    np.testing.assert_allclose(found[:, :, 0], found[:, :, 1], rtol=tolerance, atol=tolerance)


def _views(path, field, view):
    """Null, labelled and their view in another space, as plain arrays on the grid: [times, points, D] each."""
    convert = {"field": lambda path, field: field}.get(view) or getattr(conversions, f"{view}_of")
    converted = convert(path, field)
    return [_grid(lambda x, t, y=y: converted(x, t, jnp.asarray(y))) for y in (NULL, Y)]


def _guided_view(path, guided, view):
    convert = {"field": lambda path, field: field}.get(view) or getattr(conversions, f"{view}_of")
    return _grid(lambda x, t: convert(path, guided)(x, t, jnp.asarray(Y)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("view", ["score", "noise"])
def test_tangential_damping_is_its_singular_value_decomposition(view, plain_or_steep_path, clustered):
    """In score space, by NumPy's SVD; the common factor of noise and score changes nothing."""
    path, field, scale = plain_or_steep_path, clustered.vector_field(plain_or_steep_path), 3.0
    null, labelled = _views(path, field, view)
    found = _guided_view(path, RULES["tangential_damping"](path, field, scale), view)
    for index in np.ndindex(null.shape[:2]):
        first = np.linalg.svd(np.stack([null[index], labelled[index]]), full_matrices=False)[2][0]
        damped = first * (first @ null[index])
        np.testing.assert_allclose(found[index], damped + scale * (labelled[index] - damped), rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_tangential_damping_is_regular_at_the_start(exact_path, clustered):
    """The limit t -> 0 is what comes out at t = 0, where the scores of null and label are one."""
    guided = RULES["tangential_damping"](exact_path, clustered.vector_field(exact_path), 3.0)
    at = _grid(lambda x, t: guided(x, t, jnp.asarray(Y)), np.array([0.0, 1e-7, 1e-5]))
    np.testing.assert_allclose(at[0], at[1], atol=1e-5)
    np.testing.assert_allclose(at[1], at[2], atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_tangential_damping_has_a_slope_in_time_at_the_start(clustered):
    path, x = paths.linear(), jnp.array([0.4, -0.7])
    guided = RULES["tangential_damping"](path, clustered.vector_field(path), 3.0)
    at = jax.jit(lambda t: jnp.sum(guided(x, t, jnp.asarray(Y))))
    step = 1e-6
    found = jax.grad(at)(0.0)
    np.testing.assert_allclose(found, (-3 * at(0.0) + 4 * at(step) - at(2 * step)) / (2 * step), rtol=1e-3)


def test_tangential_damping_keeps_its_precision_near_the_start(clustered):
    """In single precision at t = 1e-3 the plain form (E' - E) / alpha is off by a percent; this one is not."""
    path = paths.linear()
    with jax.enable_x64(True):
        wide = RULES["tangential_damping"](path, clustered.vector_field(path), 3.0)
        exact = _grid(lambda x, t: wide(x, t, jnp.asarray(Y)), np.array([1e-3]))
    narrow = RULES["tangential_damping"](path, clustered.vector_field(path), 3.0)
    found = _grid(lambda x, t: narrow(x, t, jnp.asarray(Y)), np.array([1e-3], np.float32))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("eta", "max_norm"), [(0.0, np.inf), (0.3, 0.4), (1.0, 0.2)])
def test_projected_guidance_acts_on_the_denoiser(eta, max_norm, plain_or_steep_path, clustered):
    """Algorithm 1 without momentum, written out for denoisers."""
    path, field, scale = plain_or_steep_path, clustered.vector_field(plain_or_steep_path), 3.0
    null, labelled = _views(path, field, "denoiser")
    found = _guided_view(
        path, tables.pairwise(guidance.projected, eta=eta, max_norm=max_norm)(path, field, scale), "denoiser"
    )
    change = labelled - null
    size = np.linalg.norm(change, axis=-1, keepdims=True)
    change = change * np.minimum(1, max_norm / size)
    along = labelled / np.linalg.norm(labelled, axis=-1, keepdims=True)
    inner = np.sum(change * along, axis=-1, keepdims=True)
    expected = labelled + (scale - 1) * (change - (1 - eta) * inner * along)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)
    assert np.any(size > 0.4)


@pytest.mark.usefixtures("x64")
def test_cfg_zero_star_fits_the_null_field_to_the_labelled_one(plain_or_steep_path, clustered):
    """s* minimises |u_y - s u_null|, so what is left is orthogonal to u_null; the field is (1-w) s u_null + w u_y."""
    path, field, scale = plain_or_steep_path, clustered.vector_field(plain_or_steep_path), 3.0
    null, labelled = _views(path, field, "field")
    found = _guided_view(path, RULES["cfg_zero_star"](path, field, scale), "field")
    factor = np.sum(null * labelled, axis=-1, keepdims=True) / np.sum(null**2, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, (1 - scale) * factor * null + scale * labelled, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum((labelled - factor * null) * null, axis=-1), 0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("damping", [8.0, 0.7])
def test_magnitude_aware_guidance_is_its_formula_on_the_field(damping, plain_or_steep_path, clustered):
    """u_null + (1 + (w - 1) e^(-a r)) d, r = |d| / |u_null|, written out."""
    path, field, scale = plain_or_steep_path, clustered.vector_field(plain_or_steep_path), 3.0
    null, labelled = _views(path, field, "field")
    rule = tables.pairwise(lambda path, pair: guidance.magnitude_aware(pair, damping))
    found = _guided_view(path, rule(path, field, scale), "field")
    change = labelled - null
    ratio = np.linalg.norm(change, axis=-1, keepdims=True) / np.linalg.norm(null, axis=-1, keepdims=True)
    expected = null + (1 + (scale - 1) * np.exp(-damping * ratio)) * change
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert np.ptp(ratio) > 0.1


def test_magnitude_aware_guidance_sees_ratios_alone():
    """Both sides times a number change nothing but the size; where u_null = 0 the labelled field comes out."""

    def guided(null, labelled, damping=2.0):
        sides = guidance.pair_of_sides(lambda x, t, y: (null * x, labelled * x))
        return guidance.extrapolate(guidance.magnitude_aware(sides, damping), 3.0)(jnp.ones(2), jnp.float32(0.3), 1)

    np.testing.assert_allclose(guided(4e3, 6e3), 1e3 * np.asarray(guided(4.0, 6.0)), rtol=1e-6)
    np.testing.assert_allclose(guided(4.0, 6.0), np.full(2, 4 + (1 + 2 * np.exp(-1.0)) * 2), rtol=1e-6)
    np.testing.assert_array_equal(guided(0.0, 6.0), np.full(2, 6.0))
    np.testing.assert_array_equal(guided(0.0, 0.0), np.zeros(2))
    slope = jax.grad(lambda null, labelled: jnp.sum(guided(null, labelled)), argnums=(0, 1))
    assert np.all(np.isfinite([slope(0.0, 6.0), slope(0.0, 0.0)]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaling_restores_the_standard_deviation(phi, clustered):
    """The paper's formula on the field; with phi 1 the deviation over the example is the labelled one's."""
    field, scale = clustered.vector_field(paths.cosine()), 3.0
    null, labelled = _views(paths.cosine(), field, "field")
    guided = guidance.rescaled(guidance.pair(field, NULL), scale, phi)
    found = _guided_view(paths.cosine(), guided, "field")
    plain = null + scale * (labelled - null)
    ratio = labelled.std(axis=-1, keepdims=True) / plain.std(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, phi * ratio * plain + (1 - phi) * plain, rtol=1e-9, atol=1e-9)
    if phi == 1:
        np.testing.assert_allclose(found.std(axis=-1), labelled.std(axis=-1), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_thresholds_act_on_the_denoiser(plain_or_steep_path, clustered):
    path, field = plain_or_steep_path, clustered.vector_field(plain_or_steep_path)
    guided = guidance.classifier_free(field, 4.0, NULL)
    denoiser = _guided_view(path, guided, "denoiser")
    static = _guided_view(path, guidance.static_threshold(path, guided, 0.8), "denoiser")
    np.testing.assert_allclose(static, np.clip(denoiser, -0.8, 0.8), rtol=1e-7, atol=1e-9)
    dynamic = _guided_view(path, guidance.dynamic_threshold(path, guided, 60.0, 0.8), "denoiser")
    limit = np.maximum(np.percentile(np.abs(denoiser), 60.0, axis=-1, keepdims=True), 0.8)
    np.testing.assert_allclose(dynamic, 0.8 * np.clip(denoiser, -limit, limit) / limit, rtol=1e-7, atol=1e-9)
    assert np.any(limit > 0.8)
    assert np.any(np.abs(denoiser) > limit)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0)])
def test_the_dynamic_threshold_of_one_number_is_the_static_one(shape):
    """Its percentile is the number itself; of none there is nothing to clip."""
    path, x, t = paths.linear(), jnp.full(shape, 2.0), jnp.asarray(0.5)
    dynamic, static = (
        guidance.dynamic_threshold(path, lambda x, t: 3 * x),
        guidance.static_threshold(path, lambda x, t: 3 * x),
    )
    np.testing.assert_allclose(dynamic(x, t), static(x, t), rtol=1e-6)
    np.testing.assert_allclose(static(x, t), np.full(shape, -2.0), rtol=1e-6)


def test_a_threshold_bounds_the_samples_and_not_the_scale(clustered):
    """The end of the ODE is the last denoiser: within the bound for any w, where plain guidance leaves it."""
    path, field = paths.linear(), clustered.vector_field(paths.linear())

    def end(scale, max_norm):
        guided = guidance.static_threshold(path, guidance.classifier_free(field, scale, NULL), max_norm)
        solver = solvers.euler(guidance.given(guided, Y))
        return solvers.integrate(solver, jax.random.key(0), jnp.asarray(POINTS[0], jnp.float32), jnp.linspace(0, 1, 33))

    ends = jax.jit(jax.vmap(jax.vmap(end, in_axes=(0, None)), in_axes=(None, 0)))
    found = np.abs(ends(jnp.array([4.0, 40.0]), jnp.array([1.0, 1e6])))
    assert np.all(found[0] < 1 + 1e-5)
    assert np.all(found[1].max(axis=-1) > 1.5)


@pytest.mark.usefixtures("x64")
def test_a_stack_acts_in_the_order_of_its_calls(clustered):
    """Damping before zero-star, and zero-star before damping, are two rules, each as written out."""
    path, field = paths.linear(), clustered.vector_field(paths.linear())

    def stack(first, second):
        return guidance.extrapolate(second(first(guidance.pair(field, NULL))), 3.0)

    def damp(pair):
        return guidance.tangential_damping(path, pair)

    one = _guided_view(path, stack(damp, guidance.cfg_zero_star), "field")
    other = _guided_view(path, stack(guidance.cfg_zero_star, damp), "field")
    labelled = _views(path, field, "field")[1]
    damped = _grid(lambda x, t: damp(guidance.pair(field, NULL)).both(x, t, jnp.asarray(Y))[0])
    factor = np.sum(damped * labelled, axis=-1, keepdims=True) / np.sum(damped**2, axis=-1, keepdims=True)
    np.testing.assert_allclose(one, -2 * factor * damped + 3 * labelled, rtol=1e-9)
    assert np.max(np.abs(one - other)) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "number",
    [
        lambda path, pair, value: guidance.extrapolate(pair, value),
        lambda path, pair, value: guidance.extrapolate(pair, lambda t, y: value * t + y),
        lambda path, pair, value: guidance.rescaled(pair, 3.0, value / 3),
        lambda path, pair, value: guidance.extrapolate(guidance.projected(path, pair, value / 3, 0.4), 3.0),
        lambda path, pair, value: guidance.extrapolate(guidance.projected(path, pair, 0.0, value / 4), 3.0),
        lambda path, pair, value: guidance.static_threshold(path, guidance.extrapolate(pair, 3.0), value / 2),
        lambda path, pair, value: guidance.dynamic_threshold(path, guidance.extrapolate(pair, 3.0), 60.0, value / 2),
        lambda path, pair, value: guidance.extrapolate(guidance.tangential_damping(path, pair), value),
        lambda path, pair, value: guidance.extrapolate(guidance.magnitude_aware(pair, value / 3), 3.0),
        lambda path, pair, value: guidance.extrapolate(
            guidance.frequency_decoupled(pair, guidance.filters.mean_low, value / 3), 3.0
        ),
        lambda path, pair, value: guidance.weakened(pair, tables.weak(pair.labelled), 3.0, value),
    ],
    ids=[
        *("scale", "schedule", "phi", "eta", "length", "max_norm", "dynamic max_norm", "tangential_damping"),
        *("damping", "low_share", "weak_scale"),
    ],
)
def test_every_number_is_differentiable(number, clustered):
    """Against a central difference; and finite where null and labelled field agree, at the null label."""
    path = paths.linear()
    pair = guidance.pair(clustered.vector_field(path), NULL)

    def total(value, y):
        first, second = (number(path, pair, value)(jnp.asarray(x), jnp.asarray(0.6), y) for x in POINTS[:2])
        return jnp.sum(first) + 0.3 * jnp.sum(second)

    value, step = 1.3, 1e-5
    slope = jax.grad(total)(value, jnp.asarray(Y))
    expected = (total(value + step, jnp.asarray(Y)) - total(value - step, jnp.asarray(Y))) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    assert abs(slope) > 1e-3
    assert np.isfinite(jax.grad(total)(value, jnp.asarray(NULL)))


@pytest.mark.usefixtures("x64")
def test_the_slope_of_the_denoiser_and_its_derivative():
    """beta / W: 1 - t, or (1 - t^2) / (2 t) on the path of squares; 1 at t = 0 there, and no NaN beside it."""
    slope = jax.value_and_grad(denoiser_slope, argnums=1)
    np.testing.assert_allclose(slope(paths.linear(), 0.4), (0.6, -1.0), rtol=1e-12)
    np.testing.assert_allclose(slope(paths.polynomial(2), 0.4), (1.05, -3.625), rtol=1e-12)
    np.testing.assert_array_equal(slope(paths.polynomial(2), 0.0), (1.0, 0.0))


@pytest.mark.usefixtures("x64")
def test_weights_over_labels(clustered):
    """Every affine combination, null included; one-hot weights give a label's field; negative guidance is a pair."""
    field, x, t = clustered.vector_field(paths.linear()), jnp.asarray(POINTS[0]), jnp.asarray(0.4)
    values = np.stack([field(x, t, jnp.asarray(y)) for y in range(NULL + 1)])
    labels, weights = jnp.array([1, 0, NULL]), jnp.array([2.5, -1.0, -0.5])
    found = guidance.compose(field, labels, weights)(x, t)
    np.testing.assert_allclose(found, np.asarray(weights) @ values[np.asarray(labels)], rtol=1e-12)
    free = guidance.classifier_free(field, 2.5, NULL)(x, t, jnp.asarray(Y))
    np.testing.assert_allclose(guidance.compose(field, [Y, NULL], jnp.array([2.5, -1.5]))(x, t), free, rtol=1e-12)
    schedule = guidance.compose(field, jnp.array([Y, NULL]), lambda t: jnp.stack([1 + t, -t]))(x, t)
    np.testing.assert_allclose(schedule, 1.4 * values[Y] - 0.4 * values[NULL], rtol=1e-12)
    away = guidance.classifier_free(field, 2.0, 0)(x, t, jnp.asarray(Y))
    np.testing.assert_allclose(away, 2 * values[Y] - values[0], rtol=1e-12)
    mixed = guidance.interpolate_conditions(field, 0, 2, 0.25)(x, t)
    np.testing.assert_allclose(mixed, 0.75 * values[0] + 0.25 * values[2], rtol=1e-12)


def test_one_hot_weights_are_that_label_to_the_bit():
    found = guidance.compose(_plain, jnp.array([NULL, Y]), jnp.array([0.0, 1.0]))(jnp.ones(2), jnp.float32(0.3))
    np.testing.assert_array_equal(found, _plain(jnp.ones(2), jnp.float32(0.3), Y))


def test_weights_over_labels_call_the_field_once():
    calls = []

    def field(x, t, y):
        calls.append(y)
        return x * y

    guidance.compose(field, jnp.array([1, 2, NULL]), jnp.array([1.0, 1.0, -1.0]))(jnp.ones(2), jnp.float32(0.5))
    assert len(calls) == 1


@pytest.mark.usefixtures("x64")
def test_autoguidance_leads_away_from_the_worse_field(clustered):
    field, x, t = clustered.vector_field(paths.linear()), jnp.asarray(POINTS[0]), jnp.asarray(0.4)
    found = guidance.autoguidance(field, tables.weak(field), 2.0)(x, t, jnp.asarray(Y))
    good, worse = field(x, t, jnp.asarray(Y)), tables.weak(field)(x, t, jnp.asarray(Y))
    np.testing.assert_allclose(found, 2 * good - worse, rtol=1e-12)
    np.testing.assert_array_equal(guidance.autoguidance(field, field, 5.0)(x, t, jnp.asarray(Y)), good)


@pytest.mark.usefixtures("x64")
def test_rules_act_on_classifier_guidance_too(clustered):
    """The classifier's pair is the exact pair (G3), so a rule on it is the rule on classifier-free guidance."""
    path, field = paths.linear(), clustered.vector_field(paths.linear())
    null = guidance.given(field, NULL)
    by_classifier = guidance.classifier_pair(path, null, clustered.label_log_probs(path))
    one, other = (
        _guided_view(path, guidance.extrapolate(guidance.projected(path, pair, 0.2, 0.5), 3.0), "field")
        for pair in (by_classifier, guidance.pair(field, NULL))
    )
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_momentum_accumulates_the_differences_of_denoisers(clustered):
    """Three Euler steps of adaptive projected guidance by hand for denoisers: m' = d + b m, shortened, projected."""
    path, field = paths.linear(), clustered.vector_field(paths.linear())
    denoiser = conversions.denoiser_of(path, field)
    scale, momentum, eta, max_norm, ts = 3.0, -0.6, 0.25, 0.7, np.array([0.1, 0.4, 0.6, 0.9])
    stateful = guidance.adaptive_projected(path, guidance.pair(field, NULL), scale, Y, momentum, eta, max_norm)
    found = solvers.integrate(
        solvers.with_field_state(solvers.euler, stateful), jax.random.key(0), jnp.asarray(POINTS[0]), jnp.asarray(ts)
    )
    x, memory = POINTS[0], np.zeros(2)
    for t, t_next in itertools.pairwise(ts):
        null, labelled = (np.asarray(denoiser(jnp.asarray(x), jnp.asarray(t), jnp.asarray(y))) for y in (NULL, Y))
        memory = labelled - null + momentum * memory
        change = memory * min(1, max_norm / np.linalg.norm(memory))
        change = change - (1 - eta) * (change @ labelled) / (labelled @ labelled) * labelled
        guided = conversions.from_denoiser(path, labelled + (scale - 1) * change, x, t).field
        x = x + (t_next - t) * np.asarray(guided)
    np.testing.assert_allclose(found, x, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("make_solver", [solvers.euler, solvers.heun])
def test_without_momentum_the_memory_changes_nothing(make_solver, clustered):
    path, pair = paths.cosine(), guidance.pair(clustered.vector_field(paths.cosine()), NULL)
    x, ts, key = jnp.asarray(POINTS[0]), jnp.linspace(0, 1, 9), jax.random.key(0)
    stateful = guidance.adaptive_projected(path, pair, 3.0, Y, momentum=0.0, eta=0.2, max_norm=0.5)
    found = solvers.integrate(solvers.with_field_state(make_solver, stateful), key, x, ts)
    plain = guidance.given(guidance.extrapolate(guidance.projected(path, pair, 0.2, 0.5), 3.0), Y)
    np.testing.assert_allclose(found, solvers.integrate(make_solver(plain), key, x, ts), rtol=1e-9)


def test_momentum_at_scale_one_is_the_labelled_field():
    stateful = guidance.adaptive_projected(paths.linear(), guidance.pair(_plain, NULL), 1.0, Y)
    x, ts, key = jnp.asarray(POINTS[0], jnp.float32), jnp.linspace(0, 1, 9), jax.random.key(0)
    found = solvers.integrate(solvers.with_field_state(solvers.heun, stateful), key, x, ts)
    plain = solvers.heun(lambda x, t: _plain(x, t, jnp.asarray(Y)))
    np.testing.assert_array_equal(found, solvers.integrate(plain, key, x, ts))


def test_the_memory_costs_no_evaluation():
    calls = []

    def field(x, t, y):
        calls.append(1)
        return x * y

    pair = guidance.pair(field, NULL)
    stateful = guidance.adaptive_projected(paths.linear(), pair, 3.0, Y)
    solver = solvers.with_field_state(solvers.heun, stateful)
    carry = solver.init(jnp.ones(2))
    calls.clear()
    solver.step(jax.random.key(0), carry, jnp.float32(0.25), jnp.float32(0.5))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pair: guidance.rescaled(pair, 2.0, 1.5), "phi must be in"),
        (lambda pair: guidance.rescaled(pair, np.nan), "scale must be finite"),
        (lambda pair: guidance.projected(paths.linear(), pair, max_norm=0.0), "max_norm must be"),
        (lambda pair: guidance.adaptive_projected(paths.linear(), pair, 2.0, Y, momentum=1.0), "momentum must be"),
        (lambda pair: guidance.adaptive_projected(paths.linear(), pair, np.inf, Y), "scale must be finite"),
        (lambda pair: guidance.static_threshold(paths.linear(), _plain, -1.0), "bound must be"),
        (lambda pair: guidance.dynamic_threshold(paths.linear(), _plain, 101.0), "percentile must be in"),
        (lambda pair: guidance.dynamic_threshold(paths.linear(), _plain, 99.0, np.inf), "bound must be"),
        (lambda pair: guidance.zero_init(_plain, 1.0), "start must be at least 0 and under 1"),
        (lambda pair: guidance.compose(_plain, [0, 1], jnp.array([1.0, 1.0])), "weights must sum to 1, got"),
        (lambda pair: guidance.compose(_plain, [0, 1], jnp.ones(1)), r"weights must be \[n\] for n conditions"),
        (lambda pair: guidance.interpolate_conditions(_plain, 0, 1, 1.5), "amount must be in"),
        (lambda pair: guidance.extrapolate(pair, guidance.interval(np.inf, 0.2, 0.8)), "scale must be finite"),
    ],
)
def test_numbers_that_are_not_allowed_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(guidance.pair(_plain, NULL))


@pytest.mark.parametrize("name", ["tangential_damping", "projected", "cfg_zero_star"])
def test_gradients_are_finite_where_states_and_fields_vanish(name):
    """At x = 0, t = 0 and t = 1, for a label and for null, where norms and angles have no derivative."""
    path, field = paths.linear(), mixtures.ring(8).vector_field(paths.linear())

    def guided(x, t, y):
        pair = guidance.pair(field, 8)
        changed = guidance.cfg_zero_star(pair) if name == "cfg_zero_star" else getattr(guidance, name)(path, pair)
        return guidance.extrapolate(changed, 3.0)(x, t, y)

    slopes = jax.jit(jax.jacrev(guided))
    for t in (0.0, 1.0):
        for y in (1, 8):
            assert np.all(np.isfinite(slopes(jnp.zeros(2), jnp.float32(t), jnp.asarray(y)))), (t, y)


def test_momentum_keeps_its_type_in_half_precision():
    """A bfloat16 state is solved as by Euler's rule; the memory is float32."""
    field = guidance.adaptive_projected(paths.linear(), guidance.pair(_plain, NULL), 3.0, Y)
    solver = solvers.with_field_state(solvers.euler, field)
    end = solvers.integrate(solver, jax.random.key(0), jnp.ones(2, jnp.bfloat16), jnp.linspace(0, 1, 5))
    assert end.dtype == jnp.bfloat16
    assert solver.init(jnp.ones(2, jnp.bfloat16)).memory.dtype == jnp.float32


def test_a_stochastic_solver_with_field_state_refuses_the_way_back():
    field = guidance.adaptive_projected(paths.linear(), guidance.pair(_plain, NULL), 3.0, Y)
    path = paths.linear()
    solver = solvers.with_field_state(lambda field: solvers.euler_maruyama(path, field, solvers.root_beta(path)), field)
    with pytest.raises(ValueError, match="ts must increase"):
        solvers.integrate(solver, jax.random.key(0), jnp.ones(2), np.linspace(1, 0, 5, dtype=np.float32))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pair: guidance.extrapolate(_plain, 2.0), "pair must be a Pair"),
        (lambda pair: guidance.adaptive_projected(paths.linear(), _plain, 2.0, Y), "pair must be a Pair"),
        (lambda pair: guidance.extrapolate(pair, jnp.ones(2))(jnp.ones(2), 0.5, Y), "scale must be one number"),
        (lambda pair: guidance.extrapolate(pair, lambda t: jnp.ones(3))(jnp.ones(2), 0.5, Y), "scale must be one"),
        (
            lambda pair: solvers.cfg_plus_plus(paths.linear(), pair, Y, guidance.interval(0.5, 0.2, 0.8)),
            "scale must be a number, a function of t or a policy here, got an interval",
        ),
        (
            lambda pair: solvers.feynman_kac(paths.linear(), _plain, Y, 2.0, solvers.constant(1.0)),
            "pair must be a Pair",
        ),
    ],
)
def test_what_is_no_pair_or_no_scale_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(guidance.pair(_plain, NULL))


@pytest.mark.usefixtures("x64")
def test_the_mix_of_guidance_and_momentum_by_hand(clustered):
    """Four Euler steps for denoisers: the memory grows from the first, and is used from start on."""
    path, field = paths.linear(), clustered.vector_field(paths.linear())
    denoiser = conversions.denoiser_of(path, field)
    early, late, start, momentum, eta, max_norm = 2.5, 4.0, 0.5, -0.6, 0.25, 0.7
    ts = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    stateful = guidance.adaptive_projected_mix(
        path, guidance.pair(field, NULL), early, late, Y, start, momentum, eta, max_norm
    )
    found = solvers.integrate(
        solvers.with_field_state(solvers.euler, stateful), jax.random.key(0), jnp.asarray(POINTS[0]), jnp.asarray(ts)
    )
    x, memory = POINTS[0], np.zeros(2)
    for t, t_next in itertools.pairwise(ts):
        null, labelled = (np.asarray(denoiser(jnp.asarray(x), jnp.asarray(t), jnp.asarray(y))) for y in (NULL, Y))
        memory = labelled - null + momentum * memory
        change = memory * min(1, max_norm / np.linalg.norm(memory))
        change = change - (1 - eta) * (change @ labelled) / (labelled @ labelled) * labelled
        guided = labelled + (late - 1) * change if t >= start else labelled + (early - 1) * (labelled - null)
        x = x + (t_next - t) * np.asarray(conversions.from_denoiser(path, guided, x, t).field)
    np.testing.assert_allclose(found, x, rtol=1e-9)


def test_the_mix_is_its_two_rules_at_its_two_ends():
    """start 0 is adaptive projected guidance, start 1 classifier-free, both scales 1 the labelled field: bitwise."""
    path, pair, x = paths.linear(), guidance.pair(_plain, NULL), jnp.asarray(POINTS[0], jnp.float32)
    numbers = {"momentum": -0.5, "eta": 0.2, "max_norm": 0.7}
    memory = jnp.array([0.3, -0.2])
    late = guidance.adaptive_projected_mix(path, pair, 2.0, 3.0, Y, 0.0, **numbers).apply(x, jnp.float32(0.4), memory)
    plain = guidance.adaptive_projected(path, pair, 3.0, Y, **numbers).apply(x, jnp.float32(0.4), memory)
    jax.tree.map(np.testing.assert_array_equal, late, plain)
    early = guidance.adaptive_projected_mix(path, pair, 2.0, 3.0, Y, 1.0, **numbers).apply(x, jnp.float32(0.4), memory)
    free = guidance.classifier_free(_plain, 2.0, NULL)(x, jnp.float32(0.4), jnp.asarray(Y))
    np.testing.assert_array_equal(early[0], free)
    np.testing.assert_array_equal(early[1], plain[1])
    for one in (1.0, jnp.float32(1)):
        value = guidance.adaptive_projected_mix(path, pair, one, one, Y, 0.5).apply(x, jnp.float32(0.4), memory)[0]
        np.testing.assert_array_equal(value, _plain(x, jnp.float32(0.4), Y))


@pytest.mark.usefixtures("x64")
def test_the_memory_of_the_mix_begins_before_it_is_used():
    """Of a constant difference d the memory after n steps is d (1 - m^n) / (1 - m), also where none of it was used."""
    path = paths.linear()
    pair = guidance.pair(lambda x, t, y: (0.0 * x + 1.0) / (1 - t) * jnp.where(y == NULL, 0.0, 2.0), NULL)
    field = guidance.adaptive_projected_mix(path, pair, 2.0, 3.0, Y, start=0.9, momentum=-0.5)
    carry, _ = solvers.solve(
        solvers.with_field_state(solvers.euler, field), jax.random.key(0), jnp.zeros(2), np.linspace(0, 0.8, 4)
    )
    np.testing.assert_allclose(carry.memory, np.full(2, 2 * (1 + 0.5**3) / 1.5), rtol=1e-9)
