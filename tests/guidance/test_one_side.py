"""A scale known as the number 0 or 1 is structure: the one side that it asks for is evaluated, and counted, alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.types import Pair

NULL, Y = 3, 1
PATH, RING = paths.linear(), mixtures.ring(NULL)
X, T, TS = jnp.array([0.4, -0.7]), jnp.float32(0.3), np.linspace(0, 1, 5)
ONES = {"float": 1.0, "int": 1, "numpy": np.float32(1), "jax": jnp.int32(1), "0-d": np.array(1.0)}


def FIELD(x, t, y):  # noqa: N802
    """An elementwise field: bitwise the same alone as under vmap."""
    return jnp.sin(3 * x + t) * (y + 1.0)


def _worse(x, t, y):
    return 0.8 * FIELD(x, t, y)


def _counted(rule):
    """How often each Euler step of a rule evaluates the field that it is given."""
    build = lambda field: solvers.euler(guidance.given(rule(field), Y))  # noqa: E731
    return solvers.num_function_evaluations(build, FIELD, X, TS).tolist()


def _pair(field):
    return guidance.pair(field, NULL)


RULES = {
    "classifier_free": lambda field, w: guidance.classifier_free(field, w, NULL),
    "a negative label": lambda field, w: guidance.classifier_free(field, w, 2),
    "autoguidance": lambda field, w: guidance.autoguidance(field, _worse, w),
    "rescaled": lambda field, w: guidance.rescaled(_pair(field), w),
    "projected": lambda field, w: guidance.extrapolate(guidance.projected(PATH, _pair(field)), w),
    "cfg_zero_star": lambda field, w: guidance.extrapolate(guidance.cfg_zero_star(_pair(field)), w),
    "tangential_damping": lambda field, w: guidance.extrapolate(guidance.tangential_damping(PATH, _pair(field)), w),
    "magnitude_aware": lambda field, w: guidance.extrapolate(guidance.magnitude_aware(_pair(field)), w),
    "frequency_decoupled": lambda field, w: guidance.extrapolate(
        guidance.frequency_decoupled(_pair(field), guidance.filters.mean_low), w
    ),
    "static_threshold": lambda field, w: guidance.static_threshold(
        PATH, guidance.classifier_free(field, w, NULL), jnp.inf
    ),
    "from_zero_based_scale": lambda field, w: guidance.classifier_free(
        field, guidance.from_zero_based_scale(w - 1), NULL
    ),
    "an interval": lambda field, w: guidance.classifier_free(field, guidance.interval(w, 0.25, 0.5), NULL),
    "the whole interval": lambda field, w: guidance.classifier_free(field, guidance.interval(w, 0, 1), NULL),
}


@pytest.mark.parametrize("name", list(RULES))
def test_a_known_one_is_the_labelled_side_alone(name):
    assert _counted(lambda field: RULES[name](field, 1)) == [1] * 4
    for call in (lambda guided: guided, jax.jit):
        expected = call(FIELD)(X, T, jnp.asarray(Y))
        np.testing.assert_array_equal(call(RULES[name](FIELD, 1.0))(X, T, jnp.asarray(Y)), expected)


@pytest.mark.parametrize("name", ["classifier_free", "a negative label", "static_threshold", "the whole interval"])
def test_a_known_zero_is_the_null_side_alone(name):
    assert _counted(lambda field: RULES[name](field, 0)) == [1] * 4
    expected = FIELD(X, T, jnp.asarray(2 if name == "a negative label" else NULL))
    np.testing.assert_array_equal(RULES[name](FIELD, 0.0)(X, T, jnp.asarray(Y)), expected)


def test_a_known_zero_inside_an_interval_is_one_evaluation_everywhere():
    assert _counted(lambda field: RULES["an interval"](field, 0)) == [1] * 4


def test_the_worse_network_is_evaluated_alone_at_zero_and_not_at_all_at_one():
    calls = []

    def worse(x, t, y):
        calls.append("worse")
        return _worse(x, t, y)

    def field(x, t, y):
        calls.append("field")
        return FIELD(x, t, y)

    for scale, name, expected in ((0, "worse", _worse), (1, "field", FIELD)):
        calls.clear()
        found = guidance.autoguidance(field, worse, scale)(X, T, jnp.asarray(Y))
        np.testing.assert_array_equal(found, expected(X, T, jnp.asarray(Y)))
        assert calls == [name]


def test_classifier_guidance_at_zero_needs_no_classifier():
    null_field, calls = guidance.given(RING.vector_field(PATH), NULL), []

    def log_classifier(x, t):
        calls.append(1)
        return RING.label_log_probs(PATH)(x, t)

    found = guidance.classifier(PATH, null_field, log_classifier, 0)(X, T, jnp.asarray(Y))
    np.testing.assert_array_equal(found, null_field(X, T))
    assert not calls
    guidance.classifier(PATH, null_field, log_classifier, 1)(X, T, jnp.asarray(Y))
    assert calls


@pytest.mark.parametrize(
    "name", ["projected", "cfg_zero_star", "tangential_damping", "rescaled", "magnitude_aware", "frequency_decoupled"]
)
def test_a_null_side_that_is_made_of_both_costs_both_at_zero(name):
    """It is no plain null field: CFG-Zero*'s is s u_null. The value is that of a traced 0."""
    assert _counted(lambda field: RULES[name](field, 0)) == [2] * 4
    known = jax.jit(lambda x: RULES[name](FIELD, 0)(x, T, jnp.asarray(Y)))(X)
    traced = jax.jit(lambda x, w: RULES[name](FIELD, w)(x, T, jnp.asarray(Y)))(X, 0.0)
    np.testing.assert_array_equal(known, traced)


@pytest.mark.parametrize("one", ONES.values(), ids=ONES)
def test_a_number_is_known_in_every_kind_that_is_not_traced(one):
    assert _counted(lambda field: guidance.classifier_free(field, one, NULL)) == [1] * 4
    assert _counted(lambda field: guidance.classifier_free(field, one - one, NULL)) == [1] * 4
    found = guidance.classifier_free(lambda x, t, y: x.astype(jnp.bfloat16), one, NULL)(X, T, jnp.asarray(Y))
    both = guidance.interpolate(*[X.astype(jnp.bfloat16)] * 2, one)
    assert found.dtype == both.dtype


@pytest.mark.parametrize("scale", [0.5, 2, -1, lambda t: 1.0, lambda t, y: 0.0])
def test_other_numbers_and_functions_cost_both(scale):
    assert _counted(lambda field: guidance.classifier_free(field, scale, NULL)) == [2] * 4


def test_a_traced_one_costs_both_and_keeps_its_gradient():
    """A traced scale is no structure: one program for all of them, and d u_1 / dw = u_y - u_null."""
    traced = []

    def guided(w):
        traced.append(1)
        return guidance.classifier_free(FIELD, w, NULL)(X, T, jnp.asarray(Y))

    compiled = jax.jit(guided)
    found = [compiled(w) for w in (0.0, 1.0, 2.5)]
    assert len(traced) == 1
    null, labelled = _pair(FIELD).both(X, T, jnp.asarray(Y))
    np.testing.assert_allclose(found[2], null + 2.5 * (labelled - null), rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(guided)(1.0), labelled - null, rtol=1e-5)


def test_an_interval_between_traced_edges_of_a_known_one_is_the_labelled_side_alone():
    def counted(scale):
        def one(start):
            return _counted(lambda field: guidance.classifier_free(field, guidance.interval(scale, start, 0.9), NULL))

        found = []
        jax.make_jaxpr(lambda start: found.append(one(start)) or start)(0.2)
        return found[0]

    assert counted(1.0) == [1] * 4
    assert counted(0.0) == [2] * 4  # outside it is the labelled side


def test_a_pair_of_ones_own_needs_no_null_side():
    """``Pair(both, labelled)``, as rules of one's own are written: w = 0 is then the null side of both."""
    plain = _pair(FIELD)
    own = Pair(plain.both, plain.labelled)
    assert own.null is None
    found = guidance.extrapolate(own, 0)(X, T, jnp.asarray(Y))
    np.testing.assert_array_equal(found, plain.both(X, T, jnp.asarray(Y))[0])


@pytest.mark.parametrize("scale", [0, 1])
def test_one_side_alone_checks_what_both_check(scale):
    guided = guidance.classifier_free(lambda x, t, y: x, scale, NULL)
    for y in (-1, 1.0, jnp.zeros(2, int)):
        with pytest.raises((TypeError, ValueError), match="y must be"):
            guided(X, T, y)
    with pytest.raises(ValueError, match="t must be in"):
        guided(X, 1.5, 1)
    with pytest.raises(ValueError, match="null must be"):
        guidance.classifier_free(lambda x, t, y: x, scale, 300)(X, T, jnp.uint8(1))
    with pytest.raises(ValueError, match="field must give the shape"):
        guidance.classifier_free(lambda x, t, y: jnp.ones(3), scale, NULL)(X, T, 1)


def test_a_memory_is_not_needed_at_one():
    def count(scale, make=guidance.adaptive_projected, *scales):
        def build(field):
            return solvers.with_field_state(solvers.euler, make(PATH, _pair(field), *scales, scale, Y))

        return solvers.num_function_evaluations(build, FIELD, X, TS).tolist()

    assert (count(1.0), count(2.0)) == ([1] * 4, [2] * 4)
    mixed = [count(scale, guidance.adaptive_projected_mix, 1) for scale in (1, 2.0)]
    assert mixed == [[1] * 4, [2] * 4]
    field = guidance.adaptive_projected(PATH, _pair(FIELD), 1.0, Y)
    value, memory = field.apply(X, T, field.init(X))
    np.testing.assert_array_equal(value, FIELD(X, T, jnp.asarray(Y)))
    np.testing.assert_array_equal(memory, field.init(X))


def test_cfg_plus_plus_at_a_known_zero_evaluates_the_null_side_alone():
    """l = 0 is DDIM of the null field; at 1 the null side's noise is still needed."""

    def count(scale):
        build = lambda field: solvers.cfg_plus_plus(PATH, _pair(field), Y, scale)  # noqa: E731
        return solvers.num_function_evaluations(build, FIELD, X, TS).tolist()

    assert (count(0.0), count(1.0)) == ([1] * 4, [2] * 4)
    found, ddim = (
        solver.step(jax.random.key(0), solver.init(X), T, jnp.float32(0.5)).x
        for solver in (
            solvers.cfg_plus_plus(PATH, _pair(FIELD), Y, 0),
            solvers.ddim(PATH, guidance.given(FIELD, NULL)),
        )
    )
    np.testing.assert_allclose(found, ddim, rtol=1e-5)


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_labels_of_weight_zero_are_not_evaluated(transform):
    """Known weights alone: with traced ones every label is."""
    weighted = lambda weights: lambda field: guidance.compose(field, [0, 1, NULL], weights)  # noqa: E731
    count = lambda rule: solvers.num_function_evaluations(  # noqa: E731
        lambda field: solvers.euler(rule(field)), FIELD, X, TS
    ).tolist()
    assert count(weighted([0.0, 1.0, 0.0])) == [1] * 4
    assert count(weighted(jnp.array([2.0, 0.0, -1.0]))) == [2] * 4
    assert count(weighted(lambda t: jnp.array([0.0, 1.0, 0.0]))) == [3] * 4
    found = transform(lambda x: weighted([0.0, 1.0, 0.0])(FIELD)(x, T))(X)
    np.testing.assert_array_equal(found, transform(lambda x: FIELD(x, T, jnp.asarray(1)))(X))


@pytest.mark.parametrize(("amount", "label"), [(0, 2), (1.0, 0)])
def test_interpolate_labels_evaluates_one_label_at_its_ends(amount, label):
    between = lambda field: guidance.interpolate_conditions(field, 2, 0, amount)  # noqa: E731
    build = lambda field: solvers.euler(between(field))  # noqa: E731
    assert solvers.num_function_evaluations(build, FIELD, X, TS).tolist() == [1] * 4
    found = jax.jit(lambda x: between(FIELD)(x, T))(X)
    np.testing.assert_array_equal(found, jax.jit(lambda x: FIELD(x, T, jnp.asarray(label)))(X))
