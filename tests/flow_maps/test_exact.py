"""The exact flow map of a mixture, by its identity, semigroup, instants and other solves; maps by any solver."""

import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance, mixtures, solvers
from cfgjax.mixtures import LabelledMixture
from tests.conftest import EXACT_PATHS

KEY = jax.random.key(0)
X = np.array([0.6, -1.1])
SCALES = (0.0, 1.0, 2.5, 5.0, guidance.interval(3.0, 0.2, 0.7))
SPANS = ((0.0, 1.0), (0.25, 0.65), (0.5, 0.501), (0.9, 0.1), (0.4, 0.4), (0.0, 0.0))
"""None begins at an edge of the interval and leads away from its inside, where a derivative has two sides."""
LINEAR = EXACT_PATHS["linear"]
NUM_CLASSES = 3
LOPSIDED = (
    np.array([[0.5, 0.1], [0.2, 0.2], [0.9, 0.3]]),
    1.5 * np.random.default_rng(4).normal(size=(NUM_CLASSES, 2, 2)),
    np.array([[[[0.5, 0.2], [0.2, 0.3]], [[0.2, 0], [0, 0.9]]]] * NUM_CLASSES),
)


def _mixture(name):
    return mixtures.ring(5) if name == "ring" else LabelledMixture(*map(jnp.asarray, LOPSIDED))


TRACES = []


@cache
def _exact(mixture_name="lopsided", path_name="linear"):
    """The exact map, compiled; and its derivative along (x, t)."""
    flow_map = flow_maps.exact(EXACT_PATHS[path_name], _mixture(mixture_name))

    def counted(*point):
        TRACES.append((mixture_name, path_name))
        return flow_map(*point)

    def along(x, t, r, y, w, direction):
        return jax.jvp(lambda x, t: flow_map(x, t, r, y, w), (x, t), (direction, jnp.ones_like(t)))

    return jax.jit(counted), jax.jit(along)


def _residuals(t, r, y, w, names):
    """By how much (F3), and (F4) by way of the middle, are missed."""
    (flow_map, along), s = _exact(*names), 0.5 * (t + r)
    field = flow_map(X, t, t, y, w)
    value, slope = along(X, t, r, y, w, field)
    middle = X + (s - t) * flow_map(X, t, s, y, w)
    end = middle + (r - s) * flow_map(middle, s, r, y, w)
    return np.max(np.abs(value - field - (r - t) * slope)), np.max(np.abs(end - X - (r - t) * value))


OTHERS = [("lopsided", "cosine"), ("lopsided", "variance_preserving"), ("lopsided", "polynomial_2")]
OTHERS += [("ring", name) for name in ("linear", "cosine", "variance_preserving", "polynomial_2")]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "names", [("lopsided", "linear"), *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]
)
def test_identity_and_semigroup_in_one_trace_of_all_numbers(names):
    assert np.max([_residuals(t, r, y, w, names) for w in SCALES for t, r in SPANS for y in (0, 1)]) < 1e-6
    assert TRACES.count(names) == 2, "one for numbers, one for intervals"


@pytest.mark.usefixtures("x64")
def test_it_ends_where_a_thousand_steps_end():
    mixture = _mixture("lopsided")

    @jax.jit
    def steps(w, ts):
        guided = guidance.given(guidance.classifier_free(mixture.vector_field(LINEAR), w, NUM_CLASSES), 1)
        return solvers.integrate(solvers.rk4(guided), KEY, X, ts)

    for w in (0.0, 2.5):
        for t, r in ((0.0, 0.99), (0.8, 0.1)):
            end = X + (r - t) * _exact()[0](X, t, r, 1, w)
            np.testing.assert_allclose(end, steps(w, jnp.linspace(t, r, 1025)), atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_of_one_component_it_is_the_closed_form():
    law = flow_maps.Gaussian(jnp.array([1.0, -0.5]), jnp.array([0.3, 2.0]))
    mixture = LabelledMixture(jnp.ones(1), law.mean[None], jnp.diag(law.variance)[None])
    path = EXACT_PATHS["variance_preserving"]
    both = jax.jit(
        lambda *point: (
            flow_maps.exact(path, mixture)(*point[:3], 0, point[3]),
            flow_maps.gaussian(path, law, law)(*point),
        )
    )
    for t, r in SPANS:
        np.testing.assert_allclose(*both(X, t, r, 3.0), rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_at_an_instant_it_is_the_guided_field_itself():
    mixture = _mixture("lopsided")
    field = jax.jit(lambda t, y, w: guidance.classifier_free(mixture.vector_field(LINEAR), w, NUM_CLASSES)(X, t, y))
    for w in (*SCALES, guidance.interval(3.0, 0.5, 1.0)):
        for t in (0.0, 0.2, 0.5, 0.7, 1.0):  # with the interval's edges, of which the later is outside but at t = 1
            np.testing.assert_array_equal(_exact()[0](X, t, t, 1, w), field(t, 1, w))


@pytest.mark.usefixtures("x64")
def test_its_sides_are_the_labels_own_law_and_the_null_one():
    own = LabelledMixture(*(jnp.asarray(each[1:2]) for each in LOPSIDED))
    null = LabelledMixture(*(jnp.asarray(each.reshape(1, 6, *each.shape[2:])) for each in LOPSIDED))
    for w, y, mixture in ((1.0, 1, own), (0.0, 1, null)):
        alone = jax.jit(flow_maps.exact(LINEAR, mixture))(X, 0.1, 0.9, 0, 1.0)
        np.testing.assert_allclose(_exact()[0](X, 0.1, 0.9, y, w), alone, atol=1e-8)
    np.testing.assert_allclose(_exact()[0](X, 0.1, 0.9, NUM_CLASSES, 4.0), alone, atol=1e-8)


def test_single_precision_has_its_own_tolerance():
    """What cannot be met there is not tried, or the solve would be given up; next to r = t no digit is lost."""
    flow_map = jax.jit(flow_maps.exact(LINEAR, _mixture("lopsided"), 1e-30))
    points = [(np.float32(0.3), np.float32(r)) for r in (0.9, 0.30001)]
    single = [flow_map(np.float32(X), t, r, 1, 2.5) for t, r in points]
    with jax.enable_x64(True):
        double = [_exact()[0](X, float(t), float(r), 1, 2.5) for t, r in points]
    np.testing.assert_allclose(single, double, rtol=2e-5, atol=2e-5)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "cfgjax.solvers.adaptive", raising=False)
    monkeypatch.delattr(solvers, "adaptive", raising=False)
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"pip install 'cfgjax\[adaptive\]'"):
        flow_maps.exact(LINEAR, mixtures.ring(3))


def _guided(x, t, y, w):
    return guidance.classifier_free(_mixture("lopsided").vector_field(LINEAR), w, NUM_CLASSES)(x, t, y)


def test_steps_of_any_solver_are_those_of_its_grid():
    """One step of Euler's rule is the field, two are by hand: u(x, t) and u(x + h u, t + h), averaged."""

    def field(x, t, rate):
        return jnp.sin(3 * t) - rate * x

    x = jnp.array([0.6, -1.1])
    one, two = (flow_maps.of_field(solvers.euler, field, number) for number in (1, 2))
    np.testing.assert_allclose(one(x, 0.2, 0.6, 2.5), field(x, 0.2, 2.5), rtol=1e-5)
    middle = x + 0.2 * field(x, 0.2, 2.5)
    by_hand = 0.5 * (field(x, 0.2, 2.5) + field(middle, 0.4, 2.5))
    np.testing.assert_allclose(two(x, 0.2, 0.6, 2.5), by_hand, rtol=1e-5)


def test_of_a_field_in_pieces_a_step_is_in_one_of_them_as_a_whole():
    pieces = guidance.extrapolate(guidance.pair(lambda x, t, y: (1 + y) * x - t, 0), guidance.interval(3.0, 0.25, 0.75))
    found = flow_maps.flow_of(flow_maps.of_field(solvers.heun, pieces, 8))
    x = jnp.array([0.6, -1.1])
    wanted = solvers.integrate(solvers.heun(guidance.given(pieces, 1)), KEY, x, jnp.linspace(0, 1, 9))
    for flow in (found, jax.jit(found)):
        np.testing.assert_allclose(flow(x, 0.0, 1.0, 1), wanted, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "order"), [("heun", 2), ("ddim", 1), ("unipc", 2)])
def test_steps_tend_to_the_exact_map_by_the_order_of_their_rule(name, order):
    make = solvers.heun if name == "heun" else partial(getattr(solvers, name), LINEAR)
    exact = _exact()[0](X, 0.1, 0.8, 1, 2.5)
    maps = [jax.jit(flow_maps.of_field(make, _guided, number)) for number in (64, 128)]
    coarse, fine = (np.linalg.norm(each(X, 0.1, 0.8, 1, 2.5) - exact) for each in maps)
    assert np.log2(coarse / fine) > order - 0.2
    assert fine < 0.02


@pytest.mark.parametrize("make_solver", [solvers.heun, partial(solvers.unipc, LINEAR)], ids=["heun", "unipc"])
def test_at_an_instant_steps_are_the_field_and_have_derivatives(make_solver):
    flow_map = flow_maps.of_field(make_solver, lambda x, t: jnp.sin(3 * t) - x, 3)
    x = jnp.array([0.6, -1.1])
    both = jax.jit(lambda x, t, r: (flow_map(x, t, r), jax.jacrev(flow_map, (0, 1, 2))(x, t, r)))
    for t in (0.0, 0.5, 1.0):
        value, slopes = both(x, t, t)
        np.testing.assert_allclose(value, jnp.sin(3 * t) - x, rtol=1e-6)
        assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_steps_go_back():
    flow = jax.jit(flow_maps.flow_of(flow_maps.of_field(solvers.rk4, lambda x, t: jnp.sin(3 * t) - x, 16)))
    x = jnp.array([0.6, -1.1])
    np.testing.assert_allclose(flow(flow(x, 0.1, 0.9), 0.9, 0.1), x, atol=1e-5)
