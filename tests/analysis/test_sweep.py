"""Sweeps: every point of the product is the point alone, in one trace, for any chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, solvers
from cfgjax.analysis.sweep import sweep

PATH, NULL = paths.linear(), 3
FIELD = mixtures.ring(NULL).vector_field(PATH)
SCALES, STRENGTHS = jnp.array([0.0, 1.0, 3.0, 6.0]), jnp.array([0.5, 1.0])
INTERVALS = (jnp.array([0.0, 0.3]), jnp.array([0.6, 1.0]))
KEYS, LABELS = jax.random.split(jax.random.key(0), 3), jnp.arange(NULL)


def _draw(scale, ends, strength, key, y):
    interval = guidance.interval(scale, *ends)
    guided = guidance.given(guidance.classifier_free(FIELD, interval, NULL), y)
    solver = solvers.euler_maruyama(PATH, guided, solvers.root_beta(PATH, strength))
    noise_key, solver_key = jax.random.split(key)
    return solvers.integrate(solver, solver_key, jax.random.normal(noise_key, (2,)), jnp.linspace(0, 1, 9))


@pytest.mark.parametrize("chunk", [7, 64, 8192])
def test_every_point_is_the_point_alone(chunk):
    """scale x interval x strength x key x label: 4 x 2 x 2 x 3 x 3 points in one call, and six of them alone."""
    found = jax.jit(lambda *axes: sweep(_draw, *axes, chunk=chunk))(SCALES, INTERVALS, STRENGTHS, KEYS, LABELS)
    assert found.shape == (4, 2, 2, 3, 3, 2)
    alone, rng = jax.jit(_draw), np.random.default_rng(0)
    for _ in range(6):
        a, b, c, d, e = (int(rng.integers(size)) for size in found.shape[:-1])
        ends = tuple(each[b] for each in INTERVALS)
        expected = alone(SCALES[a], ends, STRENGTHS[c], KEYS[d], LABELS[e])
        np.testing.assert_allclose(found[a, b, c, d, e], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [25, 8192])
def test_one_trace_serves_every_sweep_of_these_sizes(chunk):
    """Whatever the chunk: 144 points are not a multiple of 25."""
    traces = []

    def draw(*point):
        traces.append(1)
        return _draw(*point)

    run = jax.jit(lambda *axes: sweep(draw, *axes, chunk=chunk))
    run(SCALES, INTERVALS, STRENGTHS, KEYS, LABELS)
    once = len(traces)
    first = run(SCALES + 1, INTERVALS, STRENGTHS * 2, KEYS, LABELS)
    assert once == len(traces) == 1
    assert np.all(np.isfinite(first))


def test_axes_swept_in_step_and_trees_of_results():
    found = sweep(lambda pair, z: {"sum": pair[0] + pair[1], "z": z}, (jnp.arange(3), 10 * jnp.arange(3)), KEYS)
    np.testing.assert_array_equal(found["sum"], [[0] * 3, [11] * 3, [22] * 3])
    np.testing.assert_array_equal(jax.random.key_data(found["z"][1]), jax.random.key_data(KEYS))


def test_axes_may_be_numpys():
    np.testing.assert_array_equal(sweep(lambda a, b: a + b, np.arange(3.0), np.arange(2.0)).shape, (3, 2))


@pytest.mark.parametrize(
    ("axes", "chunk", "words"),
    [
        ((), 1, "at least one"),
        ((jnp.ones(2),), 0, "chunk must be at least 1"),
        ((jnp.ones(2), 3.0), 1, "axis 1 must be arrays with a common leading axis"),
        (((jnp.ones(2), jnp.ones(3)),), 1, "axis 0 must be arrays"),
        ((jnp.ones(0),), 1, "axis 0 must be arrays"),
    ],
)
def test_what_cannot_be_swept_is_refused(axes, chunk, words):
    with pytest.raises(ValueError, match=words):
        sweep(lambda *point: point, *axes, chunk=chunk)
