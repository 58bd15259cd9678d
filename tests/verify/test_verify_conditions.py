"""Verification of conditions: the library's dropping and the joint oracle pass, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cfgjax import conditions, guidance, mixtures, paths, verify
from cfgjax.conditions import Known
from cfgjax.verify import draws, dropping_calls
from cfgjax.verify.reference import skewed_joint_mixture, skewed_mixture

PATH, K = paths.cosine(), 3
MIXTURE = skewed_joint_mixture()
FIELD, SCORE = MIXTURE.vector_field(PATH), MIXTURE.score(PATH)
NULL = MIXTURE.null
ZEROS = Known(jnp.zeros(2), jnp.asarray(True))
UNKNOWN = "no known cause fits"


def _cases(table, *slow):
    """The rows of a table as cases by their names, some of them slow."""
    return [
        pytest.param(*values, id=name, marks=[pytest.mark.slow] if name in slow else [])
        for name, values in table.items()
    ]


def _causes(report):
    assert not report.passed
    return report.causes


# Fields


@pytest.mark.parametrize("view", ["field", "score", "noise", "denoiser"])
def test_the_exact_views_pass(view):
    exact = {"field": FIELD, "score": SCORE, "noise": MIXTURE.noise(PATH), "denoiser": MIXTURE.denoiser(PATH)}[view]
    verify.conditional_field(exact, PATH, view=view, seed=len(view)).require()


@pytest.mark.slow
def test_a_field_of_another_mixture_that_cannot_be_traced_passes():
    """Of two labels and one number, on the straight path, called in a loop on values of NumPy."""
    mixture = mixtures.joint(mixtures.ring(2), jnp.array([[1.0, -0.5]]), 0.4)
    exact = jax.jit(mixture.vector_field(paths.linear()))
    field = lambda x, t, y: np.asarray(exact(x, t, y)) + 0 * float(y["vector"].value[0])  # noqa: E731
    verify.conditional_field(field, paths.linear(), mixture).require()


def _row(y):
    """Which of the rows y is of: 3 for both conditions, 2 for the label alone, 1 for the vector alone, 0 for none."""
    return 2 * (y["label"] < K) + y["vector"].is_known


def _with(*, label=None, vector=None):
    """The field that takes another label or vector, given as functions of y."""

    def field(x, t, y):
        new = {} if label is None else {"label": label(y)}
        return FIELD(x, t, y | new | ({} if vector is None else {"vector": vector(y)}))

    return field


def _zeros_for_null(y):
    return Known(y["vector"].value, jnp.asarray(True))


def _null_label(to):
    return lambda y: jnp.where(y["label"] == K, to, y["label"])


def _average(x, t, y):
    """The labels' average by their shares in the place of the null label."""
    rows = [w * FIELD(x, t, y | {"label": jnp.asarray(label)}) for label, w in enumerate((0.5, 0.2, 0.3))]
    return jnp.where(y["label"] == K, sum(rows), FIELD(x, t, y))


NULL_ZEROS, LABEL_0 = "the null of the vector is a vector of zeros", "the null of the label is label 0, not K = 3"
WRONG_FIELDS = {
    "sign": (lambda x, t, y: -FIELD(x, t, y), ("the sign is wrong",)),
    "time": (lambda x, t, y: FIELD(x, 1 - t, y), ("time runs backwards: it is the value at 1 - t",)),
    "score": (SCORE, ("it is the score s",)),
    "noise": (MIXTURE.noise(PATH), ("it is the noise prediction E",)),
    "half": (lambda x, t, y: FIELD(x, t, y) / 2, ("a factor 0.5 too many",)),
    "beta": (lambda x, t, y: FIELD(x, t, y) * PATH.beta(t), ("a factor beta too many",)),
    "no vector": (_with(vector=lambda y: NULL["vector"]), ("the vector is ignored",)),
    "no label": (_with(label=lambda y: NULL["label"]), ("the label is ignored",)),
    "no conditions": (
        lambda x, t, y: FIELD(x, t, NULL),
        ("it is the null's value: conditions are ignored", "the label is ignored", "the vector is ignored"),
    ),
    "labels shifted": (
        _with(label=lambda y: jnp.where(y["label"] == K, K, (y["label"] + 1) % K)),
        ("labels are shifted by one: y + 1 for y",),
    ),
    "zeros for every vector": (
        _with(vector=lambda y: ZEROS),
        ("the vector is ignored: zeros are taken for it", NULL_ZEROS),
    ),
    "zeros for no vector": (_with(vector=_zeros_for_null), (NULL_ZEROS,)),
    "vector's sign": (
        _with(vector=lambda y: Known(-y["vector"].value, y["vector"].is_known)),
        ("the vector's sign is wrong",),
    ),
    "vector reversed": (
        _with(vector=lambda y: Known(y["vector"].value[::-1], y["vector"].is_known)),
        ("the vector's coordinates are reversed",),
    ),
    "null is label 0": (_with(label=_null_label(0)), (LABEL_0,)),
    "null is label K - 1": (_with(label=_null_label(K - 1)), ("the null of the label is label 2, not K = 3",)),
    "null of both": (
        _with(label=_null_label(0), vector=_zeros_for_null),
        (NULL_ZEROS, LABEL_0, f"{LABEL_0}, and {NULL_ZEROS}"),
    ),
    "average": (_average, ("it is the labels' average under their shares, not under p_t(y|x)",)),
    "null is zero": (lambda x, t, y: jnp.where(_row(y) == 0, 0, FIELD(x, t, y)), ("the null gives zero",)),
    "another kind": (lambda x, t, y: FIELD(1.1 * x, t, y) + 0.3, (UNKNOWN,)),
}


@pytest.mark.parametrize(("field", "causes"), _cases(WRONG_FIELDS, "noise", "half", "null is label K - 1"))
def test_mistakes_in_conditional_fields_are_named(field, causes):
    assert _causes(verify.conditional_field(field, PATH)) == causes


def test_another_view_than_claimed_is_named():
    assert _causes(verify.conditional_field(FIELD, PATH, view="denoiser")) == ("it is the vector field u",)


@pytest.mark.parametrize("row", [0, 1, *(pytest.param(row, marks=pytest.mark.slow) for row in (2, 3))])
def test_only_the_row_that_is_5_percent_off_fails(row):
    report = verify.conditional_field(lambda x, t, y: FIELD(x, t, y) * jnp.where(_row(y) == row, 1.05, 1.0), PATH)
    assert [check.is_passed for check in report.checks] == [row != 3, row != 2, row != 1, row != 0, True]
    assert _causes(report) == ("a factor 1.05 too many",)


@pytest.mark.slow
def test_every_subset_of_two_vectors_is_looked_at():
    """The exact field passes; one that never sees the second vector is right where that is not known."""
    mixture = mixtures.joint(skewed_mixture(), jnp.array([[1.1, -0.4], [0.3, 0.9]]), 0.6, {"first": 1, "second": 1})
    exact = mixture.vector_field(PATH)
    report = verify.conditional_field(
        lambda x, t, y: exact(x, t, y | {"second": mixture.null["second"]}), PATH, mixture
    )
    assert {check.name: check.is_passed for check in report.checks} == {
        "values for label and first and second": False,
        "values for label and first": True,
        "values for label and second": False,
        "values for first and second": False,
        "values for label": True,
        "values for first": True,
        "values for second": False,
        "values for the null": True,
        "share not finite at t = 0": True,
    }
    assert _causes(report) == ("the second is ignored",)
    verify.conditional_field(exact, PATH, mixture).require()


def test_a_conditional_field_that_cannot_be_called_gets_one_row():
    report = verify.conditional_field(lambda x, t, y: FIELD(x, t, y["vector"]), PATH)
    assert len(report.checks) == 1
    assert "raised TypeError: y must be a dict of label, vector" in _causes(report)[0]


# Dropping

RATES, OF_ALL = {"label": 0.1, "vector": 0.2}, 0.05


def _draw(key):
    """A label and a vector, both known."""
    label_key, key = jax.random.split(key)
    return {"label": jax.random.randint(label_key, (), 0, K), "vector": conditions.known(jax.random.normal(key, (2,)))}


def _library(rate=0.1, null=NULL, rate_of_all=0.0):
    return lambda key, y: guidance.drop_condition(key, y, rate, null, rate_of_all)


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_conditions_that_are_dropped_together_pass(rate, seed):
    verify.dropping(_library(rate), NULL, rate, _draw, seed=seed).require()


@pytest.mark.parametrize("seed", SEEDS)
def test_conditions_with_rates_of_their_own_pass(seed):
    verify.dropping(_library(RATES, rate_of_all=OF_ALL), NULL, RATES, _draw, OF_ALL, seed=seed).require()


def test_rates_of_zero_and_partial_nulls_pass():
    """The label alone is dropped: by its rate, and by what the null leaves."""
    rates, partial = {"label": 0.1, "vector": 0.0}, conditions.without(NULL, "label")
    verify.dropping(_library(rates), NULL, rates, _draw).require()
    verify.dropping(_library(0.1, partial), partial, 0.1, _draw).require()


def test_labels_arrays_and_sequences_pass():
    """A label by itself; an array; a sequence with its mask under one rate, beside a label in a tuple."""
    label = lambda key: jax.random.randint(key, (), 0, K)  # noqa: E731
    verify.dropping(_library(0.1, K), K, 0.1, label).require()
    array = lambda key: jax.random.normal(key, (3, 2))  # noqa: E731
    verify.dropping(_library(0.1, jnp.ones((3, 2))), jnp.ones((3, 2)), 0.1, array).require()

    def draw(key):
        text = {"tokens": jax.random.normal(key, (4, 2)), "mask": jnp.arange(4) < jax.random.randint(key, (), 1, 5)}
        return text, label(key)

    null, rates = ({"tokens": jnp.zeros((4, 2)), "mask": jnp.arange(4) < 1}, jnp.asarray(K)), (0.1, 0.2)
    verify.dropping(_library(rates, null), null, rates, draw).require()


def _numpy_drop(key, y):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    is_dropped = rng.random() < 0.1
    return NULL if is_dropped else y


def _batched(drop=lambda key, y: guidance.drop_condition(key, y, 0.1, NULL)):
    """The dropping of a batch with one key for each of its examples."""
    return lambda key, y: jax.vmap(drop)(jax.random.split(key, len(y["label"])), y)


def test_what_takes_batches_and_what_cannot_be_traced_pass(monkeypatch):
    verify.dropping(_batched(), NULL, 0.1, _draw, is_batched=True).require()
    monkeypatch.setattr(dropping_calls, "LOOPED", 1024)
    verify.dropping(_numpy_drop, NULL, 0.1, _draw).require()


@pytest.mark.slow
def test_large_conditions_are_drawn_less_often():
    """20000 numbers: 256 draws a call, and right and wrong ones told apart."""
    null = conditions.unknown(jnp.zeros((200, 100)))
    draw = lambda key: conditions.known(jax.random.normal(key, (200, 100)))  # noqa: E731
    verify.dropping(_library(0.2, null), null, 0.2, draw).require()
    assert not verify.dropping(_library(0.3, null), null, 0.2, draw).passed


def _draws(key, rate=0.1, shape=()):
    return jax.random.bernoulli(key, rate, shape)


def _replaced(y, null, *coins):
    """The label and the vector, each the null's where its coin says so."""
    coins = {"label": coins[0], "vector": Known(coins[1], coins[1])}
    return jax.tree.map(jnp.where, coins, null, y)


def _vector(change):
    """The dropping of the library with another vector: change(whether it was dropped, the vector's own) -> Known."""

    def drop(key, y):
        coin = _draws(key)
        return _replaced(y, NULL, coin, coin) | {"vector": change(coin, y["vector"])}

    return drop


def _own(*rates):
    """Every condition by a draw of its own."""
    return lambda key, y: _replaced(y, NULL, *(map(_draws, jax.random.split(key), rates)))


def _shared(key, y):
    """The two rates with one uniform number for both."""
    number = jax.random.uniform(key)
    return _replaced(y, NULL, number < 0.1, number < 0.2)


ZERO_BESIDE = "what is dropped at ['vector'] becomes Known(0, True), and the null there is Known(0, False)"
WRONG_DROPS = {
    "zeros for the null": (_library(0.1, NULL | {"vector": ZEROS}), (ZERO_BESIDE,)),
    "another null": (
        _library(0.1, NULL | {"vector": Known(jnp.array([0.5, -1.0]), jnp.asarray(False))}),
        ("what is dropped at ['vector'] becomes Known([ 0.5 -1. ], False), and the null there is Known(0, False)",),
    ),
    "label K - 1": (
        _library(0.1, NULL | {"label": jnp.asarray(K - 1)}),
        ("what is dropped at ['label'] becomes 2, and the null there is 3",),
    ),
    "label 0": (
        _library(0.1, NULL | {"label": jnp.asarray(0)}),
        ("what is dropped at ['label'] becomes 0, and the null there is 3",),
    ),
    "value kept": (
        _vector(lambda coin, own: Known(own.value, ~coin)),
        ("['vector'].is_known is dropped and ['vector'].value is kept",),
    ),
    "elements": (
        lambda key, y: (
            _replaced(y, NULL, _draws(key), _draws(key))
            | {"vector": Known(jnp.where(_draws(key, 0.1, (2,)), 0, y["vector"].value), y["vector"].is_known)}
        ),
        ("the elements at ['vector'] are dropped one by one, and should be dropped together",),
    ),
    "dropout": (
        _vector(lambda coin, own: Known(jnp.where(coin, 0, own.value / 0.9), ~coin)),
        ("what is kept at ['vector'] is 1.11 times y, as by dropout that scales what it keeps",),
    ),
    "noise": (
        _vector(lambda coin, own: Known(own.value + 1e-3, own.is_known)),
        ("no known cause fits; what comes out at ['vector'] is neither y's nor the null's",),
    ),
    "inverted": (
        lambda key, y: _replaced(y, NULL, ~_draws(key), ~_draws(key)),
        ("the Bernoulli draw is inverted: a condition is kept with probability eta",),
    ),
    "never": (lambda key, y: y, ("nothing is dropped, or the key is not used",)),
    "always": (lambda key, y: NULL, ("all conditions are dropped, or the key is not used",)),
    "fixed key": (
        lambda key, y: _library()(jax.random.key(0), y),
        ("nothing is dropped, or the key is not used",),
    ),
    "twice the rate": (_library(0.2), ("no known cause fits; it drops 0.2",)),
    "5 % more": (_library(0.105), ("no known cause fits; it drops 0.105",)),
    "depends on y": (
        lambda key, y: _library(jnp.where(y["label"] == 1, 0.15, 0.1))(key, y),
        ("the rate depends on y",),
    ),
    "separately": (
        _own(0.1, 0.1),
        ("['label'] and ['vector'] are dropped separately, and should be dropped together",),
    ),
    "vector never": (
        lambda key, y: _replaced(y, NULL, _draws(key), False),
        ("['vector'] is never dropped, and should be together with ['label']",),
    ),
    "raises": (lambda key, y: 1 / 0, ("raised ZeroDivisionError: division by zero",)),
    "shape": (
        lambda key, y: y | {"label": y["label"][None]},
        ("gives the shape (1,) at ['label'], where y has ()",),
    ),
    "type": (
        lambda key, y: y | {"label": 1.0 * y["label"]},
        ("gives float32 at ['label'], where y has int32",),
    ),
    "structure": (
        lambda key, y: {"label": y["label"]},
        ("gives the structure {'label': ()}, where y has {'label': (), 'vector': Known(value=(2,), is_known=())}",),
    ),
    "nothing": (
        lambda key, y: None,
        ("gives the structure None, where y has {'label': (), 'vector': Known(value=(2,), is_known=())}",),
    ),
}


@pytest.mark.parametrize(
    ("drop", "causes"), _cases(WRONG_DROPS, "another null", "label K - 1", "twice the rate", "noise")
)
def test_mistakes_in_dropping_together_are_named(drop, causes):
    assert _causes(verify.dropping(drop, NULL, 0.1, _draw)) == causes


SHARED = "['label'] and ['vector'] are dropped by a shared draw, and should have one each"
INDEPENDENT = "['label'] and ['vector'] are dropped independently, and should have a draw of rate_of_all together"
WRONG_TREES = {
    "one number for both": (_shared, 0.0, (SHARED,)),
    "no rate_of_all": (
        _library(RATES),
        OF_ALL,
        ("rate_of_all is not used: it drops 0.1", "rate_of_all is not used: it drops 0.2", INDEPENDENT),
    ),
    "independent": (_own(1 - 0.9 * 0.95, 1 - 0.8 * 0.95), OF_ALL, (INDEPENDENT,)),
    "rate_of_all alone": (
        _library(OF_ALL),
        OF_ALL,
        ("its own rate is not used, and rate_of_all alone: it drops 0.05", SHARED),
    ),
    "rates swapped": (
        _library({"label": 0.2, "vector": 0.1}),
        0.0,
        ("it is dropped at the rate of ['vector']", "it is dropped at the rate of ['label']"),
    ),
    "one rate wrong": (
        _library({"label": 0.1, "vector": 0.3}),
        0.0,
        ("no known cause fits; it drops 0.301", "the rate of ['vector'] is wrong"),
    ),
    "apart at times": (
        lambda key, y: _replaced(y, NULL, *_exclusive(key)),
        0.0,
        ("no known cause fits; both are dropped at 0",),
    ),
    "zeros for the null": (_library(RATES, NULL | {"vector": ZEROS}, OF_ALL), OF_ALL, (ZERO_BESIDE,)),
}


def _exclusive(key):
    """Draws of 0.1 and 0.2, of which never both are 1."""
    number = jax.random.uniform(key)
    return number < 0.1, number > 0.8


@pytest.mark.parametrize(("drop", "rate_of_all", "causes"), _cases(WRONG_TREES, "one rate wrong", "rate_of_all alone"))
def test_mistakes_in_dropping_apart_are_named(drop, rate_of_all, causes):
    assert _causes(verify.dropping(drop, NULL, RATES, _draw, rate_of_all)) == causes


def test_a_condition_that_should_never_be_dropped_is_named():
    report = verify.dropping(_own(0.1, 0.02), NULL, {"label": 0.1, "vector": 0.0}, _draw)
    assert _causes(report) == ("it is dropped at the rate 0.0199, and should never be",)


WRONG_BATCHES = {
    "one draw": (lambda key, y: jax.vmap(lambda y: _library()(key, y))(y), "one Bernoulli draw for a batch"),
    "fixed key": (lambda key, y: _batched()(jax.random.key(0), y), "the key is not used"),
    "the one-example rule": (
        _library(),
        "raised ValueError: null['label'] must have the shape that y has there, (16384,), got ()",
    ),
    "zeros for the null": (_batched(_library(0.1, NULL | {"vector": ZEROS})), ZERO_BESIDE),
}


@pytest.mark.parametrize(("drop", "cause"), WRONG_BATCHES.values(), ids=list(WRONG_BATCHES))
def test_mistakes_in_dropping_of_batches_are_named(drop, cause):
    assert _causes(verify.dropping(drop, NULL, 0.1, _draw, is_batched=True)) == (cause,)


def test_negative_zeros_are_zeros():
    """What is multiplied by 0 for a null of zeros."""
    verify.dropping(
        lambda key, y: y * (1 - _draws(key)), jnp.zeros(2), 0.1, lambda key: jax.random.normal(key, (2,))
    ).require()


REFUSED = {
    "rate": ({"rate": 0.001}, "rate must drop something, and nothing under 0.01 or over 0.99, got 0.001"),
    "no rate": ({"rate": {"label": 0.0, "vector": 0.0}}, "rate must drop something"),
    "rate over 1": ({"rate": {"label": 0.1, "vector": 1.5}}, r"rate\['vector'\] must be in \[0, 0.99\], got 1.5"),
    "rates of another tree": (
        {"rate": {"label": 0.1}},
        "rate must be one number, or a tree of them that y's begins with",
    ),
    "null of another tree": ({"null": {"label": 3}}, "null must have the structure of y"),
    "null alone": ({"draw": lambda key: NULL}, "draw must mostly give what is not the null, got the null at y"),
    "conditions of two shapes": (
        {"draw": lambda key: jnp.ones(2 + int(jax.random.bernoulli(key)))},
        "draw's y must have the shape that the first has there",
    ),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=list(REFUSED))
def test_a_problem_that_makes_no_sense_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        verify.dropping(**{"drop": _library(), "null": NULL, "rate": 0.1, "draw": _draw} | given)


# What is allowed


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("count", [draws.LOOPED, draws.CALLS * draws.DRAWS])
def test_a_right_share_is_allowed(rate, count):
    """(V22): the exact binomial tails beyond what is allowed, which is six standard errors and 11 draws at most."""
    allowed, law = count * draws.share_allowed(count, rate), stats.binom(count, rate)
    mean = count * rate
    assert law.sf(mean + allowed) + law.cdf(mean - allowed) <= 2 * np.exp(-16)
    assert allowed <= 6 * law.std() + 11


def test_a_right_rate_is_allowed():
    """(V9) and (V10): the tails of five standard errors, and of a chi-square."""
    count = draws.CALLS * draws.DRAWS
    for rate in (0.01, 0.1, 0.5):
        law, mean = stats.binom(count, rate), count * rate
        assert law.sf(mean + 5 * law.std()) + law.cdf(mean - 5 * law.std()) < 1e-6
    assert stats.chi2(draws.CALLS - 1).sf(2.2 * (draws.CALLS - 1)) < 1e-6


@pytest.mark.parametrize("rate", [0.01, 0.1])
@pytest.mark.parametrize("size", [64, 256])
def test_scatters_of_few_draws_are_allowed(rate, size):
    """(V10), (V11) where they are widest: the extreme of 500 reports is far inside."""
    rng = np.random.default_rng(0)
    found = [draws.statistics((rng.random((draws.CALLS, size)) < rate).astype(float), rate) for _ in range(500)]
    assert max(each.by_call for each in found) < 2.2
    assert max(each.by_place for each in found) < draws.places_allowed(size)
