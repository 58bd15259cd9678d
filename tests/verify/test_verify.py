"""Verification: the library's own pieces pass for every seed, and each planted mistake is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, losses, mixtures, paths, verify
from cfgjax.guidance import drop_condition
from cfgjax.verify.reference import lopsided_mixture, skewed_mixture

SEEDS = range(5)
PATH, NULL = paths.cosine(), 3
MIXTURE = skewed_mixture()
FIELD = MIXTURE.vector_field(PATH)
SCORE = MIXTURE.score(PATH)


def _report_on_field(field, view="field", **settings):
    return verify.field(field, PATH, MIXTURE, view=view, **settings)


def _causes(report):
    assert not report.passed
    return " | ".join(report.causes)


# Fields


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_fields_pass(seed):
    """Every view of the oracle, and a field found by conversion."""
    views = {"field": FIELD, "score": SCORE, "noise": MIXTURE.noise(PATH), "denoiser": MIXTURE.denoiser(PATH)}
    name = list(views)[seed % 4]
    _report_on_field(views[name], name, seed=seed).require()
    _report_on_field(conversions.field_of_score(PATH, SCORE), seed=seed).require()


def test_converted_fields_pass_on_the_steepest_path(plain_or_steep_path):
    """Rounding that is divided by alpha is no false alarm."""
    path = plain_or_steep_path
    score = conversions.score_of(path, MIXTURE.vector_field(path))
    verify.field(conversions.field_of_score(path, score), path, MIXTURE).require()
    verify.field(score, path, MIXTURE, view="score").require()


def test_a_field_that_cannot_be_traced_passes():
    """NumPy inside: called in a loop."""
    compiled = jax.jit(FIELD)
    _report_on_field(lambda x, t, y: np.asarray(compiled(x, t, y)) + 0 * float(t)).require()


def _plus_null(rows):
    """The field with another row for the null label."""
    return lambda x, t, y: jnp.where(y == NULL, rows(x, t, y), FIELD(x, t, y))


def _slope(t):
    return jax.jvp(PATH.alpha, (t,), (jnp.ones_like(t),))[1] / PATH.alpha(t)


WRONG_FIELDS = {
    "wrong sign": (lambda x, t, y: -FIELD(x, t, y), "the sign is wrong"),
    "swapped time": (lambda x, t, y: FIELD(x, 1 - t, y), "time runs backwards: it is the value at 1 - t"),
    "time of diffusion": (lambda x, t, y: -FIELD(x, 1 - t, y), "time runs backwards, and the sign is turned"),
    "the score itself": (SCORE, "it is the score s"),
    "half": (lambda x, t, y: FIELD(x, t, y) / 2, "a factor 0.5 too many"),
    "times beta": (lambda x, t, y: FIELD(x, t, y) * PATH.beta(t), "a factor beta too many"),
    "straight path": (
        lambda x, t, y: MIXTURE.denoiser(PATH)(x, t, y) - MIXTURE.noise(PATH)(x, t, y),
        "it is D - E, the straight path's field",
    ),
    "sign of the score": (lambda x, t, y: 2 * _slope(t) * x - FIELD(x, t, y), "the score's sign in u"),
    "labels ignored": (lambda x, t, y: FIELD(x, t, jnp.full_like(y, NULL)), "labels are ignored"),
    "null row K - 1": (_plus_null(lambda x, t, y: FIELD(x, t, y - 1)), "the row of label 2 for that of 3"),
    "null row 0": (_plus_null(lambda x, t, y: FIELD(x, t, 0 * y)), "the row of label 0 for that of 3"),
    "null row zero": (_plus_null(lambda x, t, y: 0 * x), "the null label gives zero"),
    "null row average": (
        _plus_null(lambda x, t, y: sum(w * FIELD(x, t, jnp.asarray(i)) for i, w in enumerate((0.5, 0.2, 0.3)))),
        "the labels' average",
    ),
    "0/0 at the start": (lambda x, t, y: FIELD(x, t, y) * PATH.alpha(t) / PATH.alpha(t), "divided by alpha"),
}


@pytest.mark.parametrize(("field", "words"), WRONG_FIELDS.values(), ids=list(WRONG_FIELDS))
def test_mistakes_in_fields_are_named(field, words):
    assert words in _causes(_report_on_field(field))


def _turned_score(x, t, y):
    """The score of the field with the field's sign turned."""
    c = paths.coefficients(PATH, t)
    return -(c.alpha * FIELD(x, t, y) + c.alpha_dot * x) / (c.beta * c.wronskian)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (_turned_score, "the field's sign in s = (alpha u - alpha' x) / (beta W) is wrong"),
        (lambda x, t, y: -MIXTURE.noise(PATH)(x, t, y), "the score times beta: 1/beta is missing"),
        (lambda x, t, y: SCORE(x, t, y) / PATH.beta(t), "a factor 1/beta too many"),
        (lambda x, t, y: MIXTURE.noise(PATH)(x, t, y) / PATH.beta(t), "the sign is wrong"),
    ],
    ids=["sign of the field", "-E", "-E/beta^2", "E/beta"],
)
def test_mistakes_in_scores_are_named(score, words):
    report = _report_on_field(score, "score")
    assert [words in cause for cause in report.causes] == [True]


def test_only_the_wrong_row_fails():
    """A wrong null row leaves the labels' check alone, and its size is that of the two rows' difference."""
    report = _report_on_field(WRONG_FIELDS["null row zero"][0])
    assert [check.is_passed for check in report.checks] == [True, False, True]
    np.testing.assert_allclose(report.checks[1].measured, 1.0)


def test_a_mistake_of_no_known_kind_gets_its_size_and_no_cause():
    report = _report_on_field(lambda x, t, y: FIELD(1.1 * x, 0.9 * t, y) - 0.3)
    assert report.causes == ("no known cause fits",)
    assert all(check.measured > 0.1 for check in report.checks[:2])


@pytest.mark.parametrize("time", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_field_that_is_5_percent_off_somewhere_fails(time):
    """In one fifth of t, for one label, in one coordinate."""

    def off(x, t, y):
        is_there = (jnp.abs(t - time) <= 0.1) & (y == 1)
        return FIELD(x, t, y) * (1 + 0.05 * is_there * jnp.array([0.0, 1.0]))

    report = _report_on_field(off)
    assert report.checks[0].measured > 2 * report.checks[0].allowed


def test_an_error_in_one_of_many_coordinates_is_seen():
    """5 % of one of 120 coordinates are under 0.5 % of all, and 5 % of its own."""
    numbers = np.random.default_rng(0).normal(size=(2, 120))
    mixture = mixtures.LabelledMixture(jnp.ones(2), jnp.asarray(numbers), jnp.stack([jnp.eye(120)] * 2))
    exact = mixture.vector_field(PATH)
    off = lambda x, t, y: exact(x, t, y).at[7].multiply(1.05)  # noqa: E731
    verify.field(exact, PATH, mixture, tolerance=5e-3).require()
    assert not verify.field(off, PATH, mixture, tolerance=5e-3).passed


def test_a_learned_field_passes_with_its_tolerance():
    learned = lambda x, t, y: FIELD(x, t, y) * (1 + 0.02 * jnp.sin(3 * x))  # noqa: E731
    assert _causes(_report_on_field(learned)) == "no known cause fits"
    assert _report_on_field(learned, tolerance=0.05).passed


# What cannot be called


def _needs_batch(x, t, y):
    return jax.vmap(FIELD)(x, t, y)


BROKEN = {
    "raises": (lambda x, t, y: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "None": (lambda x, t, y: None, "gives NoneType, not an array"),
    "shape": (lambda x, t, y: jnp.append(x, t), "gives the shape (3,) for ONE example of shape (2,)"),
    "leading axis": (lambda x, t, y: FIELD(x, t, y)[None], "is it written for a batch?"),
    "batch": (_needs_batch, "it takes a batch, and is to be written for ONE example"),
    "NaN": (lambda x, t, y: jnp.where(t > 0.9, jnp.nan, FIELD(x, t, y)), "gives NaN or inf for 16 of 304 examples"),
    "arguments": (lambda x, t: x, "raised TypeError"),
}


@pytest.mark.parametrize(("field", "words"), BROKEN.values(), ids=list(BROKEN))
def test_a_field_that_cannot_be_called_gets_one_row(field, words):
    report = _report_on_field(field)
    assert len(report.checks) == 1
    assert words in _causes(report)


# Guidance rules


def _rule(combined):
    """A rule as users write it: two calls, and a combination (null, labelled, w)."""

    def rule(field, scale, null_label):
        return lambda x, t, y: combined(field(x, t, jnp.asarray(null_label)), field(x, t, y), scale)

    return rule


@pytest.mark.parametrize("seed", SEEDS)
def test_the_librarys_guidance_passes(seed):
    verify.guidance(guidance.classifier_free, seed=seed).require()


@pytest.mark.parametrize(
    "rule",
    [
        _rule(lambda null, labelled, w: (1 - w) * null + w * labelled),
        lambda field, scale, null: guidance.extrapolate(guidance.pair(field, null), scale),
        lambda field, scale, null: conversions.field_of_score(
            PATH, guidance.classifier_free(conversions.score_of(PATH, field), scale, null)
        ),
        _rule(lambda null, labelled, w: null + float(w) * (labelled - null)),
        _rule(lambda null, labelled, w: labelled if w == 1 else null + w * (labelled - null)),
    ],
    ids=["by hand", "pair", "in score space", "not traced", "branch at w = 1"],
)
def test_right_rules_pass(rule):
    verify.guidance(rule, PATH).require()


_FIRST = {}


def _combined(null, labelled, w):
    return null + w * (labelled - null)


WRONG_RULES = {
    "1 + w": (lambda null, labelled, w: (1 + w) * labelled - w * null, "looks like 1 + w"),
    "sign": (lambda null, labelled, w: null + w * (null - labelled), "the sign of the difference is wrong: u_null"),
    "sign at w = 1": (lambda null, labelled, w: labelled + (w - 1) * (null - labelled), "wrong: u_y"),
    "swapped": (lambda null, labelled, w: labelled + w * (null - labelled), "null and labelled are swapped"),
    "2 w": (lambda null, labelled, w: null + 2 * w * (labelled - null), "2 w is used for w"),
    "int(w)": (lambda null, labelled, w: null + int(w) * (labelled - null), "w is cut to an int"),
    "integer array": (lambda null, labelled, w: null + jnp.asarray(w, jnp.int32) * (labelled - null), "w is cut"),
    "rounded": (lambda null, labelled, w: null + jnp.round(w) * (labelled - null), "w is rounded to an int"),
    "ignored": (lambda null, labelled, w: labelled, "w is ignored: it is the labelled field"),
    "w <= 1": (lambda null, labelled, w: null + w * (labelled - null) if w > 1 else labelled, "for w <= 1"),
    "not w": (lambda null, labelled, w: null + w * (labelled - null) if w else labelled, "field for w = 0"),
    "clipped": (lambda null, labelled, w: null + jnp.minimum(w, 1) * (labelled - null), "w is clipped"),
    "no base": (lambda null, labelled, w: w * (labelled - null), "the null field is missing"),
    "no known kind": (lambda null, labelled, w: null + w * (labelled - null) + 0.1 * null**2, "no known cause fits"),
    "twice": (
        lambda null, labelled, w: null + w * (_combined(null, labelled, w) - null),
        "guidance is applied twice: w^2",
    ),
    "twice from the labelled": (
        lambda null, labelled, w: labelled + w * (_combined(null, labelled, w) - null),
        "1 + w^2",
    ),
    "1 + w twice": (lambda null, labelled, w: _combined(null, _combined(null, labelled, 1 + w), 1 + w), "(1 + w)^2"),
    "average": (lambda null, labelled, w: (labelled + _combined(null, labelled, w)) / 2, "(1 + w) / 2 is used"),
    "sqrt": (lambda null, labelled, w: _combined(null, labelled, jnp.sqrt(w)), "sqrt(w) is used for w"),
    "w - 1": (lambda null, labelled, w: _combined(null, labelled, w - 1), "looks like w - 1"),
    "w / 2": (lambda null, labelled, w: _combined(null, labelled, w / 2), "w / 2 is used for w"),
    "MeanFlow's kappa": (
        lambda null, labelled, w: _combined(null, labelled, w / (1 - 0.3)),
        "a factor 1.429 of w too many; w / (1 - kappa) has kappa = 0.3",
    ),
    "5 % too much": (lambda null, labelled, w: _combined(null, labelled, 1.05 * w), "a factor 1.05 of w too many"),
    "5 % too little": (lambda null, labelled, w: _combined(null, labelled, 0.95 * w), "a factor 0.95 of w too many"),
    "w^1.5": (
        lambda null, labelled, w: _combined(null, labelled, w**1.5),
        "another scale acts: 0 for w = 0, 1 for w = 1",
    ),
    "null of w <= 1": (
        lambda null, labelled, w: _combined(null, labelled, w) if w > 1 else null,
        "the null field for w",
    ),
    "first coordinate": (
        lambda null, labelled, w: labelled.at[:1].set(_combined(null, labelled, w)[:1]),
        "guidance acts on the first 1 of 2 coordinates alone, the rest is the labelled field",
    ),
    "first coordinate, rest null": (
        lambda null, labelled, w: null.at[:1].set(_combined(null, labelled, w)[:1]),
        "guidance acts on the first 1 of 2 coordinates alone, the rest is the null field",
    ),
    "first scale": (lambda null, labelled, w: _combined(null, labelled, _FIRST.setdefault("w", float(w))), "one scale"),
}


@pytest.mark.parametrize(("combined", "words"), WRONG_RULES.values(), ids=list(WRONG_RULES))
def test_mistakes_in_rules_are_named(combined, words):
    report = verify.guidance(_rule(combined))
    assert [words in cause for cause in report.causes] == [True]


@pytest.mark.parametrize(("shift", "row"), [(-1, 2), (-3, 0)])
def test_a_wrong_null_row_in_a_rule_is_named(shift, row):
    report = verify.guidance(lambda field, scale, null: guidance.classifier_free(field, scale, null + shift))
    assert report.causes == (f"the null label's row is that of label {row}, not of 3",)


def test_a_rule_that_refuses_a_scale_gets_a_row_that_names_it():
    def refuses(field, scale, null_label):
        if scale < 1:
            raise ValueError("scale must be at least 1")
        return guidance.classifier_free(field, scale, null_label)

    assert _causes(verify.guidance(refuses)) == "at 0.3: raised ValueError: scale must be at least 1"


# Rules that differ on purpose


def _of_pair(changed):
    """A rule of the library on pairs, with its setting."""
    return lambda field, scale, null: guidance.extrapolate(changed(guidance.pair(field, null)), scale)


def _after(changed):
    """A rule of the library on guided fields, with its setting."""
    return lambda field, scale, null: changed(guidance.classifier_free(field, scale, null))


def _rescaled(amount):
    return lambda field, scale, null: guidance.rescaled(guidance.pair(field, null), scale, amount)


def _interval(start, stop):
    """Guidance between two times, the labelled field at others."""

    def rule(field, scale, null):
        guided = guidance.classifier_free(field, scale, null)
        return lambda x, t, y: jnp.where((t >= start) & (t < stop), guided(x, t, y), field(x, t, y))

    return rule


VARIANTS = {
    "projected": (
        _of_pair(lambda pair: guidance.projected(PATH, pair, 0.0, 0.5)),
        (1.0, _of_pair(lambda pair: guidance.projected(PATH, pair, 1.0, jnp.inf))),
    ),
    "cfg_zero_star": (_of_pair(guidance.cfg_zero_star), 1.0),
    "tangential_damping": (_of_pair(lambda pair: guidance.tangential_damping(PATH, pair)), 1),
    "magnitude_aware": (
        _of_pair(lambda pair: guidance.magnitude_aware(pair, 0.5)),
        (1.0, _of_pair(lambda pair: guidance.magnitude_aware(pair, 0.0))),
    ),
    "rescaled": (_rescaled(0.7), (1.0, _rescaled(0.0))),
    "static_threshold": (
        _after(lambda field: guidance.static_threshold(PATH, field, 0.8)),
        _after(lambda field: guidance.static_threshold(PATH, field, jnp.inf)),
    ),
    "dynamic_threshold": (
        _after(lambda field: guidance.dynamic_threshold(PATH, field, 90.0, 0.8)),
        _after(lambda field: guidance.dynamic_threshold(PATH, field, 100.0, 1e4)),
    ),
    "zero_init": (
        _after(lambda field: guidance.zero_init(field, 0.3)),
        _after(lambda field: guidance.zero_init(field, 0.0)),
    ),
    "interval of one's own": (_interval(0.3, 0.7), (1.0, _interval(0.0, 1.0))),
    "a rule of one's own": (
        _rule(lambda null, labelled, w: labelled + jnp.tanh(w - 1) * (labelled - null)),
        1.0,
    ),
    "neutral at w = 0, in papers that write 1 + w": (
        _rule(lambda null, labelled, w: labelled + jnp.tanh(w) * (labelled - null)),
        np.float32(0),
    ),
}


@pytest.mark.parametrize(("rule", "neutral"), VARIANTS.values(), ids=list(VARIANTS))
def test_rules_that_differ_on_purpose_pass(rule, neutral):
    assert not verify.guidance(rule, PATH).passed
    verify.rule(rule, neutral, PATH).require()


_TANH = _rule(lambda null, labelled, w: labelled + jnp.tanh(w - 1) * (labelled - null))
WRONG_VARIANTS = {
    "labelled side changed": (
        _rule(lambda null, labelled, w: 1.05 * labelled + jnp.tanh(w - 1) * (labelled - null)),
        1.0,
        "a factor 1.05 too many",
    ),
    "another neutral scale": (_TANH, 0.0, "it is plain guidance at w = 0.238"),
    "null at w = 1": (
        _rule(lambda null, labelled, w: null + jnp.tanh(w - 1) * (labelled - null)),
        1.0,
        "the null field",
    ),
    "setting that is not neutral": (_rescaled(0.7), _rescaled(0.01), "neutral setting, w = 0"),
    "1 + w in the neutral setting": (
        _TANH,
        _rule(lambda null, labelled, w: labelled + w * (labelled - null)),
        "looks like 1 + w",
    ),
    "a jump at w = 1": (
        _rule(lambda null, labelled, w: jnp.where(w == 1, labelled, null + w * jnp.tanh(labelled - null))),
        1.0,
        "a jump at w = 1: the rule there is not the one at w = 0.999 or 1.001",
    ),
    "does nothing": (guidance.classifier_free, 1.0, "it is plain guidance at every state"),
    "0/0 at the start": (
        lambda field, scale, null: lambda x, t, y: PATH.alpha(t) * _TANH(field, scale, null)(x, t, y) / PATH.alpha(t),
        1.0,
        "divided by alpha",
    ),
    "raises": (lambda field, scale, null: field + None, 1.0, "raised TypeError"),
}


@pytest.mark.parametrize(("rule", "neutral", "words"), WRONG_VARIANTS.values(), ids=list(WRONG_VARIANTS))
def test_mistakes_in_rules_that_differ_are_named(rule, neutral, words):
    report = verify.rule(rule, neutral, PATH)
    assert not report.passed
    assert words in str(report)


# Label dropping


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_right_label_dropping_passes(seed, rate):
    verify.label_dropping(lambda key, y: drop_condition(key, y, rate, NULL), rate, NULL, seed=seed).require()
    verify.label_dropping(
        lambda key, y: jnp.where(jax.random.bernoulli(key, rate, y.shape), NULL, y), rate, NULL, True, seed
    ).require()


def test_label_dropping_in_numpy_passes():
    def drop(key, y):
        draws = np.random.default_rng(np.asarray(jax.random.key_data(key))).random(y.shape)
        return np.where(draws < 0.1, NULL, np.asarray(y))

    verify.label_dropping(drop, 0.1, NULL, is_batched=True).require()


def _draws(key, shape=()):
    return jax.random.bernoulli(key, 0.1, shape)


WRONG_DROPS = {
    "one draw per batch": (lambda key, y: jnp.where(_draws(key), NULL, y), True, "one Bernoulli draw for a batch"),
    "the one-example rule on a batch": (
        lambda key, y: drop_condition(key, y, 0.1, NULL),
        True,
        "y must be one number for one example",
    ),
    "same draws": (lambda key, y: jnp.where(_draws(jax.random.key(0), y.shape), NULL, y), True, "the key is not used"),
    "fixed key": (lambda key, y: jnp.where(_draws(jax.random.key(0)), NULL, y), False, "the key is not used"),
    "row K - 1": (
        lambda key, y: drop_condition(key, y, 0.1, NULL - 1),
        False,
        "becomes 2, and the null label is",
    ),
    "row 0": (lambda key, y: y * (1 - _draws(key)), False, "a dropped label becomes 0, and the null label is K = 3"),
    "turned": (lambda key, y: jnp.where(_draws(key), y, NULL), False, "the Bernoulli draw is inverted"),
    "never": (lambda key, y: y, False, "nothing is dropped"),
    "twice the rate": (
        lambda key, y: drop_condition(key, y, 0.2, NULL),
        False,
        "no known cause fits; it drops",
    ),
    "5 % more": (
        lambda key, y: drop_condition(key, y, 0.105, NULL),
        False,
        "no known cause fits; it drops 0.105",
    ),
    "5 % more of one label": (
        lambda key, y: drop_condition(key, y, jnp.where(y == 1, 0.105, 0.1), NULL),
        False,
        "the rate depends on the label: that of label 1 is 0.105",
    ),
    "raises": (lambda key, y: y + None, False, "raised TypeError"),
}


@pytest.mark.parametrize(("drop", "is_batched", "words"), WRONG_DROPS.values(), ids=list(WRONG_DROPS))
def test_mistakes_in_label_dropping_are_named(drop, is_batched, words):
    assert words in _causes(verify.label_dropping(drop, 0.1, NULL, is_batched=is_batched))


@pytest.mark.parametrize("rate", [0.0, 1.0, np.nan])
def test_a_rate_without_coins_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be in"):
        verify.label_dropping(lambda key, y: y, rate, NULL)


# Losses


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))])
def test_the_librarys_losses_pass(seed):
    verify.loss(losses.flow_matching, seed=seed).require()
    verify.loss(losses.noise_matching, "noise", PATH, seed=seed).require()


@pytest.mark.slow
@pytest.mark.parametrize("path", [paths.cosine(), paths.variance_preserving()], ids=["cosine", "variance_preserving"])
def test_score_matching_passes(path):
    verify.loss(losses.score_matching, "score", path).require()


def _own_loss(
    target=lambda t, x, y, z, noise: z - noise,
    metric=lambda r: jnp.mean(r**2),
    time=lambda t: t,
    weight=lambda t, x, z, noise: 1.0,
    rate=0.0,
):
    """Flow matching on the straight path as users write it, with its parts to be spoiled; labels dropped at a rate."""

    def matching(path, field, key, z, y):
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        t, noise = jax.random.uniform(time_key), jax.random.normal(noise_key, z.shape)
        y = drop_condition(drop_key, y, rate, NULL) if rate else y
        x = t * z + (1 - t) * noise
        return weight(t, x, z, noise) * metric(field(x, time(t), y) - target(t, x, y, z, noise))

    return matching


def _through_jvp(path, field, key, z, y):
    """A loss that calls the field inside a transformation."""
    return losses.flow_matching(path, lambda x, t, y: jax.jvp(lambda x: field(x, t, y), (x,), (x,))[0], key, z, y)


RIGHT_LOSSES = {
    "labels dropped": _own_loss(rate=0.1),
    "a weight of t and x": _own_loss(weight=lambda t, x, z, noise: 1 + 5 * t**2 + jnp.sum(x**2)),
    "inside jvp": _through_jvp,
    "null and labelled at once": lambda path, field, key, z, y: (
        losses.flow_matching(path, field, key, z, y) + losses.flow_matching(path, field, key, z, jnp.asarray(NULL))
    ),
}


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(loss, id=name, marks=[] if name == "labels dropped" else [pytest.mark.slow])
        for name, loss in RIGHT_LOSSES.items()
    ],
)
def test_right_losses_of_ones_own_pass(loss):
    verify.loss(loss).require()


def _pseudo_huber(r):
    return jnp.sqrt(jnp.sum(r**2) + 0.01) - 0.1


def _robust(metric, rate=0.0):
    return _own_loss(metric=metric, rate=rate)


WRONG_LOSSES = {
    "sign": (_own_loss(lambda t, x, y, z, noise: noise - z), "it is least for minus the vector field u"),
    "noise's sign": (_own_loss(lambda t, x, y, z, noise: z + noise), "the noise's sign is wrong"),
    "noise": (losses.noise_matching, "it is least for the noise prediction E"),
    "swapped time": (_own_loss(time=lambda t: 1 - t), "time runs backwards"),
    "turned": (lambda *given: -losses.flow_matching(*given), "the sign is wrong: it is largest there"),
    "no label": (lambda *given: losses.flow_matching(*given[:-1], jnp.asarray(NULL)), "labels are not passed"),
    "labels shifted": (lambda *given: losses.flow_matching(*given[:-1], (given[-1] + 1) % NULL), "the label y - 1"),
    "no known kind": (_own_loss(lambda t, x, y, z, noise: z - 0.7 * noise), "no known cause fits; most for label"),
    "L1": (_robust(lambda r: jnp.mean(jnp.abs(r))), "it is least for a median of each coordinate, not the mean"),
    "norm": (_robust(lambda r: jnp.sqrt(jnp.sum(r**2))), "it is least for a geometric median, not the mean"),
    "pseudo-Huber": (_robust(_pseudo_huber), "pseudo-Huber of the norm, linear beyond c = 0.1"),
    "pseudo-Huber of coordinates": (
        _robust(lambda r: jnp.sum(jnp.sqrt(1 + (r / 0.3) ** 2))),
        "pseudo-Huber of each coordinate, linear beyond c = 0.3",
    ),
    "Huber": (
        _robust(lambda r: jnp.sum(jnp.where(jnp.abs(r) < 0.5, r**2, jnp.abs(r) - 0.25))),
        "between median and mean: Huber, linear beyond c = 0.5",
    ),
    "log-cosh": (_robust(lambda r: jnp.sum(jnp.log(jnp.cosh(r)))), "between median and mean: log-cosh of r / c, c = 1"),
    "quantile": (_robust(lambda r: jnp.sum(jnp.maximum(-0.7 * r, 0.3 * r))), "least for the quantile 0.7"),
    "fourth power": (_robust(lambda r: jnp.sum(r**4)), "its fourth power of the residual"),
    "adaptive weight": (
        _robust(lambda r: jnp.sum(r**2) / jax.lax.stop_gradient(jnp.sum(r**2) + 0.01)),
        "its weight depends on the residual: 1 / (|r|^2 + c^2), c = 0.1",
    ),
    "a weight of the noise": (
        _own_loss(weight=lambda t, x, z, noise: jnp.exp(-jnp.sum(noise**2) / 4)),
        "its weight depends on the noise",
    ),
    "a weight of z": (
        _own_loss(weight=lambda t, x, z, noise: 1 + jnp.abs(z[0])),
        "its weight depends on the data point z",
    ),
    "no number": (
        lambda path, field, key, z, y: field(z, 0.5, y),
        "gives the shape (2,) for ONE example, not a number",
    ),
    "not traced": (lambda path, field, key, z, y: float(field(z, 0.5, y)[0]), "cannot be traced by jax.jit"),
}
FAST_LOSSES = {"L1", "no number", "not traced"}


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        pytest.param(*values, id=name, marks=[] if name in FAST_LOSSES else [pytest.mark.slow])
        for name, values in WRONG_LOSSES.items()
    ],
)
def test_mistakes_in_losses_are_named(loss, words):
    assert words in _causes(verify.loss(loss))


def test_the_null_field_of_a_loss_that_drops_labels_is_checked_too():
    """On one Gaussian a label a geometric median is the mean; the null label's field of the ring is another."""
    report = verify.loss(_own_loss(metric=_pseudo_huber, rate=0.1), mixture=mixtures.ring(3))
    assert [check.is_passed for check in report.checks] == [True, False, True]
    assert "pseudo-Huber of the norm" in _causes(report)


def _five_percent_off(time, label):
    """A square whose target is 5 % of the field off, in one fifth of t and for one label."""
    field = lopsided_mixture().vector_field(paths.linear())

    def target(t, x, y, z, noise):
        return z - noise + 0.05 * ((jnp.abs(t - time) <= 0.1) & (y == label)) * field(x, t, y)

    return _own_loss(target, rate=0.1)


@pytest.mark.parametrize(
    ("time", "label"),
    [
        pytest.param(time, label, marks=[] if (time, label) == (0.3, NULL) else [pytest.mark.slow])
        for time in (0.1, 0.3, 0.5, 0.7, 0.9)
        for label in (0, 2, NULL)
    ],
)
def test_a_loss_that_is_5_percent_off_somewhere_fails(time, label):
    report = verify.loss(_five_percent_off(time, label))
    assert report.checks[int(label == NULL)].measured > 2 * report.checks[0].allowed


# Reports


def test_a_report_prints_a_table_and_can_be_required():
    """One line for each check, aligned, with its number, what is allowed and the cause."""
    checks = (verify.Check("first", True, 1e-6, 1e-3), verify.Check("the second", False, 2.0, 1e-3, "its cause"))
    report = verify.Report(checks, "verify.this")
    assert str(report).splitlines() == [
        "verify.this: 1 of 2 checks failed",
        "        check       measured  allowed  likely cause",
        "passed  first        1.0e-06    0.001",
        "FAILED  the second         2    0.001  its cause",
    ]
    with pytest.raises(verify.VerificationError, match="its cause"):
        report.require()
    assert str(verify.Report(checks, "verify.this", "all")).splitlines()[-1] == "A pass does not show all."
    assert verify.Report(checks[:1]).passed
    assert not verify.Report(()).passed


def test_a_report_is_the_same_each_time():
    rule = WRONG_RULES["1 + w"][0]
    assert verify.guidance(_rule(rule)) == verify.guidance(_rule(rule))
