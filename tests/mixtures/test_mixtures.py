"""The oracle, (M1) to (M4), against SciPy, quadrature, autodiff and its own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cfgjax import mixtures, paths
from cfgjax.mixtures import LabelledMixture

TIMES = np.array([0.0, 0.3, 0.9, 1.0])
LABELS = np.arange(4)
POINTS = np.random.default_rng(0).normal(size=(6, 2))


def _over(view, ts=TIMES, ys=LABELS, points=POINTS):
    """The view's values at all times, labels and points, with these three axes in front."""
    by_point = jax.vmap(view, in_axes=(0, None, None))
    by_label = jax.vmap(by_point, in_axes=(None, None, 0))
    return jax.jit(jax.vmap(by_label, in_axes=(None, 0, None)))(jnp.asarray(points), jnp.asarray(ts), jnp.asarray(ys))


VIEWS = ["vector_field", "score", "noise", "denoiser"]


def _views(mixture, path):
    """A LabelledField whose value is the stack of all four VIEWS."""
    views = [getattr(mixture, name)(path) for name in VIEWS]
    return lambda x, t, y: jnp.stack([view(x, t, y) for view in views])


def _relative(found, expected):
    return np.linalg.norm(np.asarray(found) - np.asarray(expected)) / np.linalg.norm(np.asarray(expected))


def _flat(arrays):
    """Components [K M], with the label of each."""
    weights, means, covariances = arrays
    labels = np.broadcast_to(np.arange(3).reshape(3, *[1] * (weights.ndim - 1)), weights.shape)
    return weights.reshape(-1), means.reshape(-1, 2), covariances.reshape(-1, 2, 2), labels.reshape(-1)


def _scipy_log_density(arrays, c, y):
    """log p_t(x|y) at POINTS by (M2)."""
    weights, means, covariances, labels = _flat(arrays)
    chosen = np.ones_like(labels, bool) if y == 3 else labels == y
    density = np.zeros(len(POINTS))
    for weight, mean, covariance in zip(weights[chosen], means[chosen], covariances[chosen], strict=True):
        spread = float(c.alpha) ** 2 * covariance + float(c.beta) ** 2 * np.eye(2)
        density += weight * multivariate_normal(float(c.alpha) * mean, spread).pdf(POINTS)
    return np.log(density / weights[chosen].sum())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("arrays", ["skewed_arrays", "clustered_arrays"])
def test_log_density_agrees_with_scipy(path, arrays, request):
    """(M1, M2), for each label and the null label."""
    arrays = request.getfixturevalue(arrays)
    found = _over(LabelledMixture(*map(jnp.asarray, arrays)).log_density(path))
    expected = [[_scipy_log_density(arrays, paths.coefficients(path, t), y) for y in LABELS] for t in TIMES]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_score_is_the_gradient_of_the_log_density(path, clustered):
    found, expected = _over(clustered.score(path)), _over(jax.grad(clustered.log_density(path)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_label_posterior_is_bayes_rule(path, clustered, clustered_arrays):
    density, weights = _over(clustered.log_density(path)), clustered_arrays[0]
    prior = np.log(weights.sum(axis=1) / weights.sum())
    classifier = clustered.label_log_probs(path)
    found = _over(lambda x, t, y: classifier(x, t)[y], ys=LABELS[:3])
    expected = prior.reshape(1, 3, 1) + density[:, :3] - density[:, 3:]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_axes_of_three_dimensions(plain_or_steep_path):
    """Density, score and posterior as above, where the matrix of a covariance's axes is not its own transpose."""
    rng, path = np.random.default_rng(5), plain_or_steep_path
    weights, means, factors = np.array([0.4, 0.6]), rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 3))
    covariances = 0.3 * factors @ np.swapaxes(factors, 1, 2) + 0.1 * np.eye(3)
    mixture, points = LabelledMixture(*map(jnp.asarray, (weights, means, covariances))), rng.normal(size=(4, 3))
    grid = {"ts": TIMES[1:-1], "ys": np.arange(2), "points": points}
    density, posterior = mixture.log_density(path), mixture.label_log_probs(path)
    for found, t in zip(np.asarray(_over(density, **grid)), grid["ts"], strict=True):
        alpha, beta = (float(each) for each in paths.coefficients(path, t)[:2])
        laws = [multivariate_normal(alpha * means[y], alpha**2 * covariances[y] + beta**2 * np.eye(3)) for y in (0, 1)]
        np.testing.assert_allclose(found, [law.logpdf(points) for law in laws], rtol=1e-9)
    np.testing.assert_allclose(_over(mixture.score(path), **grid), _over(jax.grad(density), **grid), rtol=1e-8)
    by_bayes = _over(lambda x, t, y: jnp.log(weights)[y] + density(x, t, y) - density(x, t, jnp.asarray(2)), **grid)
    np.testing.assert_allclose(_over(lambda x, t, y: posterior(x, t)[y], **grid), by_bayes, rtol=1e-8, atol=1e-12)


def _line():
    """Two labels in 1-D, the second of two components."""
    weights, means = jnp.array([[0.3, 0.0], [0.5, 0.2]]), jnp.array([[[-1.0], [0.0]], [[0.5], [1.5]]])
    return LabelledMixture(weights, means, jnp.array([0.2, 0.3, 0.05, 0.4]).reshape(2, 2, 1, 1))


def _posterior_averages(path, x, t, y):
    """E of conditional field, conditional score, noise and z given x and y, by quadrature over z."""
    mixture, z = _line(), np.linspace(-6, 7, 40_001)
    weights = np.asarray(mixture.weights)[..., None]
    means, variances = np.asarray(mixture.means), np.asarray(mixture.covariances)[..., 0]
    chosen = slice(None) if y == 2 else slice(y, y + 1)
    parts = weights * np.exp(-0.5 * (z - means) ** 2 / variances) / np.sqrt(variances)
    c = paths.coefficients(path, t)
    joint = parts[chosen].sum(axis=(0, 1)) * np.exp(-0.5 * ((x - c.alpha * z) / c.beta) ** 2)
    joint = joint / joint.sum()
    states = jnp.full(z.shape, x)
    field = paths.conditional_field(path, states, jnp.asarray(z), t)
    score = paths.conditional_score(path, states, jnp.asarray(z), t)
    noise = (x - c.alpha * z) / c.beta
    return [joint @ field, joint @ score, joint @ noise, joint @ z]


@pytest.mark.usefixtures("x64")
def test_views_are_posterior_averages(path):
    """The definitions of u, s, E and D as averages over p(z | x, y), by quadrature in 1-D."""
    ts, ys = np.array([0.1, 0.5, 0.9]), np.arange(3)
    found = _over(_views(_line(), path), ts, ys, points=[[0.4]])
    expected = [[_posterior_averages(path, 0.4, t, y) for y in ys] for t in ts]
    np.testing.assert_allclose(found[:, :, 0, :, 0], expected, rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_views_satisfy_the_identities(path, clustered):
    """(C1): x = alpha D + beta E, E = -beta s, u = alpha' D + beta' E, up to the ends."""
    views = [getattr(clustered, name)(path) for name in ("denoiser", "noise", "score", "vector_field")]

    def differences(x, t, y):
        t = paths.before_end(t)
        c, (denoiser, noise, score, field) = paths.coefficients(path, t), [view(x, t, y) for view in views]
        remainders = (
            c.alpha * denoiser + c.beta * noise - x,
            c.beta * score + noise,
            (c.alpha_dot * denoiser + c.beta_dot * noise - field) * c.beta,
        )
        return jnp.stack(remainders)

    assert np.max(np.abs(_over(differences))) < 1e-12


@pytest.mark.usefixtures("x64")
def test_null_values_are_posterior_averages_of_the_labelled_ones(path, clustered):
    classifier = clustered.label_log_probs(path)
    posterior = _over(lambda x, t, y: jnp.exp(classifier(x, t)), ys=[0])[:, 0]
    values = _over(_views(clustered, path))
    expected = np.einsum("tnk,tknvd->tnvd", posterior, values[:, :3])
    np.testing.assert_allclose(values[:, 3], expected, rtol=1e-9, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_continuity_equation(path, clustered):
    """d/dt log p + div u + u . grad log p = 0: the field moves the density."""
    density, field = clustered.log_density(path), clustered.vector_field(path)

    def terms(x, t, y):
        slope, rate = jax.grad(density, argnums=(0, 1))(x, t, y)
        return jnp.stack([rate, jnp.trace(jax.jacfwd(field)(x, t, y)), jnp.sum(field(x, t, y) * slope)])

    found = np.asarray(_over(terms, ts=[0.02, 0.5, 0.98]))
    assert np.all(np.abs(found.sum(axis=-1)) < 1e-9 * (1 + np.abs(found).sum(axis=-1)))


def test_values_at_the_ends(exact_path, skewed, skewed_arrays):
    """At t = 0 the denoiser is the label's mean and the score -x; at t = 1 the denoiser is x and the noise 0."""
    x, y = jnp.array([0.3, -0.2]), jnp.asarray(1)
    zero, one = jnp.float32(0), jnp.float32(1)
    np.testing.assert_allclose(skewed.denoiser(exact_path)(x, zero, y), skewed_arrays[1][1], rtol=1e-6)
    np.testing.assert_allclose(skewed.score(exact_path)(x, zero, y), -x, rtol=1e-6)
    np.testing.assert_allclose(skewed.denoiser(exact_path)(x, one, y), x, rtol=1e-5)
    np.testing.assert_array_equal(skewed.noise(exact_path)(x, one, y), jnp.zeros(2))


def test_all_is_finite_far_away_and_at_both_ends(path, clustered):
    points, ts = np.array([[40.0, -60.0], [0.0, 0.0]], np.float32), np.arange(2, dtype=np.float32)
    assert np.all(np.isfinite(_over(_views(clustered, path), ts=ts, points=points)))
    assert np.all(np.isfinite(_over(clustered.log_density(path), ts=ts, points=points)))


def _moments(arrays, y):
    weights, means, covariances, labels = _flat(arrays)
    chosen = np.ones_like(labels, bool) if y == 3 else labels == y
    weights = weights[chosen] / weights[chosen].sum()
    mean = weights @ means[chosen]
    second = covariances[chosen] + np.einsum("mi,mj->mij", means[chosen], means[chosen])
    return mean, np.einsum("m,mij->ij", weights, second) - np.outer(mean, mean)


def _assert_moments(samples, mean, covariance):
    """Mean and each entry of the covariance within 4 standard errors, the latter's from the samples' own products."""
    samples = np.asarray(samples, np.float64)
    root = np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - mean) < 4 * np.sqrt(np.diag(covariance)) / root)
    centred = samples - mean
    products = np.einsum("ni,nj->nij", centred, centred)
    assert np.all(np.abs(products.mean(axis=0) - covariance) < 4 * products.std(axis=0) / root)


@pytest.mark.parametrize("y", [0, 2, 3])
def test_samples_have_the_moments_of_the_data(y, clustered, clustered_arrays):
    """(M1), for labels and the null label."""
    keys = jax.random.split(jax.random.key(y), 20_000)
    samples = jax.jit(jax.vmap(lambda key: clustered.sample(key, jnp.asarray(y))))(keys)
    _assert_moments(samples, *_moments(clustered_arrays, y))


def test_samples_on_a_path_have_its_moments(plain_or_steep_path, clustered, clustered_arrays):
    """(M2)."""
    path = plain_or_steep_path
    keys = jax.random.split(jax.random.key(1), 20_000)
    samples = jax.jit(jax.vmap(lambda key: clustered.sample(key, jnp.asarray(3), path, 0.6)))(keys)
    (mean, covariance), c = _moments(clustered_arrays, 3), paths.coefficients(path, 0.6)
    alpha, beta = float(c.alpha), float(c.beta)
    _assert_moments(samples, alpha * mean, alpha**2 * covariance + beta**2 * np.eye(2))


def test_labels_are_drawn_with_their_weights(clustered, clustered_arrays):
    num_samples, weights = 20_000, clustered_arrays[0].sum(axis=1) / clustered_arrays[0].sum()
    labels = jax.vmap(clustered.sample_label)(jax.random.split(jax.random.key(5), num_samples))
    frequencies = np.bincount(labels, minlength=3) / num_samples
    assert len(frequencies) == 3
    assert np.all(np.abs(frequencies - weights) < 4 * np.sqrt(weights * (1 - weights) / num_samples))


@pytest.mark.usefixtures("x64")
def test_components_of_a_label_agree_with_labels_of_their_own(clustered_arrays, clustered):
    """The marginal does not know which component carries which label."""
    weights, means, covariances, _ = _flat(clustered_arrays)
    flat, path = LabelledMixture(*map(jnp.asarray, (weights, means, covariances))), paths.cosine()
    np.testing.assert_allclose(
        _over(_views(clustered, path), ys=[3]), _over(_views(flat, path), ys=[6]), rtol=1e-11, atol=1e-13
    )
    np.testing.assert_allclose(
        _over(clustered.log_density(path), ys=[3]), _over(flat.log_density(path), ys=[6]), rtol=1e-12
    )


def test_weights_are_normalised(skewed, skewed_arrays):
    weights, means, covariances = skewed_arrays
    doubled = LabelledMixture(*map(jnp.asarray, (2 * weights, means, covariances)))
    x, t, y = jnp.array([0.3, -0.2]), jnp.float32(0.4), jnp.asarray(3)
    found = doubled.log_density(paths.linear())(x, t, y)
    np.testing.assert_allclose(found, skewed.log_density(paths.linear())(x, t, y), rtol=1e-6)


def test_single_precision_is_close_to_double(path, skewed, skewed_arrays):
    ts = np.array([0.02, 0.5, 0.98], np.float32)
    single = _over(skewed.vector_field(path), ts)
    with jax.enable_x64(True):
        double = _over(LabelledMixture(*map(jnp.asarray, skewed_arrays)).vector_field(path), ts.astype(np.float64))
    assert max(_relative(s, d) for s, d in zip(single, double, strict=True)) < 1e-4


def test_passes_through_jit_as_a_pytree(skewed):
    def score(mixture, x):
        return mixture.score(paths.linear())(x, jnp.float32(0.5), jnp.asarray(1))

    x = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(jax.jit(score)(skewed, x), score(skewed, x), rtol=1e-5)
    leaves, tree = jax.tree.flatten(skewed)
    again = jax.tree.unflatten(tree, leaves)
    np.testing.assert_array_equal(again.means, skewed.means)
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(skewed)[0]] == [
        ".weights",
        ".means",
        ".covariances",
    ]


def test_a_tree_of_other_things_is_not_checked(skewed):
    """Cotangents and zeros in a mixture's place are no mixture, and JAX must be able to hold them."""
    zeros = jax.tree.map(jnp.zeros_like, skewed)
    np.testing.assert_array_equal(jax.tree.map(jnp.add, zeros, skewed).covariances, skewed.covariances)


def test_gradient_flows_to_the_numbers_of_the_mixture(skewed):
    """The log-likelihood's gradient in a label's mean is C^-1 (x - mean) at t = 1."""
    x, one, y = jnp.array([0.3, -0.2]), jnp.float32(1), jnp.asarray(1)
    gradient = jax.jit(jax.grad(lambda mixture: mixture.log_density(paths.linear())(x, one, y)))(skewed)
    expected = np.linalg.solve(skewed.covariances[1, 0], x - skewed.means[1, 0])
    np.testing.assert_allclose(gradient.means[1, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("mixture", [mixtures.ring(4, radius=3.0, std=0.2), mixtures.grid(2, spacing=2.0, std=0.2)])
def test_ready_made_mixtures_are_round_and_centred(mixture):
    assert mixture.num_classes == 4
    np.testing.assert_allclose(mixture.means.sum(axis=(0, 1)), jnp.zeros(2), atol=1e-6)
    np.testing.assert_allclose(mixture.covariances[2, 0], 0.04 * np.eye(2), atol=1e-7)


def test_positions_of_ready_made_mixtures():
    ring = np.asarray(mixtures.ring(4, radius=3.0).means[:, 0])
    np.testing.assert_allclose(ring, [[3, 0], [0, 3], [-3, 0], [0, -3]], atol=1e-5)
    grid = np.asarray(mixtures.grid(2, spacing=2.0).means[:, 0])
    np.testing.assert_allclose(sorted(map(tuple, grid)), [(-1, -1), (-1, 1), (1, -1), (1, 1)], atol=1e-6)


EYE = np.broadcast_to(np.eye(2), (3, 2, 2))


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "name"),
    [
        (np.ones(3), np.zeros((2, 2)), EYE, "means"),
        (np.ones((3, 1)), np.zeros((3, 2)), EYE, "means"),
        (np.ones((3, 1, 1)), np.zeros((3, 1, 1, 2)), EYE, "weights"),
        (np.ones(3), np.zeros((3, 2)), EYE[:2], "covariances"),
        (np.ones(3), np.zeros((3, 2)), np.ones((3, 2)), "covariances"),
        (np.array([1.0, -1.0, 2.0]), np.zeros((3, 2)), EYE, "weights"),
        (np.zeros(3), np.zeros((3, 2)), EYE, "weights"),
        (np.array([1.0, np.nan, 2.0]), np.zeros((3, 2)), EYE, "weights"),
        (np.ones(3), np.zeros((3, 2)), -EYE, "covariances"),
        (np.ones(3), np.zeros((3, 2)), np.ones((3, 2, 2)) - 0.5 * EYE, "covariances"),
    ],
)
def test_bad_arguments_are_refused_by_name(weights, means, covariances, name):
    with pytest.raises(ValueError, match=name):
        LabelledMixture(weights, means, covariances)


@pytest.mark.parametrize("y", [-1, 4])
def test_a_label_outside_is_refused(y, skewed):
    with pytest.raises(ValueError, match="y must be in"):
        skewed.sample(jax.random.key(0), y)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "complaint"),
    [
        ([1.0, 0.0], np.zeros((2, 1)), np.ones((2, 1, 1)), "weights must be finite"),
        ([1.0, np.inf], np.zeros((2, 1)), np.ones((2, 1, 1)), "weights must be finite"),
        ([1.0, 1.0], np.full((2, 1), np.nan), np.ones((2, 1, 1)), "means must be finite"),
        ([1.0], np.zeros((1, 2)), np.array([[[1.0, 0.5], [0.0, 1.0]]]), "covariances must be symmetric"),
    ],
)
def test_numbers_that_would_give_nan_are_refused(weights, means, covariances, complaint):
    with pytest.raises(ValueError, match=complaint):
        LabelledMixture(np.array(weights), means, covariances)
