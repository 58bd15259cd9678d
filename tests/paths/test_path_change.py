"""Change of path: (X1) to (X3) against the oracle on every pair of paths, the ends of time, and whole solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.conversions import change_path, time_at
from tests.conftest import EXACT_PATHS, PATHS

TIMES = np.array([0.0, 1e-3, 0.02, 0.3, 0.5, 0.7, 0.98, 0.999, 1.0])
INSIDE = slice(1, -1)
ENDS = [0, -1]


def _states():
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)))


def _errors(old, new):
    """The relative error of the changed field against the oracle's own on the new path, at each of TIMES."""
    mixture = mixtures.ring(4)
    changed, true = change_path(old, new, mixture.vector_field(old)), mixture.vector_field(new)

    def both(x, t):
        return changed(x, t, jnp.asarray(1)), true(x, t, jnp.asarray(1))

    grid = jax.jit(jax.vmap(jax.vmap(both, in_axes=(0, None)), in_axes=(None, 0)))
    found, expected = (np.asarray(each) for each in grid(_states(), jnp.asarray(TIMES, _states().dtype)))
    assert np.all(np.isfinite(found))
    return np.linalg.norm(found - expected, axis=(1, 2)) / np.maximum(np.linalg.norm(expected, axis=(1, 2)), 0.1)


def _pair(old, new):
    marks = [] if "linear" in (old, new) else [pytest.mark.slow]
    return pytest.param(old, new, marks=marks, id=f"{old}-{new}")


@pytest.mark.parametrize(("old", "new"), [_pair(old, new) for old in EXACT_PATHS for new in PATHS])
def test_the_changed_field_is_the_oracles_in_single_precision(old, new):
    """To rounding inside; at t = 1, where a steep path's beta is the rounding error of t's root, to 1e-3."""
    errors = _errors(PATHS[old], PATHS[new])
    assert np.max(errors[INSIDE]) < 1e-4
    assert np.max(errors[ENDS]) < 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("linear", "variance_preserving"),
        ("variance_preserving", "polynomial_3"),
        ("polynomial_3", "cosine"),
    ],
)
def test_the_changed_field_is_the_oracles_in_double_precision(old, new):
    errors = _errors(PATHS[old], PATHS[new])
    assert np.max(errors[INSIDE]) < 1e-12
    assert np.max(errors[ENDS]) < 1e-7


def test_an_old_path_that_is_never_pure_noise_is_continued():
    """Under the original variance-preserving path's least ratio 0.0066 the denoiser is that of its first time."""
    old = PATHS["original_variance_preserving"]
    errors = _errors(old, paths.linear())
    assert np.max(errors[:2]) < 2e-3
    assert np.max(errors[2:]) < 1e-4


def test_time_at_inverts_the_ratio(exact_path):
    """Its path's own coefficients, in any common scale, give the time back; the ends exactly."""
    times = jnp.linspace(0, 1, 33)
    find = jax.jit(jax.vmap(lambda t: time_at(exact_path, 3 * exact_path.alpha(t), 3 * exact_path.beta(t))))
    found = np.asarray(find(times))
    np.testing.assert_allclose(found, times, atol=3e-7)
    assert found[0] == 0
    assert found[-1] == 1


def test_time_at_a_floating_point_time_is_that_time():
    for t in (0.125, 0.5, 0.75):
        assert float(time_at(paths.linear(), t, 1 - t)) == t


def test_time_at_beyond_the_paths_ratios_is_the_nearer_end():
    path = PATHS["original_variance_preserving"]
    assert float(time_at(path, 1e-3, 1.0)) == 0
    assert float(time_at(path, 1.0, 0.0)) == 1


def test_the_change_is_finite_and_differentiable_at_both_ends(plain_or_steep_path):
    """In the state and in time, forwards and backwards."""
    x = jnp.array([0.4, -1.0])
    changed = change_path(plain_or_steep_path, paths.cosine(), lambda x, t: jnp.sin(x + t))

    def slopes(t):
        return [of(changed, argnums=(0, 1))(x, t) for of in (jax.jacfwd, jax.jacrev)]

    found = jax.jit(jax.vmap(slopes))(jnp.arange(2.0))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_the_old_field_is_never_called_at_the_end():
    def singular(x, t):
        return x / (1 - t)

    changed = change_path(paths.linear(), paths.cosine(), singular)
    assert np.all(np.isfinite(jax.vmap(changed, in_axes=(None, 0))(jnp.ones(2), jnp.array([0.999999, 1.0]))))


def test_guidance_commutes_with_the_change():
    old, new = paths.linear(), paths.variance_preserving()
    field = mixtures.ring(4).vector_field(old)
    x, t, y = jnp.array([0.4, -1.0]), jnp.float32(0.7), jnp.asarray(2)

    def both(scale):
        one = change_path(old, new, guidance.classifier_free(field, scale, 4))
        other = guidance.classifier_free(change_path(old, new, field), scale, 4)
        return one(x, t, y), other(x, t, y)

    found, expected = jax.jit(jax.vmap(both))(jnp.array([0.0, 1.0, 3.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_piecewise_field_keeps_its_edges_as_old_times():
    """The straight path's 1/2 is the square root of 1/2 on the path t^2, 1 - t^2."""
    old, new = paths.linear(), paths.polynomial(2)
    scales, x, y = (guidance.interval(3.0, 0.5, 1.0), 1.0, 3.0), jnp.array([0.4, -1.0]), jnp.asarray(2)

    def values(t):
        fields = [guidance.classifier_free(lambda x, t, y: jnp.sin(x + y), scale, 4) for scale in scales]
        return jnp.stack([change_path(old, new, field)(x, t, y) for field in fields])

    early, late = (jax.jit(values)(jnp.float32(t)) for t in (0.70, 0.72))
    np.testing.assert_allclose(early[0], early[1], rtol=1e-5)
    np.testing.assert_allclose(late[0], late[2], rtol=1e-5)
    assert np.max(np.abs(late[1] - late[2])) > 0.1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("new", ["variance_preserving", "polynomial_2"])
def test_the_guided_flow_ends_at_the_same_point_on_every_path(new):
    """The two solves differ by their own errors, which fall with Heun's order."""
    old, mixture = paths.linear(), mixtures.ring(5, radius=1.0, std=0.5)
    guided = guidance.given(guidance.classifier_free(mixture.vector_field(old), 2.0, 5), 1)
    x = jnp.array([0.6, -1.1])

    def end(field, num_steps):
        return solvers.integrate(solvers.heun(field), jax.random.key(0), x, jnp.linspace(0, 1, num_steps + 1))

    true = end(guided, 1024)
    errors = [np.linalg.norm(end(change_path(old, PATHS[new], guided), n) - true) for n in (64, 256)]
    assert errors[1] < 1e-3
    assert errors[0] > 10 * errors[1]
