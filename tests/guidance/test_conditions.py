"""Conditions of any structure: every rule as for labels, one null for training and sampling, a scale for each."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conditions, guidance, losses, mixtures, paths, solvers
from cfgjax.analysis import guidance_diagnostics, likelihood, sweep
from cfgjax.conditions import Known, known, unknown
from tests.support.tables import NULL, RULES

PATH = paths.linear()
X, T = jnp.array([0.7, -1.1]), jnp.asarray(0.35)
LABELLED = mixtures.ring(NULL).vector_field(PATH)
MATRIX = np.array([[1.0, 0.3], [-0.4, 0.8]])
JOINT = mixtures.joint(mixtures.ring(3), MATRIX, 0.6, {"place": 1, "shade": 1})
FIELD, DENSITY = JOINT.vector_field(PATH), JOINT.log_density(PATH)
Y = {"label": jnp.asarray(1), "place": known(jnp.array([0.9])), "shade": known(jnp.array([-0.2]))}
NAMES = ("label", "place", "shade")

WRAPS = {
    "dict": (lambda y: {"label": y}, lambda y: y["label"]),
    "nested": (lambda y: {"a": [jnp.zeros(3), {"b": y}]}, lambda y: y["a"][1]["b"]),
    "known": (known, lambda y: jnp.asarray(y.value)),
    "one-hot": (lambda y: jax.nn.one_hot(y, NULL + 1), lambda y: jnp.argmax(y)),
}
"""A structure around a label -> how it is put in, and taken out."""


@pytest.fixture(params=WRAPS.values(), ids=WRAPS)
def wrapped(request):
    """(label -> condition, the field of such conditions)."""
    put_in, take_out = request.param
    return put_in, lambda x, t, y: LABELLED(x, t, take_out(y))


def _equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_rules_are_those_of_the_label_inside(wrapped, scale, monkeypatch):
    """Bitwise: what holds the label is only handed through."""
    put_in, field = wrapped
    pair = guidance.pair
    for name, row in RULES.items():
        expected = row.build(PATH, LABELLED, scale)(X, T, jnp.asarray(1))
        with monkeypatch.context() as patch:
            patch.setattr(guidance, "pair", lambda field, null: pair(field, put_in(null)))
            patch.setattr(
                guidance, "classifier_free", lambda f, w, null: guidance.extrapolate(pair(f, put_in(null)), w)
            )
            _equal(row.build(PATH, field, scale)(X, T, put_in(jnp.asarray(1))), expected)
        assert np.all(np.isfinite(expected)), name


SCALES = {
    "of time": lambda t: 1 + 2 * t,
    "interval": guidance.interval(3.0, 0.2, 0.6),
    "policy": guidance.policy(lambda x, t, y, null, labelled: 1 + jnp.sum(jnp.square(labelled - null))),
}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_scales_are_those_of_the_label_inside(wrapped, scale):
    put_in, field = wrapped
    found = guidance.classifier_free(field, scale, put_in(NULL))(X, T, put_in(jnp.asarray(1)))
    _equal(found, guidance.classifier_free(LABELLED, scale, NULL)(X, T, jnp.asarray(1)))


def test_a_schedule_sees_the_whole_condition():
    guided = guidance.classifier_free(FIELD, lambda t, y: 2 + t + y["place"].value[0], JOINT.null)
    expected = guidance.classifier_free(FIELD, 2 + T + Y["place"].value[0], JOINT.null)
    np.testing.assert_allclose(guided(X, T, Y), expected(X, T, Y), rtol=1e-6)


def test_solvers_losses_and_analysis_take_what_holds_a_label(wrapped):
    put_in, field = wrapped
    key, ts, y = jax.random.key(3), jnp.linspace(0, 1, 5), jnp.asarray(1)
    noise = jnp.stack([X, -X, 2 * X])

    def all_of(field, put_in):
        pair, y_in = guidance.pair(field, put_in(NULL)), put_in(y)
        guided = guidance.given(guidance.extrapolate(pair, 2.5), y_in)
        momentum = guidance.adaptive_projected(PATH, pair, 2.5, y_in)
        ends = jax.jit(
            lambda: (
                solvers.integrate(solvers.heun(guided), key, X, ts),
                solvers.integrate(solvers.cfg_plus_plus(PATH, pair, y_in, 0.5), key, X, ts),
                solvers.integrate(solvers.with_field_state(solvers.euler, momentum), key, X, ts),
                solvers.solve(solvers.feynman_kac(PATH, pair, y_in, 2.0, solvers.constant(0.5)), key, noise, ts),
                losses.flow_matching(PATH, field, key, X, y_in),
                likelihood.log_density(solvers.heun, likelihood.exact_divergence(guided), X, ts[::-1]),
                guidance_diagnostics.diagnostics(PATH, pair, key, 2.5, y_in)(solvers.heun(guided).init(X), T),
            )
        )
        return ends()

    _equal(all_of(field, put_in), all_of(LABELLED, lambda y: y))


def test_conditions_are_swept():
    """Labels and vectors as an axis of their own, in step, with a scale for each example."""
    ys = {"label": jnp.arange(3), "place": Known(jnp.ones((3, 1)), jnp.array([True, False, True]))}
    ys["shade"] = Known(jnp.zeros((3, 1)), jnp.zeros(3, bool))

    def draw(scale, y):
        return guidance.classifier_free(FIELD, scale, JOINT.null)(X, T, y)

    found = jax.jit(lambda scales, ys: sweep.sweep(draw, scales, ys))(jnp.array([0.0, 2.0]), ys)
    for i, j in itertools.product(range(2), range(3)):
        expected = draw([0.0, 2.0][i], jax.tree.map(lambda leaf, j=j: leaf[j], ys))
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-5)


def test_both_sides_come_out_of_one_call():
    calls = []

    def field(x, t, y):
        calls.append(1)
        return FIELD(x, t, y)

    guidance.classifier_free(field, 2.5, JOINT.null)(X, T, Y)
    guidance.classifier_free_chain(field, dict.fromkeys(NAMES, 2.0), JOINT.null, NAMES)(X, T, Y)
    guidance.classifier_free_product(field, dict.fromkeys(NAMES, 2.0), JOINT.null)(X, T, Y)
    guidance.compose(field, [Y, JOINT.null], [2.0, -1.0])(X, T)
    assert len(calls) == 4


NULLS = {
    "a tree": JOINT.null,
    "a function": lambda y: jax.tree.map(lambda leaf: leaf, JOINT.null),
    "of all names": conditions.without(JOINT.null, *NAMES),
}


@pytest.mark.parametrize("null", NULLS.values(), ids=NULLS)
def test_a_null_is_a_tree_or_a_function(null):
    expected = 2.5 * FIELD(X, T, Y) - 1.5 * FIELD(X, T, JOINT.null)
    np.testing.assert_allclose(guidance.classifier_free(FIELD, 2.5, null)(X, T, Y), expected, rtol=1e-4)


def test_a_null_of_some_conditions_keeps_the_others():
    kept = Y | {"place": JOINT.null["place"]}
    expected = 2.5 * FIELD(X, T, Y) - 1.5 * FIELD(X, T, kept)
    guided = guidance.classifier_free(FIELD, 2.5, conditions.without(JOINT.null, "place"))
    np.testing.assert_allclose(guided(X, T, Y), expected, rtol=1e-4)


def test_names_are_keys_numbers_and_fields():
    assert conditions.without((10, 20), 1)((3, 4)) == (3, 20)
    assert conditions.without(Known(0, False), "is_known")(Known(7, True)) == Known(7, False)
    assert conditions.without(lambda y: {"a": -y["a"], "b": 0}, "a")({"a": 2, "b": 5}) == {"a": -2, "b": 5}


def test_a_negative_condition_is_a_null():
    negative = Y | {"label": jnp.asarray(2)}
    expected = 2.0 * FIELD(X, T, Y) - FIELD(X, T, negative)
    np.testing.assert_allclose(guidance.classifier_free(FIELD, 2.0, negative)(X, T, Y), expected, rtol=1e-4)


def _law(scales, order=None):
    """The logarithm of the law of (S1) for an order, of (S2) without one, at time T as a function of x."""

    def density(x):
        def log_p(names):
            return DENSITY(x, T, JOINT.null | {name: Y[name] for name in names})

        base = log_p(())
        if order is None:
            return base + sum(scale * (log_p((name,)) - base) for name, scale in scales.items())
        steps = [log_p(order[: place + 1]) - log_p(order[:place]) for place in range(len(order))]
        return base + sum(scales[name] * step for name, step in zip(order, steps, strict=True))

    return density


EACH = {"label": 1.5, "place": 3.0, "shade": -0.5}
SCORE = JOINT.score(PATH)


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids="-".join)
def test_the_chain_is_the_score_of_its_law(order):
    """(S1), whose law depends on the order."""
    guided = guidance.classifier_free_chain(SCORE, EACH, JOINT.null, order)
    np.testing.assert_allclose(guided(X, T, Y), jax.grad(_law(EACH, order))(X), rtol=1e-3, atol=1e-4)


def test_the_product_is_the_score_of_its_law():
    """(S2)."""
    guided = guidance.classifier_free_product(SCORE, EACH, JOINT.null)
    np.testing.assert_allclose(guided(X, T, Y), jax.grad(_law(EACH))(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 0.3, 4.0])
def test_equal_scales_of_a_chain_are_plain_guidance(scale):
    found = guidance.classifier_free_chain(FIELD, dict.fromkeys(NAMES, scale), JOINT.null, NAMES)(X, T, Y)
    expected = guidance.classifier_free(FIELD, jnp.asarray(scale), JOINT.null)(X, T, Y)
    if scale in (0.0, 1.0):
        ends = jax.vmap(FIELD, (None, None, 0))(X, T, _added_in_turn())
        np.testing.assert_array_equal(found, ends[0 if scale == 0 else -1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def _added_in_turn():
    """The null, and y with one more of its conditions in each row, [4, ...]."""
    rows = [JOINT.null | {name: Y[name] for name in NAMES[:count]} for count in range(4)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def test_conditions_without_a_scale_stay_on_both_sides():
    plain = guidance.classifier_free(FIELD, 2.5, conditions.without(JOINT.null, "place"))(X, T, Y)
    chain = guidance.classifier_free_chain(FIELD, {"place": 2.5}, JOINT.null, ("place",))(X, T, Y)
    product = guidance.classifier_free_product(FIELD, {"place": 2.5}, JOINT.null)(X, T, Y)
    np.testing.assert_allclose(chain, plain, rtol=1e-5)
    np.testing.assert_allclose(product, plain, rtol=1e-5)


def test_every_example_has_its_own_scales_in_one_trace():
    traces = []

    @jax.jit
    def guided(scales, y):
        traces.append(1)
        at = lambda scales, y: guidance.classifier_free_chain(FIELD, scales, JOINT.null, NAMES)(X, T, y)  # noqa: E731
        return jax.vmap(at)(scales, y)

    rng = np.random.default_rng(0)
    for _ in range(3):
        scales = {name: rng.uniform(-1, 5, size=4).astype(np.float32) for name in NAMES}
        y = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (4, *leaf.shape)), Y)
        found = guided(scales, y)
        one = {name: float(scale[2]) for name, scale in scales.items()}
        expected = guidance.classifier_free_chain(FIELD, one, JOINT.null, NAMES)(X, T, Y)
        np.testing.assert_allclose(found[2], expected, rtol=2e-4, atol=1e-4)
    assert len(traces) == 1


def test_scales_of_each_may_depend_on_time():
    found = guidance.classifier_free_chain(FIELD, {"place": lambda t: 4 * t}, JOINT.null, ["place"])(X, T, Y)
    expected = guidance.classifier_free_chain(FIELD, {"place": 4 * T}, JOINT.null, ["place"])(X, T, Y)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_is_dropped_is_the_null_that_sampling_uses(rate):
    dropped = guidance.drop_condition(jax.random.key(0), Y, rate, JOINT.null)
    _equal(dropped, conditions.null_for(JOINT.null, Y) if rate else Y)


def test_one_rate_drops_all_together_as_it_drops_a_label():
    keys = jax.random.split(jax.random.key(1), 2000)
    dropped = jax.vmap(lambda key: guidance.drop_condition(key, Y, 0.3, JOINT.null))(keys)
    labels = jax.vmap(lambda key: guidance.drop_condition(key, Y["label"], 0.3, 3))(keys)
    _equal(dropped["label"], labels)
    _equal(dropped["place"].is_known, labels != 3)
    _equal(dropped["place"].value[:, 0], jnp.where(labels == 3, 0, Y["place"].value[0]))


def test_each_rate_has_draws_of_its_own_and_one_drops_all():
    """P(all of a set of conditions is dropped) for every set, within five standard errors."""
    rates, rate_of_all, size = {"label": 0.2, "place": 0.5, "shade": 0.3}, 0.1, 40_000
    keys = jax.random.split(jax.random.key(2), size)
    dropped = jax.vmap(lambda key: guidance.drop_condition(key, Y, rates, JOINT.null, rate_of_all))(keys)
    is_dropped = {"label": dropped["label"] == 3} | {name: ~dropped[name].is_known for name in ("place", "shade")}
    for count in (1, 2, 3):
        for names in itertools.combinations(NAMES, count):
            expected = rate_of_all + (1 - rate_of_all) * np.prod([rates[name] for name in names])
            found = np.mean(np.all([is_dropped[name] for name in names], axis=0))
            assert abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / size), names
    _equal(dropped["place"].value[:, 0], jnp.where(is_dropped["place"], 0, Y["place"].value[0]))


def test_a_condition_of_no_known_structure_is_dropped_whole():
    y = (jnp.arange(3.0), {"mask": jnp.array([True, False])})
    null = (jnp.zeros(3), {"mask": jnp.array([False, False])})
    _equal(guidance.drop_condition(jax.random.key(0), y, (1.0, 0.0), null), (null[0], y[1]))


BAD_NULLS = {
    "a label for a dict": (7, Y, r"null must have the structure of y, .* got the label 7"),
    "a dict for a label": ({"label": 1}, 2, "null must be an integer, got dict"),
    "other names": ({"label": 1}, Y, r"null must have the structure of y, \{'label': \(\), 'place': Known"),
    "another shape": (JOINT.null | {"shade": unknown(jnp.ones(2))}, Y, r"null\['shade'\].value must have the shape"),
    "another kind": (JOINT.null | {"label": 1.0}, Y, r"null\['label'\] must be of integers, as y is there, got"),
    "a float for a mask": (
        JOINT.null | {"shade": Known(jnp.ones(1), jnp.asarray(1.0))},
        Y,
        r"null\['shade'\].is_known must be of booleans",
    ),
    "too large": ({"a": jnp.array([300])}, {"a": jnp.array([1], jnp.uint8)}, r"null\['a'\] must be in \[0, 255\]"),
    "no number": (JOINT.null | {"place": unknown(jnp.array([1.0]))._replace(value=jnp.array([jnp.nan]))}, Y, "finite"),
    "a function of another": (lambda y: {"label": 3}, Y, "null must have the structure of y"),
}


@pytest.mark.parametrize(("null", "y", "message"), BAD_NULLS.values(), ids=BAD_NULLS)
def test_a_null_that_is_not_like_y_is_refused_in_training_and_in_sampling(null, y, message):
    field = lambda x, t, y: x  # noqa: E731
    calls = (
        lambda: guidance.classifier_free(field, 2.0, null)(X, T, y),
        lambda: guidance.classifier_free(field, 1.0, null)(X, T, y),
        lambda: guidance.drop_condition(jax.random.key(0), y, 0.1, null),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


BAD_RATES = {
    "over 1": ({"label": 0.1, "place": 1.2, "shade": 0.1}, r"rate\['place'\] must be in \[0, 1\], got 1.2"),
    "not of y": ({"label": 0.1}, "rate must be one number, or a tree of them that y's begins with"),
    "none": ({}, "rate must be one number or a tree of them, got dict"),
    "no number": ({"label": "often", "place": 0.1, "shade": 0.1}, r"rate\['label'\] must be one real number"),
}


@pytest.mark.parametrize(("rate", "message"), BAD_RATES.values(), ids=BAD_RATES)
def test_rates_that_do_not_fit_are_refused(rate, message):
    with pytest.raises((TypeError, ValueError), match=message):
        guidance.drop_condition(jax.random.key(0), Y, rate, JOINT.null)


BAD_NAMES = {
    "scales": (lambda: guidance.classifier_free_product(FIELD, {"text": 2.0}, JOINT.null)(X, T, Y), "got 'text'"),
    "order": (
        lambda: guidance.classifier_free_chain(FIELD, {"place": 2.0}, JOINT.null, ("place", "label")),
        r"order must hold the names of scales, \['place'\], each once, got \['place', 'label'\]",
    ),
    "without": (lambda: conditions.without(JOINT.null, "text")(Y), "names must be of y's conditions, .* got 'text'"),
    "no names": (lambda: conditions.without(JOINT.null), "names must be at least one"),
    "an array": (
        lambda: guidance.classifier_free_product(FIELD, {0: 2.0}, 0.0)(X, T, jnp.ones(2)),
        "y must be a dict or a tuple of conditions here",
    ),
    "no scales": (lambda: guidance.classifier_free_product(FIELD, {}, JOINT.null), "scales must be a dict"),
    "no number": (
        lambda: guidance.classifier_free_product(FIELD, {"place": "two"}, JOINT.null),
        r"scales\['place'\] must be",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_names_that_do_not_fit_are_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
