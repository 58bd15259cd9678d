"""Numbers about samples, against hand counts."""

import jax.numpy as jnp
import numpy as np

from cfgjax import metrics


def test_nearest_distances_are_euclidean():
    samples = np.array([[0.0, 0.0], [3.0, 4.0]])
    reference = np.array([[3.0, 4.0], [0.0, -1.0]])
    np.testing.assert_allclose(metrics.nearest_distances(samples, reference), [1.0, 0.0], atol=1e-12)


def test_nearest_distances_take_any_shape():
    generator = np.random.default_rng(0)
    samples, reference = generator.normal(size=(5, 2, 3)), generator.normal(size=(7, 2, 3))
    brute = [min(np.linalg.norm(s - r) for r in reference) for s in samples]
    np.testing.assert_allclose(metrics.nearest_distances(samples, reference), brute, rtol=1e-10)


def test_copy_fraction_finds_the_planted_copies():
    generator = np.random.default_rng(1)
    training, held_out, fresh = (generator.normal(size=(200, 10)) for _ in range(3))
    planted = np.concatenate([training[:60], fresh[:140]])
    assert metrics.copy_fraction(training, training, held_out) == 1.0
    assert abs(metrics.copy_fraction(planted, training, held_out) - 0.3) < 0.05


def test_relative_error_of_a_scaled_field_is_the_scale_less_one():
    exact = jnp.asarray(np.random.default_rng(2).normal(size=(100, 3)))
    np.testing.assert_allclose(metrics.relative_error(1.25 * exact, exact), 0.25, rtol=1e-5)
