"""Numbers about samples, against hand counts."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from cfgjax import metrics, paths
from cfgjax.analysis import residuals


def test_nearest_distances_are_euclidean():
    samples = np.array([[0.0, 0.0], [3.0, 4.0]])
    reference = np.array([[3.0, 4.0], [0.0, -1.0]])
    np.testing.assert_allclose(metrics.nearest_distances(samples, reference), [1.0, 0.0], atol=1e-12)


def test_nearest_distances_take_any_shape():
    generator = np.random.default_rng(0)
    samples, reference = generator.normal(size=(5, 2, 3)), generator.normal(size=(7, 2, 3))
    brute = [min(np.linalg.norm(s - r) for r in reference) for s in samples]
    np.testing.assert_allclose(metrics.nearest_distances(samples, reference), brute, rtol=1e-10)


def test_memorization_rate_finds_the_planted_copies():
    generator = np.random.default_rng(1)
    training, held_out, fresh = (generator.normal(size=(200, 10)) for _ in range(3))
    planted = np.concatenate([training[:60], fresh[:140]])
    nearest = [metrics.nearest_distances(points, training) for points in (training, planted, held_out)]
    assert metrics.memorization_rate(nearest[0], nearest[2]) == 1.0
    assert abs(metrics.memorization_rate(nearest[1], nearest[2]) - 0.3) < 0.05


def test_relative_error_of_a_scaled_field_is_the_scale_less_one():
    exact = jnp.asarray(np.random.default_rng(2).normal(size=(100, 3)))
    np.testing.assert_allclose(residuals.relative_error(1.25 * exact, exact), 0.25, rtol=1e-5)
    with pytest.raises(ValueError, match="exact must not be 0 at every state"):
        residuals.relative_error(exact, 0 * exact)


def _with_moments(generator, num_samples, mean, root):
    """Samples whose own mean and covariance are exactly ``mean`` and root root^T."""
    white = generator.normal(size=(num_samples, len(mean)))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return mean + white @ root.T


def test_frechet_distance_of_normal_laws_is_closed_form():
    """For covariances that commute, tr (C + C' - 2 (C C')^1/2) = |C^1/2 - C'^1/2|^2."""
    generator = np.random.default_rng(3)
    turn = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    spreads, others = np.array([1.0, 2.0, 0.5, 3.0]), np.array([0.3, 2.5, 1.0, 1.0])
    shift = np.array([1.0, -2.0, 0.0, 0.5])
    first = _with_moments(generator, 50, np.zeros(4), turn * spreads)
    second = _with_moments(generator, 80, shift, turn * others)
    expected = np.sum(shift**2) + np.sum((spreads - others) ** 2)
    np.testing.assert_allclose(metrics.frechet_distance(first, second), expected, rtol=1e-9)


def test_frechet_distance_of_general_covariances_is_by_the_matrix_root():
    generator = np.random.default_rng(4)
    first, second = generator.normal(size=(60, 5)) @ generator.normal(size=(5, 5)), generator.normal(size=(40, 5))
    covariances = np.cov(first.T), np.cov(second.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    means = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    np.testing.assert_allclose(metrics.frechet_distance(first, second), expected, rtol=1e-8)


def test_frechet_distance_holds_for_fewer_samples_than_features():
    """Unused features change nothing, and a set is at no distance from itself or from its own reflection."""
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=(6, 3)), generator.normal(size=(9, 3))
    wide = [np.concatenate([points, np.zeros((len(points), 40))], axis=1) for points in (first, second)]
    np.testing.assert_allclose(metrics.frechet_distance(*wide), metrics.frechet_distance(first, second), rtol=1e-9)
    assert metrics.frechet_distance(wide[0], wide[0]) < 1e-12
    assert metrics.frechet_distance(first, second) == pytest.approx(metrics.frechet_distance(second, first), rel=1e-9)


def test_frechet_distance_to_a_known_law_is_that_to_its_sample():
    """The closed form of commuting covariances, and the same as of the features themselves."""
    generator = np.random.default_rng(3)
    turn = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    spreads, others = np.array([1.0, 2.0, 0.5, 0.0]), np.array([0.3, 2.5, 0.0, 1.0])
    shift = np.array([1.0, -2.0, 0.0, 0.5])
    samples = _with_moments(generator, 50, np.zeros(4), turn * spreads)
    law = shift, (turn * others**2) @ turn.T
    expected = np.sum(shift**2) + np.sum((spreads - others) ** 2)
    np.testing.assert_allclose(metrics.frechet_distance_to(samples, *law), expected, rtol=1e-7)
    reference = generator.normal(size=(40, 4)) @ generator.normal(size=(4, 4))
    found = metrics.frechet_distance_to(samples, *metrics.feature_statistics(reference))
    np.testing.assert_allclose(found, metrics.frechet_distance(samples, reference), rtol=1e-9)


def test_frechet_distance_to_holds_for_fewer_samples_than_features():
    generator = np.random.default_rng(5)
    samples, reference = generator.normal(size=(12, 40)), generator.normal(size=(9, 40))
    statistics = metrics.feature_statistics(reference)
    expected = metrics.frechet_distance(samples, reference)
    np.testing.assert_allclose(metrics.frechet_distance_to(samples, *statistics), expected, rtol=1e-6)
    assert metrics.frechet_distance_to(reference, *statistics) < 1e-5 * np.trace(statistics.covariance)


def test_frechet_distance_to_is_the_published_formula():
    """|m - m'|^2 + tr (C + C' - 2 (C C')^1/2) with the root as of FID tools, of covariances of full rank."""
    generator = np.random.default_rng(8)
    samples = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12))
    mean, covariance = metrics.feature_statistics(generator.normal(size=(200, 12)) + 0.3)
    own = np.cov(samples, rowvar=False)
    root = scipy.linalg.sqrtm(own @ covariance).real
    expected = np.sum((samples.mean(axis=0) - mean) ** 2) + np.trace(own + covariance - 2 * root)
    np.testing.assert_allclose(metrics.frechet_distance_to(samples, mean, covariance), expected, rtol=1e-9)


def test_feature_statistics_are_numpys_of_one_feature_too():
    mean, covariance = metrics.feature_statistics(np.array([[1.0], [2.0], [6.0]], np.float32))
    assert (mean.tolist(), covariance.tolist(), covariance.dtype) == ([3.0], [[7.0]], np.float64)


@pytest.mark.parametrize(
    ("mean", "covariance", "complaint"),
    [
        (np.zeros(3), np.eye(3), r"samples, mean and covariance must be \[n, d\], \[d\] and \[d, d\]"),
        (np.zeros(2), np.ones((2, 1)), r"must be \[n, d\], \[d\] and \[d, d\], got \(5, 2\), \(2,\) and \(2, 1\)"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), "covariance must be symmetric"),
        (np.zeros(2), np.diag([1.0, -0.1]), "covariance must have no eigenvalue below 0, got -0.1"),
        (np.zeros(2), np.full((2, 2), np.nan), "covariance must be finite"),
    ],
)
def test_what_is_no_law_is_refused(mean, covariance, complaint):
    with pytest.raises(ValueError, match=complaint):
        metrics.frechet_distance_to(np.random.default_rng(0).normal(size=(5, 2)), mean, covariance)


def test_kernel_mmd_is_the_sum_over_pairs():
    generator = np.random.default_rng(6)
    first, second = generator.normal(size=(5, 3)), generator.normal(size=(4, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(points, 2)]) for points in (first, second)]
    across = np.mean([kernel(a, b) for a in first for b in second])
    np.testing.assert_allclose(metrics.kernel_mmd(first, second), sum(within) - 2 * across, rtol=1e-12)


def test_kernel_mmd_is_zero_on_average_for_one_law():
    generator = np.random.default_rng(7)
    found = [metrics.kernel_mmd(*generator.normal(size=(2, 40, 3))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(400)


def test_neighbourhood_by_hand():
    """Balls (k = 1) of the reference 0, 1, 10, 12: radii 1, 1, 2, 2; of the samples 0.5, 1.5, 11, 30: 1, 1, 9.5, 19."""
    reference, samples = np.array([[0.0], [1.0], [10.0], [12.0]]), np.array([[0.5], [1.5], [11.0], [30.0]])
    found = metrics.precision_recall(samples, reference, neighbours=1)
    assert found.precision == 3 / 4
    assert found.density == (2 + 1 + 2) / 4
    assert found.coverage == 1.0
    assert found.recall == 1.0
    missed = metrics.precision_recall(np.array([[0.5], [0.6], [0.7], [0.8]]), reference, neighbours=1)
    assert missed.coverage == 0.5
    assert missed.recall == 0.0
    assert missed.precision == 1.0
    far = metrics.precision_recall(np.array([[0.4], [0.5], [0.6], [30.0]]), reference, neighbours=1)
    assert far.recall == 3 / 4, "one wide ball holds three rows of the reference"


def test_a_repeated_reference_is_told():
    """100 points 10 times each (prdc 0.2 gives precision, density and coverage 0 and recall .89, and no word)."""
    generator = np.random.default_rng(9)
    samples, points = generator.normal(size=(1000, 4)), generator.normal(size=(100, 4))
    reference = np.repeat(points, 10, axis=0)
    with pytest.raises(ValueError, match="reference must not repeat every row more than k = 5 times"):
        metrics.precision_recall(samples, reference)
    partly = np.concatenate([reference[:300], generator.normal(size=(200, 4))])
    with pytest.warns(UserWarning, match="reference repeats: 300 of 500 rows lie on their k nearest others, and prec"):
        found = metrics.precision_recall(samples, partly)
    assert 0.3 < found.coverage <= 200 / 500, "the balls of 300 rows hold no sample"
    assert metrics.num_repeated(partly) == 300
    assert metrics.num_repeated(partly, neighbours=10) == 0


def test_repeated_samples_are_told_and_measured():
    """A sampler with one output: its recall is 0, which is a finding and no error. So with the rounding of float32."""
    generator = np.random.default_rng(10)
    reference, one = generator.normal(size=(50, 8)), 100 + generator.normal(size=(1, 8))
    rounded = np.repeat(one, 50, axis=0) * (1 + 1e-7 * generator.normal(size=(50, 1)))
    for samples in (np.repeat(one, 50, axis=0), rounded):
        with pytest.warns(UserWarning, match="samples repeats: 50 of 50 rows lie on their k nearest .*, and recall"):
            assert metrics.precision_recall(samples, reference).recall == 0


def test_as_many_copies_as_neighbours_are_no_repeats():
    """k copies of a row are allowed: its ball then reaches to the next one."""
    generator = np.random.default_rng(11)
    samples, reference = generator.normal(size=(2, 40, 3))
    found = metrics.precision_recall(samples, np.repeat(reference, 5, axis=0), neighbours=5)
    assert found.precision > 0.5


def test_copies_cannot_be_told_where_held_out_points_are_training_points():
    """With 2 % of them exact copies the bound of the quantile 1 % is 0, and a model that copies all would have 0 %."""
    training = np.random.default_rng(12).normal(size=(300, 6))
    held_out = np.concatenate([training[:4], np.random.default_rng(13).normal(size=(196, 6))])
    nearest = [metrics.nearest_distances(points, training) for points in (training[:50], held_out)]
    with pytest.raises(
        ValueError, match=r"held_out_nearest must be above 0 at the quantile 0\.01: held-out points lie"
    ):
        metrics.memorization_rate(*nearest)
    assert metrics.memorization_rate(*nearest, quantile=0.05) == 1.0


def test_one_law_has_density_one_and_full_coverage():
    generator = np.random.default_rng(8)
    found = metrics.precision_recall(*generator.normal(size=(2, 800, 4)))
    assert abs(found.density - 1) < 0.1
    assert abs(found.coverage - (1 - 2.0**-5)) < 0.03


@pytest.mark.parametrize("number", [metrics.frechet_distance, metrics.kernel_mmd, metrics.precision_recall])
@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (np.zeros((10, 3)), "as many features"),
        (np.zeros(10), "samples must be"),
        (np.zeros((1, 2)), "samples must be"),
        (np.full((10, 2), np.nan), "samples must be finite"),
    ],
)
def test_features_of_the_wrong_form_are_refused(number, samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        number(samples, np.zeros((10, 2)))


def test_calibration_error_by_hand():
    """Two bins: 4 examples at 0.9 with 3 right, 2 at 0.55 with none right."""
    high, low = np.log([0.9, 0.1]), np.log([0.45, 0.55])
    log_probs, labels = np.array([high] * 4 + [low] * 2), np.array([0, 0, 0, 1, 0, 0])
    expected = (4 * abs(0.9 - 0.75) + 2 * abs(0.55 - 0.0)) / 6
    np.testing.assert_allclose(metrics.calibration_error(log_probs, labels, num_bins=10), expected, rtol=1e-12)


def test_a_sure_example_shares_the_last_bin():
    """One at 1, wrong, and one at 0.95, right, are 1.95 sure of 1 right."""
    log_probs = np.array([[0.0, -np.inf], np.log([0.05, 0.95])])
    np.testing.assert_allclose(metrics.calibration_error(log_probs, np.array([1, 1]), num_bins=10), 0.475, rtol=1e-12)


def test_the_last_two_bins_are_two():
    """One wrong at 0.85 and one right at 0.95: errors of opposite signs, which one bin would set off."""
    log_probs = np.log([[0.85, 0.15], [0.05, 0.95]])
    expected = (0.85 + 0.05) / 2
    np.testing.assert_allclose(
        metrics.calibration_error(log_probs, np.array([1, 1]), num_bins=10), expected, rtol=1e-12
    )


def test_a_sure_and_right_classifier_is_calibrated():
    log_probs = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert metrics.calibration_error(log_probs, np.array([0, 1])) == 0.0


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_oracles_residuals_vanish(t, x64, clustered):
    """(R1) and (R2)."""
    path, null = paths.linear(), clustered.num_classes
    field, log_probs = clustered.vector_field(path), clustered.label_log_probs(path)
    x, t, y = jnp.array([0.3, -0.8]), jnp.asarray(t), jnp.asarray(1)
    by_classifier, by_label = residuals.guidance_terms(path, field, log_probs, x, t, y, null)
    np.testing.assert_allclose(by_classifier, by_label, rtol=1e-8, atol=1e-10)
    mean = residuals.posterior_mean_field(field, log_probs, null)(x, t)
    np.testing.assert_allclose(mean, field(x, t, jnp.asarray(null)), rtol=1e-8)


def test_a_wrong_classifier_shows_in_the_residuals(clustered):
    path, null = paths.linear(), clustered.num_classes
    field, log_probs = clustered.vector_field(path), clustered.label_log_probs(path)
    wrong = lambda x, t: jax.nn.log_softmax(0.5 * log_probs(x, t))  # noqa: E731
    x, t, y = jnp.array([0.3, -0.8]), jnp.float32(0.4), jnp.int32(1)
    by_classifier, by_label = residuals.guidance_terms(path, field, wrong, x, t, y, null)
    assert float(jnp.max(jnp.abs(by_classifier - by_label))) > 1e-2
    mean = residuals.posterior_mean_field(field, wrong, null)(x, t)
    assert float(jnp.max(jnp.abs(mean - field(x, t, jnp.int32(null))))) > 1e-2


def test_energy_distance_of_two_points_and_of_equal_laws():
    """By hand on two points each; and on one law the mean over many pairs is 0, within 4 standard errors."""
    one, other = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    across = (0 + 1 + 5 + np.hypot(3, 3)) / 4
    np.testing.assert_allclose(metrics.energy_distance(one, other), 2 * across - 5 - 1, rtol=1e-12)
    rng = np.random.default_rng(0)
    found = [metrics.energy_distance(*rng.normal(size=(2, 50, 2))) for _ in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)


def test_energy_distance_of_shifted_normals():
    """In 1-D, of N(0, 1) and N(m, 1): 2 E|N(m, 2)| - 2 E|N(0, 2)|, in closed form."""
    rng, shift = np.random.default_rng(1), 1.5
    found = metrics.energy_distance(rng.normal(size=(2000, 1)), shift + rng.normal(size=(2000, 1)))
    folded = 2 / np.sqrt(np.pi) * np.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    np.testing.assert_allclose(found, 2 * folded - 4 / np.sqrt(np.pi), rtol=0.08)
