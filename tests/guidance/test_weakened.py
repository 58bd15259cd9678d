"""A weakened self beside classifier-free guidance, and two sides of one evaluation: exact laws, costs, neutral bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from tests.support import normals

PATH, NULL, Y = paths.linear(), 3, 1
X, T, TS = jnp.array([0.4, -0.7]), jnp.float32(0.3), np.linspace(0, 1, 5)
LAWS = ((0.0, 2.0), (1.0, 1.0), (1.5, 0.6))


def _field(x, t, y):
    """An elementwise field: bitwise the same alone as under vmap."""
    return jnp.sin(3 * x + t) * (y + 1.0)


def _weak(x, t, y):
    return 0.8 * _field(x, t, y) + 0.1


def _both(x, t, y):
    return _weak(x, t, y), _field(x, t, y)


def _counted(rule, field=_field):
    build = lambda field: solvers.euler(guidance.given(rule(field), Y))  # noqa: E731
    return solvers.num_function_evaluations(build, field, X, TS).tolist()


def _guided(scale, weak_scale, field=_field):
    return guidance.weakened(guidance.pair(field, NULL), lambda *point: 0.8 * field(*point) + 0.1, scale, weak_scale)


@pytest.mark.usefixtures("x64")
def test_the_weighted_law_of_three_gaussians(exact_path):
    """Variance prod V_i^w_i on every path, with the weights 1 - w, w + v - 1, 1 - v of null, label and weak law."""
    w, v = 2.5, 1.7
    weights = (1 - w, w + v - 1, 1 - v)
    weak = lambda x, t, y: normals.normal(exact_path, *LAWS[2])(x, t)  # noqa: E731
    guided = guidance.weakened(normals.pair(exact_path, LAWS), weak, w, v)
    mean, variance = normals.end_of(solvers.rk4(guidance.given(guided, normals.LABEL)), 200)
    expected = np.prod([law[1] ** weight for law, weight in zip(LAWS, weights, strict=True)])
    np.testing.assert_allclose(variance, expected, rtol=1e-4)
    np.testing.assert_allclose(mean, normals.moments(lambda t: weights, LAWS)[0], rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_guidance_by_a_weak_self_alone(plain_or_steep_path):
    """w = 1: variance s^(2 v) V_weak^(1 - v), so v is 1 + s of the papers' s; the weak side is at y."""
    weak = lambda x, t, y: normals.normal(plain_or_steep_path, 0.5 * y, 1.5)(x, t)  # noqa: E731
    guided = guidance.weakened(normals.pair(plain_or_steep_path), weak, 1, guidance.from_zero_based_scale(1.4))
    mean, variance = normals.end_of(solvers.rk4(guidance.given(guided, normals.LABEL)), 200)
    np.testing.assert_allclose(variance, 1.5 ** (1 - 2.4), rtol=1e-4)
    np.testing.assert_allclose(mean, normals.moments(lambda t: (-1.4, 2.4), ((0.5, 1.5), (1.0, 1.0)))[0], rtol=1e-4)


@pytest.mark.parametrize("transform", [lambda call: call, jax.jit], ids=["eager", "jit"])
def test_neutral_settings_are_bitwise(transform):
    """v = 1 is classifier-free guidance, w = 1 autoguidance, both the labelled field: known or traced."""
    y = jnp.asarray(Y)
    free = transform(lambda w: guidance.classifier_free(_field, w, NULL)(X, T, y))
    auto = transform(lambda v: guidance.autoguidance(_field, _weak, v)(X, T, y))
    known = transform(lambda x: jnp.stack([_guided(1, 1)(x, T, y), _guided(2.5, 1.0)(x, T, y)]))(X)
    np.testing.assert_array_equal(known, jnp.stack([transform(lambda x: _field(x, T, y))(X), free(2.5)]))
    traced = transform(lambda w, v: _guided(w, v)(X, T, y))
    np.testing.assert_array_equal(traced(2.5, 1.0), free(2.5))
    np.testing.assert_array_equal(traced(1.0, 1.0), _guided(1, 1)(X, T, y))
    np.testing.assert_allclose(traced(1.0, 2.5), auto(2.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "weak_scale", "counts"),
    [
        (2.0, 2.0, [3] * 4),
        (1, 2.0, [2] * 4),
        (2.0, 1, [2] * 4),
        (1, 1, [1] * 4),
        (guidance.interval(2.0, 0.0, 0.5), guidance.interval(2.0, 0.25, 0.75), [2, 3, 2, 1]),
        (2.0, guidance.interval(2.0, 0.25, 0.5), [2, 3, 2, 2]),
        (lambda t: 2 * t, guidance.policy(lambda *point: 1.5), [3] * 4),
    ],
)
def test_a_known_one_leaves_its_evaluation_out(scale, weak_scale, counts):
    assert _counted(lambda field: _guided(scale, weak_scale, field)) == counts


def test_intervals_of_their_own_are_those_scales():
    guided = _guided(guidance.interval(2.0, 0.0, 0.5), guidance.interval(1.5, 0.25, 0.75))
    for t, w, v in ((0.1, 2.0, 1.0), (0.3, 2.0, 1.5), (0.6, 1.0, 1.5), (0.9, 1.0, 1.0)):
        null, good, bad = _field(X, t, NULL), _field(X, t, Y), _weak(X, t, Y)
        expected = good + (w - 1) * (good - null) + (v - 1) * (good - bad)
        np.testing.assert_allclose(guided(X, jnp.float32(t), Y), expected, rtol=1e-5, atol=1e-6)


def test_a_policy_of_the_weak_scale_sees_the_weak_side():
    policy = guidance.policy(lambda x, t, y, null, labelled: 1 + jnp.sum(labelled - null))
    found = _guided(2.0, policy)(X, T, jnp.asarray(Y))
    null, good, bad = _field(X, T, NULL), _field(X, T, Y), _weak(X, T, Y)
    np.testing.assert_allclose(found, 2 * good - null + np.sum(good - bad) * (good - bad), rtol=1e-5)


def test_a_pair_of_sides_costs_what_the_sides_cost():
    """An internal head's output is part of the network's one evaluation; guidance on it is that of a plain pair."""
    head = lambda field: lambda x, t, y: (0.8 * (value := field(x, t, y)) + 0.1, value)  # noqa: E731
    assert _counted(lambda field: guidance.extrapolate(guidance.pair_of_sides(head(field)), 2.0)) == [1] * 4
    nested = lambda field: guidance.classifier_free(  # noqa: E731
        guidance.extrapolate(guidance.pair_of_sides(head(field)), 1.4), 2.0, NULL
    )
    assert _counted(nested) == [2] * 4
    sides = guidance.pair_of_sides(_both)
    found = guidance.extrapolate(sides, 1.4)(X, T, jnp.asarray(Y))
    np.testing.assert_array_equal(found, guidance.autoguidance(_field, _weak, 1.4)(X, T, jnp.asarray(Y)))
    weights = {NULL: {"weak": 0.4, "good": -1.4}, Y: {"weak": -0.8, "good": 2.8}}
    expected = sum(each["weak"] * _weak(X, T, y) + each["good"] * _field(X, T, y) for y, each in weights.items())
    np.testing.assert_allclose(nested(_field)(X, T, jnp.asarray(Y)), expected, rtol=1e-5)


@pytest.mark.parametrize(("scale", "side"), [(1, 1), (0, 0)])
def test_a_known_scale_of_sides_is_that_side_alone(scale, side):
    """Bitwise, and the compiled program holds no part of the other side."""
    both = lambda x, t, y: (jnp.sinh(x), jnp.cosh(x))  # noqa: E731
    guided = lambda x: guidance.extrapolate(guidance.pair_of_sides(both), scale)(x, T, 1)  # noqa: E731
    np.testing.assert_array_equal(guided(X), both(X, T, 1)[side])
    compiled = jax.jit(guided).lower(X).compile().as_text()
    alone = jax.jit(lambda x: both(x, T, 1)[side]).lower(X).compile().as_text()
    assert compiled.count("exponential") == alone.count("exponential") > 0


@pytest.mark.parametrize(
    ("both", "error", "words"),
    [
        (3.0, TypeError, "both must be a function"),
        (lambda x, t, y: x, TypeError, r"both must give \(null, labelled\), got"),
        (lambda x, t, y: (x, x, x), TypeError, r"both must give \(null, labelled\), got tuple of 3"),
        (lambda x, t, y: (x, jnp.ones(3)), ValueError, r"both must give the shape \(2,\), got \(3,\)"),
    ],
)
def test_what_are_not_two_sides_is_refused(both, error, words):
    with pytest.raises(error, match=words):
        guidance.extrapolate(guidance.pair_of_sides(both), 2.0)(X, T, 1)
