"""Conversions: (C1) to (C4), with the mixture as referee, and the ends of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import conversions, mixtures, paths

TIMES = [0.02, 0.3, 0.7, 0.98]
FROM = {
    "field": conversions.from_field,
    "score": conversions.from_score,
    "noise": conversions.from_noise,
    "denoiser": conversions.from_denoiser,
}
VIEWS = {"score": conversions.score_of, "noise": conversions.noise_of, "denoiser": conversions.denoiser_of}
BACK = {
    "score": conversions.field_of_score,
    "noise": conversions.field_of_noise,
    "denoiser": conversions.field_of_denoiser,
}


def _points():
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)))


def _oracle(path, mixture, y=1):
    views = {
        "field": mixture.vector_field(path),
        "score": mixture.score(path),
        "noise": mixture.noise(path),
        "denoiser": mixture.denoiser(path),
    }
    return {name: lambda x, t, view=view: view(x, t, y) for name, view in views.items()}


def _errors(path):
    """The relative error of each prediction made from each of the oracle's four: [source, time, prediction]."""
    oracle = _oracle(path, mixtures.ring())

    def predictions(t, x):
        true = {name: view(x, t) for name, view in oracle.items()}
        return [FROM[source](path, true[source], x, t)._asdict() for source in FROM], true

    grid = jax.vmap(jax.vmap(predictions, in_axes=(None, 0)), in_axes=(0, None))
    found, true = jax.jit(grid)(jnp.asarray(TIMES), _points())
    return np.array([np.array([_relative(views[name], true[name]) for name in FROM]).T for views in found])


def _relative(found, expected):
    """The norm of the error over that of the truth, for each time in front."""
    found, expected = np.asarray(found), np.asarray(expected)
    return np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))


@pytest.mark.usefixtures("x64")
def test_all_four_predictions_from_any_one_in_double_precision(path):
    assert np.max(_errors(path)) < 1e-9


def test_all_four_predictions_from_any_one_in_single_precision(path):
    """Rounding is magnified by no more than the divisions that the formulas hold: by W, alpha and beta."""
    c = jax.vmap(lambda t: paths.coefficients(path, t))(jnp.asarray(TIMES))
    smallest = np.array([c.wronskian, c.alpha, c.alpha, c.beta])
    bound = 2e-6 * (1 + 1 / smallest) * (1 + 1 / np.asarray(c.beta)[np.newaxis])
    assert np.all(np.max(_errors(path), axis=2) < bound)


def test_single_precision_is_good_on_the_straight_path():
    assert np.max(_errors(paths.linear())) < 1e-4


def _from_all(path, *arguments):
    return [convert(path, *arguments) for convert in FROM.values()]


@pytest.mark.usefixtures("x64")
def test_formulas_of_the_module(path):
    """(C1): x = alpha D + beta E, s = -E/beta, u = alpha' D + beta' E, for a value that no density belongs to."""
    x, value = jnp.array([0.4, -1.0]), jnp.array([2.0, 0.5])
    convert = jax.jit(lambda t: (_from_all(path, value, x, t), paths.coefficients(path, t)))
    for t in TIMES:
        all_found, c = convert(t)
        for found in all_found:
            np.testing.assert_allclose(c.alpha * found.denoiser + c.beta * found.noise, x, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(-found.noise / c.beta, found.score, rtol=1e-9)
            field = c.alpha_dot * found.denoiser + c.beta_dot * found.noise
            np.testing.assert_allclose(field, found.field, rtol=1e-9, atol=1e-9)


def test_sign_of_the_score_on_the_straight_path():
    """(C2) by hand at t = 1/2: s = (t u - x) / (1 - t), so x = 0 and u = 1 give s = 1, E = -1/2 and D = 1/2."""
    found = conversions.from_field(paths.linear(), jnp.ones(1), jnp.zeros(1), 0.5)
    assert [float(view[0]) for view in found] == [1.0, 1.0, -0.5, 0.5]


def _all_finite(at):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.vmap(at))(jnp.arange(2.0))))


def test_everything_is_finite_at_both_ends(path):
    """For the oracle's values and for one that no density belongs to."""
    x, value, oracle = jnp.array([0.4, -1.0]), jnp.array([2.0, 0.5]), _oracle(path, mixtures.ring())
    assert _all_finite(lambda t: _from_all(path, value, x, t))
    assert _all_finite(lambda t: [FROM[source](path, oracle[source](x, t), x, t) for source in FROM])


@pytest.mark.usefixtures("x64")
def test_a_bounded_field_is_the_field_as_far_as_its_bound(path):
    """And beyond beta = 0.3 that times beta / 0.3, at the end as on the way there."""
    x, mixture = jnp.array([0.4, -1.0]), mixtures.ring()
    denoiser = lambda x, t: mixture.denoiser(path)(x, t, 1)  # noqa: E731
    fields = conversions.field_of_denoiser(path, denoiser), conversions.bounded_field_of_denoiser(path, denoiser, 0.3)
    both = jax.jit(lambda t: ([field(x, t) for field in fields], path.beta(t)))
    for t in TIMES:
        (field, bounded), beta = both(t)
        np.testing.assert_allclose(bounded, field * min(1, beta / 0.3), rtol=1e-8)
    assert np.all(np.isfinite(both(1.0)[0][1]))


@pytest.mark.parametrize("t", [0.0, 0.5, 0.94, 0.96, 1.0])
def test_the_bounded_field_on_the_straight_path(t):
    """(D - x) / max(1 - t, 0.05), exact at t = 1, where the field itself divides by nothing."""
    x = jnp.array([0.4, -1.0])
    found = conversions.bounded_field_of_denoiser(paths.linear(), lambda x, t: jnp.sin(3 * x))(x, jnp.float32(t))
    np.testing.assert_allclose(found, (np.sin(3 * x) - x) / max(1 - t, 0.05), rtol=1e-5)


@pytest.mark.parametrize("differentiate", [jax.jacfwd, jax.jacrev])
def test_derivatives_are_finite_at_both_ends(path, differentiate):
    """A guarded division must not leave NaN in the derivative."""
    x, value = jnp.array([0.4, -1.0]), jnp.array([2.0, 0.5])

    def slopes(t):
        return differentiate(lambda x, value: _from_all(path, value, x, t), argnums=(0, 1))(x, value)

    assert _all_finite(slopes)


def test_score_of_a_field_at_the_start_is_minus_x(exact_path):
    x = jnp.array([0.4, -1.0])
    field = _oracle(exact_path, mixtures.ring())["field"](x, 0.0)
    np.testing.assert_allclose(conversions.from_field(exact_path, field, x, 0.0).score, -x, rtol=1e-5)


@pytest.mark.parametrize("source", ["score", "noise"])
def test_documented_values_of_a_score_at_the_start(exact_path, source):
    """The denoiser comes out as 0 and the field as beta' E."""
    x, c = jnp.array([0.4, -1.0]), paths.coefficients(exact_path, 0.0)
    true = _oracle(exact_path, mixtures.ring())
    found = FROM[source](exact_path, true[source](x, 0.0), x, 0.0)
    np.testing.assert_array_equal(found.denoiser, jnp.zeros(2))
    np.testing.assert_allclose(found.field, c.beta_dot * true["noise"](x, 0.0), rtol=1e-6)


def test_documented_values_of_a_denoiser_at_the_end(path):
    """The noise comes out as its limit 0, the score as 0, and the field as alpha' D."""
    x = jnp.array([0.4, -1.0])
    found = conversions.from_denoiser(path, x, x, 1.0)
    np.testing.assert_array_equal(found.noise, jnp.zeros(2))
    np.testing.assert_array_equal(found.score, jnp.zeros(2))
    np.testing.assert_allclose(found.field, paths.coefficients(path, 1.0).alpha_dot * x, rtol=1e-6)


@pytest.mark.parametrize("zero_terminal", [True, False])
def test_variance_preserving_field_determines_the_score_at_the_end(zero_terminal):
    path = paths.variance_preserving(zero_terminal=zero_terminal)
    oracle, x = _oracle(path, mixtures.ring()), jnp.array([1.6, 1.1])
    found = conversions.from_field(path, oracle["field"](x, 1.0), x, 1.0).score
    np.testing.assert_allclose(found, oracle["score"](x, 1.0), rtol=1e-3)


@pytest.mark.parametrize("name", VIEWS)
def test_views_keep_both_signatures(name):
    path, mixture = paths.cosine(), mixtures.ring()
    field, expected = mixture.vector_field(path), _oracle(path, mixture, y=2)[name]
    x, t = jnp.array([0.4, -1.0]), jnp.float32(0.6)
    np.testing.assert_allclose(VIEWS[name](path, field)(x, t, jnp.int32(2)), expected(x, t), rtol=2e-5)
    one = VIEWS[name](path, _oracle(path, mixture, y=2)["field"])
    np.testing.assert_allclose(one(x, t), expected(x, t), rtol=2e-5)


@pytest.mark.usefixtures("x64")
def test_views_are_inverted(path):
    field, x, y = mixtures.ring().vector_field(path), jnp.array([0.4, -1.0]), jnp.asarray(3)
    back = [BACK[name](path, VIEWS[name](path, field)) for name in VIEWS]
    all_found = jax.jit(jax.vmap(lambda t: [view(x, t, y) for view in [field, *back]]))(jnp.asarray(TIMES))
    for found in all_found[1:]:
        np.testing.assert_allclose(found, all_found[0], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_regular_time_is_where_the_field_tells_of_the_denoiser():
    """W = 3 t^2 of the cubic path reaches the root of the rounding error; a path with W > 0 has no least time."""
    least = np.sqrt(np.sqrt(np.finfo(np.float64).eps) / 3)
    found = [conversions.regular_time(paths.polynomial(3), t) for t in (0.0, least / 2, 2 * least, 1.0)]
    np.testing.assert_allclose(found, [least, least, 2 * least, 1.0], rtol=1e-6)
    np.testing.assert_array_equal([conversions.regular_time(paths.linear(), t) for t in (0.0, 0.3)], [0.0, 0.3])
