"""(F5) to (F7): the flow map of guidance between normal laws, by solves, elementary integrals and its own field."""

from functools import cache

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import flow_maps, guidance
from cfgjax.solvers import adaptive
from tests.conftest import EXACT_PATHS

NULL, LABELLED = ([0.0, 0.5], [2.0, 0.3]), ([1.0, -1.0], [1.0, 0.9])
X = np.array([0.6, -1.1])
SCALES = (-1.0, 0.0, 1.0, 2.0, 3.3, 5.0)
SPANS = ((0.0, 1.0), (0.2, 0.26), (0.2, 0.27), (0.3, 0.300001), (0.9, 0.1), (1.0, 0.0))

pytestmark = pytest.mark.usefixtures("x64")
on_two_paths = pytest.mark.parametrize("name", ["linear", pytest.param("variance_preserving", marks=pytest.mark.slow)])


def _laws(dtype=None):
    return [flow_maps.Gaussian(*(jnp.asarray(each, dtype) for each in law)) for law in (NULL, LABELLED)]


@cache
def _flow_map(name):
    return jax.jit(flow_maps.gaussian(EXACT_PATHS[name], *_laws()))


def _field(path, x, t, w):
    """(F6) by hand, V'/V by differentiation."""

    def of(law):
        def log_variance(t):
            return jnp.log(path.alpha(t) ** 2 * law.variance + path.beta(t) ** 2)

        alpha, slope = jax.jvp(path.alpha, (t,), (jnp.ones_like(t),))
        rate = jax.jvp(log_variance, (t,), (jnp.ones_like(t),))[1]
        return rate / 2 * (x - alpha * law.mean) + slope * law.mean

    null, labelled = map(of, _laws())
    return (1 - w) * null + w * labelled


@on_two_paths
def test_every_scale_and_span_is_met_by_a_solve(name):
    path, tolerances = EXACT_PATHS[name], {"rtol": 1e-12, "atol": 1e-12, "rule": diffrax.Dopri8()}
    solve = jax.jit(lambda t, r, w: adaptive.integrate(lambda x, t: _field(path, x, t, w), X, t, r, **tolerances).x)
    for w in SCALES:
        for t, r in SPANS:
            end = X + (r - t) * _flow_map(name)(X, t, r, w)
            np.testing.assert_allclose(end, solve(t, r, w), rtol=1e-8, atol=1e-8)


def test_the_quadrature_meets_elementary_integrals():
    """From the mean at t = 0 to that at t = 1, m_1 + (w - 1) (m_1 - m_0) sqrt(V) I(1 / s_0), at unlike variances."""
    ratios = np.array([1e-4, 0.02, 0.5, 1.0, 1.01, 30.0, 1e4])
    null = flow_maps.Gaussian(np.full(7, -0.5), np.full(7, 0.49))
    labelled = flow_maps.Gaussian(np.ones(7), 0.49 * ratios)
    flow = jax.jit(flow_maps.flow_of(flow_maps.gaussian(EXACT_PATHS["cosine"], null, labelled)))
    size = np.where(ratios == 1, 1, np.sqrt(np.abs(ratios - 1)))
    arctan = np.where(ratios > 1, np.arctan(size), np.arctanh(np.minimum(size, np.sqrt(1 - 1e-4))))
    second = np.where(ratios == 1, 1, arctan / size)
    for w, integral in {0: 1.0, 2: second, 3: ratios**-0.5, 4: (1 / ratios + second) / 2}.items():
        wanted = 1 + (w - 1) * 1.5 * ratios ** (w / 2) * integral
        np.testing.assert_allclose(flow(np.zeros(7), 0.0, 1.0, float(w)), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "polynomial_3"])
def test_the_variance_at_data_is_the_product_of_powers(name):
    """An affine map's slope is a difference of two of its values."""
    one, zero = (np.array([each, each]) for each in (1.0, 0.0))
    for w in SCALES:
        slope = 1 + _flow_map(name)(one, 0.0, 1.0, w) - _flow_map(name)(zero, 0.0, 1.0, w)
        np.testing.assert_allclose(slope**2, np.array(LABELLED[1]) ** w * np.array(NULL[1]) ** (1 - w), rtol=1e-12)


@on_two_paths
def test_at_an_instant_it_is_the_field_and_its_slope_half_the_fields(name):
    """U(x, t, r) = u + (r - t) / 2 du/dt + ..., du/dt along the trajectory."""
    path, flow_map = EXACT_PATHS[name], _flow_map(name)

    @jax.jit
    def slopes(t, w, u):
        of_map = jax.jvp(lambda r: flow_map(X, t, r, w), (t,), (jnp.ones_like(t),))[1]
        return of_map, *jax.jvp(lambda x, t: _field(path, x, t, w), (X, t), (u, jnp.ones_like(t)))

    for w in SCALES:
        u = flow_map(X, 0.4, 0.4, w)
        slope, field, acceleration = slopes(0.4, w, u)
        np.testing.assert_allclose(u, field, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(slope, acceleration / 2, rtol=1e-9, atol=1e-9)
        assert np.all(np.isfinite([flow_map(X, t, t, w) for t in (0.0, 1.0)]))


@on_two_paths
def test_an_interval_is_its_parts_one_after_another(name):
    flow_map = _flow_map(name)
    for start, stop in ((0.2, 0.8), (0.0, 0.5), (0.45, 0.55), (0.9, 1.0)):
        for t, r in ((0.0, 1.0), (0.3, 0.7), (0.7, 0.3), (0.1, 0.15)):
            times = np.clip([t, *sorted([start, stop], reverse=t > r), r], min(t, r), max(t, r))
            x = X
            for here, there, w in zip(times[:-1], times[1:], (1.0, 3.0, 1.0), strict=True):
                x = x + (there - here) * flow_map(x, here, there, w)
            end = X + (r - t) * flow_map(X, t, r, guidance.interval(3.0, start, stop))
            np.testing.assert_allclose(end, x, rtol=1e-12)


def test_states_of_any_shape_and_single_precision():
    """Coordinates are on their own; in single precision next to r = t no digit is lost."""
    exact, span = _flow_map("linear"), (np.float32(0.2), np.float32(0.2 + 1e-5), np.float32(2.5))
    laws = [jax.tree.map(lambda leaf: jnp.tile(leaf, (3, 1)), law) for law in _laws(jnp.float32)]
    found = jax.jit(flow_maps.gaussian(EXACT_PATHS["linear"], *laws))(np.tile(np.float32(X), (3, 1)), *span)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.tile(exact(X, *map(float, span)), (3, 1)), rtol=1e-5, atol=1e-5)
