"""The oracle of labels and vectors together, (J1) to (J3), against SciPy, autodiff and mixtures made by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from cfgjax import conversions, guidance, mixtures, paths
from cfgjax.conditions import known
from cfgjax.mixtures import JointMixture, LabelledMixture

SIZES = {"place": 1, "shade": 2}
POINTS = np.random.default_rng(0).normal(size=(5, 2))
VECTORS = {"place": np.array([0.4]), "shade": np.array([-0.7, 0.9])}
SUBSETS = [subset for count in range(4) for subset in itertools.combinations(("label", "place", "shade"), count)]


def _arrays():
    """Weights [3, 2], means [3, 2, 5] and covariances of a mixture over points [2] and vectors [3]."""
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(3, 2, 5, 5))
    covariances = np.einsum("...ij,...kj->...ik", factors, factors) / 5 + 0.2 * np.eye(5)
    return rng.uniform(0.2, 1.0, size=(3, 2)), rng.normal(size=(3, 2, 5)), covariances


@pytest.fixture
def joint():
    return JointMixture(LabelledMixture(*map(jnp.asarray, _arrays())), SIZES)


def _condition(joint, subset, label=2):
    """The condition of which a subset is known, in the structure of all of it."""
    there = {name: known(jnp.asarray(VECTORS[name])) for name in SIZES if name in subset}
    return joint.null | there | ({"label": jnp.asarray(label)} if "label" in subset else {})


def _scipy(subset, alpha, beta, points, label=2):
    """(log p_t(x, c, label), log p(c, label)) of a subset at points, by the Gaussians of (x, c) together."""
    weights, means, covariances = _arrays()
    log_weights = np.log(weights / weights.sum())
    names = [name for name in SIZES if name in subset]
    at = {"place": [2], "shade": [3, 4]}
    rows = [row for name in names for row in at[name]]
    vector = np.concatenate([VECTORS[name] for name in names]) if names else np.zeros(0)
    labels = [label] if "label" in subset else range(3)
    together, alone = [], []
    for y, m in itertools.product(labels, range(2)):
        scale = np.concatenate([np.full(2, alpha), np.ones(len(rows))])
        mean, covariance = means[y, m][[0, 1, *rows]], covariances[y, m][np.ix_([0, 1, *rows], [0, 1, *rows])]
        covariance = np.outer(scale, scale) * covariance
        covariance[:2, :2] += beta**2 * np.eye(2)
        states = np.concatenate([points, np.tile(vector, (len(points), 1))], axis=1)
        together.append(log_weights[y, m] + multivariate_normal(scale * mean, covariance).logpdf(states))
        own = multivariate_normal(mean[2:], covariance[2:, 2:]).logpdf(vector) if rows else 0.0
        alone.append(log_weights[y, m] + own)
    return logsumexp(together, axis=0), logsumexp(alone)


def _every(joint):
    """The conditions of all SUBSETS, stacked."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[_condition(joint, subset) for subset in SUBSETS])


def _over(view, ts):
    """The view as a function of (points [n, 2], conditions): its values [subsets, times, points, ...]."""
    by_point = jax.vmap(view, (0, None, None))
    by_time = jax.vmap(by_point, (None, 0, None))
    return jax.jit(lambda points, ys: jax.vmap(by_time, (None, None, 0))(points, jnp.asarray(ts), ys))


@pytest.mark.usefixtures("x64")
def test_densities_of_every_subset_agree_with_scipy(joint, path):
    """(J1, J2) and (J3)."""
    ts = (0.3, 0.9)
    both = (joint.log_density(path), joint.condition_log_prob(path))
    of_x, of_y = (_over(view, ts)(POINTS, _every(joint)) for view in both)
    for (i, subset), (j, t) in itertools.product(enumerate(SUBSETS), enumerate(ts)):
        alpha, beta = (float(part(jnp.asarray(t))) for part in (path.alpha, path.beta))
        together, alone = _scipy(subset, alpha, beta, POINTS)
        marginal, _ = _scipy((), alpha, beta, POINTS)
        np.testing.assert_allclose(of_x[i, j], together - alone, rtol=1e-10, err_msg=str(subset))
        np.testing.assert_allclose(of_y[i, j], together - marginal, rtol=1e-10, atol=1e-10, err_msg=str(subset))


@pytest.mark.usefixtures("x64")
def test_views_are_those_of_the_density(joint, plain_or_steep_path):
    """The score is the density's gradient, and field, noise prediction and denoiser follow from it by (C3)."""
    names = ("vector_field", "score", "noise", "denoiser")

    def at(x, t, y):
        exact = jax.grad(joint.log_density(plain_or_steep_path))(x, t, y)
        found = [getattr(joint, name)(plain_or_steep_path)(x, t, y) for name in names]
        return jnp.stack(found), jnp.stack(conversions.from_score(plain_or_steep_path, exact, x, t))

    found, expected = _over(at, (0.4,))(POINTS, _every(joint))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("precision", "tolerance"), [("x32", 1e-4), ("x64", 1e-10)])
def test_classifier_guidance_is_classifier_free(precision, tolerance, plain_or_steep_path, request):
    """(G3) for a density of vectors, a label, and both, over the states of every t."""
    if precision == "x64":
        request.getfixturevalue("x64")
    joint = JointMixture(LabelledMixture(*map(jnp.asarray, _arrays())), SIZES)
    path, ts = plain_or_steep_path, (0.02, 0.2, 0.5, 0.8, 0.97)
    field = joint.vector_field(path)
    free = guidance.classifier_free(field, 2.5, joint.null)
    by_classifier = guidance.classifier(path, guidance.given(field, joint.null), joint.condition_log_prob(path), 2.5)
    one, other = (_over(guided, ts)(jnp.asarray(POINTS), _every(joint)) for guided in (free, by_classifier))
    error = np.linalg.norm(one - other, axis=(2, 3)) / np.linalg.norm(other, axis=(2, 3))
    assert np.max(error) < tolerance


def test_without_vectors_it_is_the_labelled_mixture(joint):
    path = paths.cosine()
    weights, means, covariances = vars(joint.mixture).values()
    plain = LabelledMixture(weights, means[..., :2], covariances[..., :2, :2])
    for label in (0, 2, 3):
        found = joint.vector_field(path)(jnp.asarray(POINTS[0]), 0.4, joint.null | {"label": jnp.asarray(label)})
        np.testing.assert_allclose(found, plain.vector_field(path)(jnp.asarray(POINTS[0]), 0.4, label), rtol=2e-6)


def test_a_missing_condition_is_one_that_is_unknown(joint):
    path, x = paths.linear(), jnp.asarray(POINTS[0])
    field = joint.vector_field(path)
    np.testing.assert_array_equal(
        field(x, 0.4, {"shade": jnp.asarray(VECTORS["shade"])}), field(x, 0.4, _condition(joint, ("shade",)))
    )
    np.testing.assert_array_equal(field(x, 0.4, {}), field(x, 0.4, joint.null))


def test_the_value_of_what_is_unknown_is_not_looked_at(joint):
    field, x = joint.vector_field(paths.linear()), jnp.asarray(POINTS[0])
    y = _condition(joint, ("label", "shade"))
    hidden = y | {"place": y["place"]._replace(value=jnp.array([1e6]))}
    np.testing.assert_array_equal(field(x, 0.4, hidden), field(x, 0.4, y))
    hidden = y | {"place": y["place"]._replace(value=jnp.array([jnp.nan]))}
    assert np.all(np.isfinite(jax.jit(field)(x, 0.4, hidden)))


def test_one_trace_serves_every_subset(joint):
    traces = []

    @jax.jit
    def at(x, t, y):
        traces.append(1)
        return joint.vector_field(paths.linear())(x, t, y)

    values = [at(jnp.asarray(POINTS[0]), 0.4, _condition(joint, subset)) for subset in SUBSETS]
    assert len(traces) == 1
    assert len(np.unique(np.round(np.stack(values)[:, 0], 5))) == len(SUBSETS)


def test_draws_have_the_moments_of_the_mixture(joint):
    """Of (z, y) together, and of z given y and noised, within five standard errors."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    z, y = jax.jit(jax.vmap(joint.sample_joint))(keys)
    drawn = np.concatenate([z, *(y[name].value for name in SIZES)], axis=1)
    weights, means, _ = (np.asarray(each, np.float64) for each in _arrays())
    exact = np.einsum("km,kmd->d", weights / weights.sum(), means)
    assert np.max(np.abs(drawn.mean(axis=0) - exact) / (drawn.std(axis=0) / np.sqrt(len(keys)))) < 5
    shares = np.bincount(y["label"], minlength=3) / len(keys)
    expected = weights.sum(axis=1) / weights.sum()
    assert np.max(np.abs(shares - expected) / np.sqrt(expected * (1 - expected) / len(keys))) < 5

    path, given = paths.cosine(), _condition(joint, ("label", "place"))
    x = np.asarray(jax.jit(jax.vmap(lambda key: joint.sample(key, given, path, 0.6)))(keys))
    scores = jax.jit(jax.vmap(lambda x: joint.score(path)(x, 0.6, given)))(x)
    assert np.max(np.abs(np.mean(scores, axis=0)) / (np.std(scores, axis=0) / np.sqrt(len(keys)))) < 5
    stein = np.einsum("ni,nj->nij", scores, x)
    errors = np.abs(stein.mean(axis=0) + np.eye(2)) / (stein.std(axis=0) / np.sqrt(len(keys)))
    assert np.max(errors) < 5


def test_linear_measurements_have_the_posterior_of_least_squares():
    """For z ~ N(0, I), c = A z + s e: p(z|c) = N((A^T A + s^2 I)^-1 A^T c, s^2 (A^T A + s^2 I)^-1)."""
    matrix, std = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 1.0]]), 0.3
    normal = LabelledMixture(jnp.ones(1), jnp.zeros((1, 3)), jnp.eye(3)[None])
    c = np.array([0.7, -0.4])
    found = mixtures.joint(normal, matrix, std).denoiser(paths.linear())(jnp.zeros(3), 0.0, {"vector": jnp.asarray(c)})
    precision = matrix.T @ matrix + std**2 * np.eye(3)
    np.testing.assert_allclose(found, np.linalg.solve(precision, matrix.T @ c), rtol=1e-5)
    score = mixtures.joint(normal, matrix, std).score(paths.linear())
    slope = jax.jacobian(lambda x: score(x, 1.0, {"vector": jnp.asarray(c)}))(jnp.ones(3))
    np.testing.assert_allclose(-slope * std**2, precision, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (3, "y must be a dict of label, place, shade, got int 3"),
        ({"text": 3}, "y must be a dict of label, place, shade, got dict"),
        ({"label": 4}, r"y\['label'\] must be in \[0, 3\], got 4"),
        ({"shade": jnp.ones(3)}, r"y\['shade'\] must have the shape \(2,\), got \(3,\)"),
        ({"shade": jnp.full(2, jnp.nan)}, r"y\['shade'\] must be finite"),
    ],
)
def test_wrong_conditions_are_refused_by_name(joint, y, message):
    with pytest.raises((TypeError, ValueError), match=message):
        joint.score(paths.linear())(jnp.zeros(2), 0.5, y)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vector": 5}, "sizes must sum to less than the mixture's 5 coordinates"),
        ({"label": 1}, "sizes must be a dict of the vectors' sizes by names other than 'label'"),
        ({}, "sizes must be a dict"),
        ({"vector": 0}, r"sizes\['vector'\] must be at least 1, got 0"),
    ],
)
def test_wrong_sizes_are_refused_by_name(sizes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        JointMixture(LabelledMixture(*map(jnp.asarray, _arrays())), sizes)
