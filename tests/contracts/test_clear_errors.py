"""What is wrong is said as a person would: ranges in words, and a field that wants a label or has one already."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, guidance, losses, mixtures, paths, solvers
from cfgjax.analysis import likelihood
from cfgjax.checks import BELOW_ONE, HUGE, TINY, output_like_x, require_between, require_count, require_label

PATH, NULL, Y = paths.linear(), 3, 1
LABELLED = mixtures.ring(NULL).vector_field(PATH)
FIXED = guidance.given(LABELLED, Y)
X, T, TS, KEY = jnp.ones(2), jnp.float32(0.5), np.linspace(0, 1, 3), jax.random.key(0)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, math.inf, "at least 0"),
        (0, HUGE, "at least 0 and finite"),
        (TINY, math.inf, "above 0"),
        (TINY, HUGE, "above 0 and finite"),
        (TINY, 1, "above 0 and at most 1"),
        (TINY, BELOW_ONE, "above 0 and under 1"),
        (0, BELOW_ONE, "at least 0 and under 1"),
        (-BELOW_ONE, BELOW_ONE, "above -1 and under 1"),
        (0, 1, "in [0, 1]"),
        (0.01, 0.99, "in [0.01, 0.99]"),
        (0, 2**31 - 1, "in [0, 2147483647]"),
    ],
)
def test_a_range_is_told_in_words(low, high, words):
    with pytest.raises(ValueError) as error:
        require_between("value", math.nan, low, high)
    assert str(error.value) == f"value must be {words}, got nan"


def test_labels_and_counts_are_told_in_words():
    with pytest.raises(ValueError, match=r"^null must be at least 0, got -1$"):
        guidance.classifier_free(LABELLED, 2.0, -1)
    with pytest.raises(ValueError, match=r"^y must be in \[0, 3\], got 4$"):
        require_label("y", 4, 3)
    with pytest.raises(ValueError, match=r"^seed must be in 0\.\.2147483647, got -1$"):
        require_count("seed", -1, 0, 2**31 - 1)
    with pytest.raises(ValueError, match=r"^n must be at least 1, got 0$"):
        require_count("n", 0, 1)


def _solve(build):
    return lambda field: solvers.integrate(build(field), KEY, X, TS)


def _loss(field):
    return losses.flow_matching(PATH, field, KEY, X)


FIXED_WANTED = {
    "euler": _solve(solvers.euler),
    "heun": _solve(solvers.heun),
    "rk4": _solve(solvers.rk4),
    "adams_bashforth": _solve(solvers.adams_bashforth),
    "ddim": _solve(lambda field: solvers.ddim(PATH, field)),
    "unipc": _solve(lambda field: solvers.unipc(PATH, field)),
    "euler_maruyama": _solve(lambda field: solvers.euler_maruyama(PATH, field, solvers.root_beta(PATH))),
    "implicit_euler": _solve(lambda field: solvers.implicit_euler(field, 2)),
    "reversible": _solve(lambda field: solvers.reversible(solvers.euler, field)),
    "an interval's": _solve(solvers.euler),
    "an interval's as one field": lambda field: output_like_x("field", field)(X, T),
    "score_of": lambda field: conversions.score_of(PATH, field)(X, T),
    "change_path": lambda field: conversions.change_path(PATH, paths.cosine(), field)(X, T),
    "clipped": lambda field: guidance.static_threshold(PATH, field)(X, T),
    "exact": lambda field: likelihood.exact_divergence(field)(X, T),
    "a loss": _loss,
    "classifier": lambda field: guidance.classifier(PATH, field, lambda x, t: x, 2.0)(X, T, Y),
}
LABELLED_WANTED = {
    "given": lambda field: guidance.given(field, Y)(X, T),
    "classifier_free": lambda field: guidance.classifier_free(field, 2.0, NULL)(X, T, Y),
    "autoguidance": lambda field: guidance.autoguidance(field, LABELLED, 2.0)(X, T, Y),
    "weighted": lambda field: guidance.compose(field, [0, 1], [0.5, 0.5])(X, T),
    "clipped": lambda field: guidance.static_threshold(PATH, field)(X, T, Y),
    "noise_of": lambda field: conversions.noise_of(PATH, field)(X, T, Y),
    "a loss": lambda field: losses.flow_matching(PATH, field, KEY, X, Y),
    "evaluations": lambda field: solvers.num_function_evaluations(
        lambda one: solvers.euler(guidance.given(one, Y)), field, X, TS
    ),
}


@pytest.mark.parametrize("name", list(FIXED_WANTED))
def test_a_forgotten_label_is_told_with_what_gives_it(name):
    scale = guidance.interval(2.0, 0.25, 0.75) if name.startswith("an interval's") else 2.0
    field = guidance.classifier_free(LABELLED, scale, NULL)
    with pytest.raises(TypeError) as error:
        FIXED_WANTED[name](field)
    expected = (
        r"must be a function of (x, t), got one of (x, t, y), which wants a label: guidance.given(field, y) fixes it"
    )
    assert str(error.value).endswith(expected)
    assert str(error.value).partition(" ")[0] in {"field", "null_field"}


@pytest.mark.parametrize("name", list(LABELLED_WANTED))
def test_a_label_too_many_is_told(name):
    with pytest.raises(TypeError) as error:
        LABELLED_WANTED[name](FIXED)
    expected = "field must be a function of (x, t, y), got one of (x, t), whose label is fixed already"
    assert str(error.value) == expected


def test_what_takes_neither_is_told_and_a_field_s_own_error_is_its_own():
    with pytest.raises(TypeError, match=r"field must be a function of \(x, t\), got one of \(x\)"):
        _solve(solvers.euler)(lambda x: x)

    def broken(x, t):
        return x + len(t)

    with pytest.raises(TypeError, match="len"):
        _solve(solvers.euler)(broken)
    for field in (lambda x, *rest: x, lambda x, t, y=0: x, jax.jit(lambda x, t: x), jnp.subtract):
        assert np.all(np.isfinite(_solve(solvers.euler)(field)))


def test_the_part_before_the_one_that_is_wanted_is_told():
    with pytest.raises(TypeError, match=r"path must be a GaussianPath, .* got the function linear: call it"):
        conversions.score_of(paths.linear, FIXED)
    pair = guidance.pair(LABELLED, NULL)
    with pytest.raises(TypeError, match=r"field must be a function, got Pair, of which guidance\.extrapolate"):
        solvers.euler(pair)
    remembers = guidance.adaptive_projected(PATH, pair, 2.0, Y)
    with pytest.raises(
        TypeError, match=r"field must be a function, got StatefulField, which solvers\.with_field_state"
    ):
        solvers.heun(remembers)
    with pytest.raises(ValueError, match=r"pair must be a Pair, .* got function"):
        guidance.extrapolate(LABELLED, 2.0)
