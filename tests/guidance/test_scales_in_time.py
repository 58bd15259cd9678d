"""Scales that change in time, and rules in stages: exact laws of two normal laws, and formulas by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from tests.support import normals

PATH, NULL, Y = paths.linear(), 3, 1
X, T, TS = jnp.array([0.4, -0.7]), jnp.float32(0.3), np.linspace(0, 1, 5)


def _field(x, t, y):
    """An elementwise field: bitwise the same alone as under vmap."""
    return jnp.sin(3 * x + t) * (y + 1.0)


def _end(scale, num_steps=256):
    guided = guidance.extrapolate(normals.pair(PATH), scale)
    return normals.end_of(solvers.rk4(guidance.given(guided, normals.LABEL)), num_steps)


def _expected(scale):
    return normals.moments(lambda t: (1 - scale(t), scale(t)), normals.LAWS)


@pytest.mark.usefixtures("x64")
def test_an_exponential_scale_grows_towards_the_data():
    """exp int [w dlog V_y + (1 - w) dlog V_null]: 0.7630 at w_0 = 1, rate log 2; a rate of other sign gives another."""
    found = _end(guidance.exponential_scale(1.0, np.log(2.0)))
    np.testing.assert_allclose(found, _expected(lambda t: 2**t), rtol=1e-5)
    np.testing.assert_allclose(found[1], 0.7630, atol=5e-5)
    scale = guidance.exponential_scale(1.5, 0.7)
    np.testing.assert_allclose([scale(0.0), scale(1.0)], [1.5, 1.5 * np.exp(0.7)], rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_beta_scale_without_a_norm_is_a_schedule():
    """gamma = 0, a = b = 2: w = 6 t (1 - t) leaves the variance 0.8242 where a constant 1 leaves 1."""
    found = _end(guidance.beta_scale(PATH, 1.0, gamma=0.0))
    np.testing.assert_allclose(found, _expected(lambda t: 6 * t * (1 - t)), rtol=1e-5)
    np.testing.assert_allclose(found[1], 0.8242, atol=5e-5)
    late = guidance.beta_scale(PATH, 1.0, 2.0, 3.0, 0.0, progress=lambda t: t**2)
    np.testing.assert_allclose(_end(late), _expected(lambda t: 12 * t**2 * (1 - t**2) ** 2), rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_a_beta_scale_divides_by_the_distance_of_the_noise_predictions(gamma):
    """On laws of one variance |E_y - E_null| = sqrt(n) alpha beta (m_y - m_null) / V: w B(t) / that^gamma, by hand."""
    laws = ((0.0, 1.5), (2.0, 1.5))
    pair, x = normals.pair(PATH, laws), jnp.array([0.3, -1.0])
    guided = jax.jit(guidance.extrapolate(pair, guidance.beta_scale(PATH, 3.0, 2.0, 3.0, gamma)))
    for t in (0.1, 0.6):
        null, labelled = pair.both(x, jnp.asarray(t), normals.LABEL)
        gap = np.sqrt(2) * t * (1 - t) * 2 / (1.5 * t**2 + (1 - t) ** 2)
        scale = 3 * 12 * t * (1 - t) ** 2 / gap**gamma
        found = guided(x, jnp.asarray(t), jnp.asarray(normals.LABEL))
        np.testing.assert_allclose(found, null + scale * (labelled - null), rtol=1e-9)


def test_a_beta_scale_is_the_null_field_at_both_ends_and_finite_where_both_sides_agree():
    policy = guidance.beta_scale(PATH, 7.5)
    guided = jax.jit(guidance.classifier_free(_field, policy, NULL))
    for t, y in ((0.0, Y), (1.0, Y), (0.3, NULL)):
        found = guided(X, jnp.float32(t), jnp.asarray(y))
        np.testing.assert_allclose(found, _field(X, jnp.float32(t), NULL), rtol=1e-6)
    nearly = lambda x, t, y: jnp.where(y == NULL, 0.0, 1e-36) * x  # noqa: E731
    assert np.all(np.isfinite(jax.jit(guidance.classifier_free(nearly, policy, NULL))(X, T, jnp.asarray(Y))))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(guided(x, T, jnp.asarray(NULL)))))(X)
    assert np.all(np.isfinite(slope))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_solve_by_a_beta_scale_is_differentiated_from_noise_on(gamma):
    """At t = 0 the gap is 0; the gradients by x and by w are the quotients of differences."""

    def end(x, scale):
        policy = guidance.beta_scale(PATH, scale, 3.0, 2.0, gamma)
        field = guidance.given(guidance.extrapolate(normals.pair(PATH), policy), normals.LABEL)
        return solvers.integrate(solvers.heun(field), jax.random.key(0), x[None], TS)[0]

    point, step = (jnp.float64(0.4), jnp.float64(0.7)), 1e-6
    found = jax.grad(end, (0, 1))(*point)
    x, scale = point
    wanted = (end(x + step, scale) - end(x - step, scale), end(x, scale + step) - end(x, scale - step))
    np.testing.assert_allclose(found, np.array(wanted) / (2 * step), rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("path", "edge", "restoring"),
    [(PATH, 0.3, 0.737), (PATH, 0.5, -0.409), (PATH, 0.7, -6.58), (paths.cosine(), 0.7, None)],
    ids=["0.3", "0.5", "0.7", "cosine"],
)
def test_two_stages_leave_their_closed_form(path, edge, restoring):
    """V_y(T)^w1 V_null(T)^(1-w1) times the rest at w2, on every path; the w2 that gives the label its variance back."""
    null, labelled = (float(path.alpha(edge) ** 2 * law[1] + path.beta(edge) ** 2) for law in normals.LAWS)
    early, ratio = 2.0, np.log(labelled / null)
    late = 1 - (early - 1) * ratio / (np.log(1.0 / 2.0) - ratio)
    if restoring is not None:
        np.testing.assert_allclose(late, restoring, atol=5e-3)
    guided = guidance.stages(normals.pair(path), (edge,), (early, late))
    ts = solvers.time_grids.insert_times(np.linspace(0, 1, 257), (edge,))
    found = normals.end_of(solvers.rk4(guidance.given(guided, normals.LABEL)), 0, ts)
    expected = labelled**early * null ** (1 - early) * (1 / labelled) ** late * (2 / null) ** (1 - late)
    np.testing.assert_allclose(found[1], expected, rtol=2e-4)
    np.testing.assert_allclose(expected, 1.0, rtol=1e-6)


def test_stages_of_known_sides_cost_one_and_an_interval_is_three_of_them():
    def counted(scales, edges):
        build = lambda field: solvers.euler(  # noqa: E731
            guidance.given(guidance.stages(guidance.pair(field, NULL), edges, scales), Y)
        )
        return solvers.num_function_evaluations(build, _field, X, TS).tolist()

    assert counted((2.0, 0.0), (0.5,)) == [2, 2, 1, 1]
    assert counted((1, 2.0, 0, 3.0), (0.25, 0.5, 0.75)) == [1, 2, 1, 2]
    pair = guidance.pair(_field, NULL)
    one, other = (
        guidance.stages(pair, (0.2, 0.8), (1.0, 3.0, 1.0)),
        guidance.extrapolate(pair, guidance.interval(3.0, 0.2, 0.8)),
    )
    assert one.edges == other.edges
    for t in (0.1, 0.5, 0.9):
        np.testing.assert_array_equal(one(X, jnp.float32(t), Y), other(X, jnp.float32(t), Y))


def test_a_stage_may_hold_an_interval_and_another_rule():
    """An interval inside a stage splits it; ``build`` is the rule of each stage."""
    pair = guidance.pair(_field, NULL)
    guided = guidance.stages(pair, (0.5,), (guidance.interval(3.0, 0.2, 0.9), 2.0), guidance.rescaled)
    assert guided.edges == (0.2, 0.5)
    for t, scale in ((0.1, 1.0), (0.3, 3.0), (0.7, 2.0)):
        expected = guidance.rescaled(pair, scale)(X, jnp.float32(t), Y)
        np.testing.assert_allclose(guided(X, jnp.float32(t), Y), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("edges", "scales", "error", "words"),
    [
        ((0.5,), (2.0,), ValueError, "scales must be one more than edges, got 1 and 1 edges"),
        ((0.5, 0.5), (2.0, 1.0, 2.0), ValueError, "edges must increase"),
        ((1.5,), (2.0, 1.0), ValueError, r"edges\[0\] must be at least 0 and under 1, got 1.5"),
        ((0.5,), (2.0, np.nan), ValueError, r"scales\[1\] must be"),
        ((), (2.0,), ValueError, "edges must be at least one"),
        (0.5, (2.0, 1.0), TypeError, "edges must be a tuple"),
    ],
)
def test_stages_that_do_not_fit_are_refused(edges, scales, error, words):
    with pytest.raises(error, match=words):
        guidance.stages(guidance.pair(_field, NULL), edges, scales)
