"""Losses: (L1) to (L5) have the minimisers they name, and the weights and time densities they are given."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from cfgjax import conversions, losses, paths
from cfgjax.mixtures import LabelledMixture

NUM_SAMPLES = 20_000
INNER = losses.uniform(0.02, 0.98)
MATCHING = [losses.flow_matching, losses.noise_matching, losses.score_matching, losses.denoiser_matching]


def _mean_and_error(values):
    values = np.asarray(values, np.float64)
    return values.mean(), values.std() / np.sqrt(len(values))


def _pairs(mixture, num_samples=NUM_SAMPLES):
    """Keys, labels and data points of the mixture."""
    label_keys, data_keys, loss_keys = jax.random.split(jax.random.key(0), (3, num_samples))
    labels = jax.vmap(mixture.sample_label)(label_keys)
    return loss_keys, labels, jax.jit(jax.vmap(mixture.sample))(data_keys, labels)


@pytest.fixture(scope="module")
def examples(clustered_arrays):
    """Keys, labels and data of the mixture ``clustered``."""
    return _pairs(LabelledMixture(*map(jnp.asarray, clustered_arrays)), 5000)


def _bump(x, t, y):
    return jnp.sin(x + y) * jnp.ones_like(t)


@pytest.mark.parametrize(
    ("loss", "view", "size"),
    [
        (losses.flow_matching, "vector_field", 0.5),
        (losses.noise_matching, "noise", 0.2),
        (losses.score_matching, "score", 0.2),
        (losses.denoiser_matching, "denoiser", 0.2),
    ],
    ids=["flow", "noise", "score", "denoiser"],
)
def test_the_oracle_has_the_least_loss(plain_or_steep_path, loss, view, size, clustered, examples):
    """(L1), (L2), (L3), (L5): the loss grows for a small change of either sign, with common keys."""
    path, (keys, labels, data) = plain_or_steep_path, examples
    exact = getattr(clustered, view)(path)

    def changed(shift, key, y, z):
        field = lambda x, t, y: exact(x, t, y) + shift * _bump(x, t, y)  # noqa: E731
        return loss(path, field, key, z, y, time_density=INNER)

    each = jax.vmap(changed, in_axes=(None, 0, 0, 0))
    low, best, high = jax.jit(jax.vmap(each, in_axes=(0, None, None, None)))(
        jnp.array([-size, 0.0, size]), keys, labels, data
    )
    for other in (low, high):
        gain, error = _mean_and_error(np.asarray(other) - np.asarray(best))
        assert gain > 4 * error


def test_the_posterior_has_the_least_cross_entropy(plain_or_steep_path, clustered, examples):
    """(L4)."""
    path, (keys, labels, data) = plain_or_steep_path, examples
    exact = clustered.label_log_probs(path)

    def changed(shift, key, y, z):
        log_classifier = lambda x, t: jax.nn.log_softmax(exact(x, t) + shift * jnp.arange(3.0))  # noqa: E731
        return losses.classifier_cross_entropy(path, log_classifier, key, z, y)

    each = jax.vmap(changed, in_axes=(None, 0, 0, 0))
    low, best, high = jax.jit(jax.vmap(each, in_axes=(0, None, None, None)))(
        jnp.array([-0.5, 0.0, 0.5]), keys, labels, data
    )
    for other in (low, high):
        gain, error = _mean_and_error(np.asarray(other) - np.asarray(best))
        assert gain > 4 * error


@pytest.mark.usefixtures("x64")
def test_score_matching_is_noise_matching(path):
    """(L3) equals (L2) for E = -beta s, key by key: also for a field that is no score."""

    def both(key):
        z, y = jnp.array([0.3, -1.2]), jnp.asarray(1)
        noise = lambda x, t, y: -path.beta(t) * _bump(x, t, y)  # noqa: E731
        options = {"time_density": INNER, "weight": lambda t: 1 + t}
        by_noise = losses.noise_matching(path, noise, key, z, y, **options)
        return losses.score_matching(path, _bump, key, z, y, **options), by_noise

    by_score, by_noise = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(1), 50))
    np.testing.assert_allclose(by_score, by_noise, rtol=1e-10)


@pytest.mark.parametrize("loss", MATCHING)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_losses_and_their_gradients_are_finite_at_both_ends(path, loss, t):
    """Training never divides by beta."""
    value, slope = jax.value_and_grad(
        lambda gain: loss(
            path,
            lambda x, t: gain * x,
            jax.random.key(0),
            jnp.array([0.3, -1.2]),
            time_density=lambda key: jnp.float32(t),
        )
    )(0.7)
    assert np.isfinite(value)
    assert np.isfinite(slope)


@pytest.mark.parametrize("loss", MATCHING)
def test_weight_and_time_density_are_honoured(loss):
    """A weight c(t) multiplies the loss at its own t, and the field sees the times of the density."""
    call = partial(loss, paths.cosine(), _bump, jax.random.key(3), jnp.array([0.3, -1.2]), jnp.asarray(2))
    at = partial(call, time_density=lambda key: jnp.float32(0.25))
    np.testing.assert_allclose(at(weight=lambda t: 3 * t), 0.75 * at(), rtol=1e-6)
    assert float(at()) != float(call(time_density=lambda key: jnp.float32(0.5)))
    seen = []
    loss(
        paths.cosine(),
        lambda x, t: seen.append(float(t)) or x,
        jax.random.key(3),
        jnp.ones(2),
        time_density=lambda key: jnp.float32(0.25),
    )
    assert seen == [0.25]


def test_the_loss_by_hand():
    """(L1), (L2), (L3), (L5) as means over the coordinates, at the sample of the module's own time and noise keys."""
    path, z = paths.linear(), jnp.array([[0.3, -1.2, 2.0]])
    time_key, noise_key = jax.random.split(jax.random.key(3))
    t = jax.random.uniform(time_key)
    drawn = paths.sample(path, noise_key, z, t)
    expected = {
        losses.flow_matching: np.mean((np.sin(drawn.x) - (z - drawn.noise)) ** 2),
        losses.noise_matching: np.mean((np.sin(drawn.x) - drawn.noise) ** 2),
        losses.score_matching: np.mean(((1 - t) * np.sin(drawn.x) + drawn.noise) ** 2),
        losses.denoiser_matching: np.mean((np.sin(drawn.x) - z) ** 2),
    }
    for loss, value in expected.items():
        np.testing.assert_allclose(loss(path, lambda x, t: jnp.sin(x), jax.random.key(3), z), value, rtol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.94, 0.97, 1.0])
def test_a_prediction_of_the_data_with_a_loss_on_the_velocity(t):
    """Li & He's loss by hand: both velocities are divided by max(1 - t, 0.05), at the end, too."""
    path, key, z = paths.linear(), jax.random.key(3), jnp.array([0.3, -1.2, 2.0])
    noise = np.asarray(jax.random.normal(jax.random.split(key)[1], (3,)))
    state = t * np.asarray(z) + (1 - t) * noise
    target, found = ((data - state) / max(1 - t, 0.05) for data in (np.asarray(z), np.sin(state)))
    loss = losses.denoiser_matching(
        path,
        lambda x, t: jnp.sin(x),
        key,
        z,
        time_density=lambda key: jnp.float32(t),
        weight=losses.field_weight(path),
    )
    np.testing.assert_allclose(loss, np.mean((target - found) ** 2), rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("least_beta", [0.01, 0.4])
def test_the_weight_is_that_of_the_bounded_field(path, least_beta):
    """An error e of the denoiser is one of e sqrt(weight) in its field, at any time."""
    weight, x = losses.field_weight(path, least_beta), jnp.array([0.4, -1.0])

    def distance(t):
        one, other = (
            conversions.bounded_field_of_denoiser(path, lambda x, t, shift=shift: jnp.cos(x) + shift, least_beta)(x, t)
            for shift in (0.0, 0.5)
        )
        return jnp.square(one - other), 0.25 * weight(t)

    for t in (0.0, 0.2, 0.7, 0.97, 1.0):
        squares, expected = jax.jit(distance)(t)
        np.testing.assert_allclose(squares, jnp.full(2, expected), rtol=1e-6)
        assert np.isfinite(expected)


def test_cross_entropy_takes_the_label_that_was_given():
    log_probs = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    found = [
        losses.classifier_cross_entropy(
            paths.linear(), lambda x, t: log_probs, jax.random.key(0), jnp.ones(2), jnp.asarray(y)
        )
        for y in range(3)
    ]
    np.testing.assert_allclose(found, -log_probs, rtol=1e-6)


@pytest.mark.parametrize("loss", MATCHING)
def test_the_label_reaches_the_field(loss):
    seen = []
    loss(paths.linear(), lambda x, t, y: seen.append(int(y)) or x, jax.random.key(0), jnp.ones(2), jnp.asarray(5))
    assert seen == [5]


VARIANCE = 0.5


def _least_loss(name, t):
    """The variance of the target given x on the straight path, for data N(1.5, 0.5) and noise N(0, 1)."""
    total = t**2 * VARIANCE + (1 - t) ** 2
    target_variance = {"flow": VARIANCE + 1, "noise": 1.0}[name]
    covariance = {"flow": t * VARIANCE - (1 - t), "noise": 1 - t}[name]
    return target_variance - covariance**2 / total


@pytest.mark.parametrize(
    ("name", "loss", "view"),
    [("flow", losses.flow_matching, "vector_field"), ("noise", losses.noise_matching, "noise")],
)
def test_the_least_loss_of_a_gaussian(name, loss, view):
    """The mean over t of the target's conditional variance, by quadrature, within 4 standard errors."""
    path, ts = paths.linear(), (np.arange(10_000) + 0.5) / 10_000
    mixture = LabelledMixture(jnp.ones(1), jnp.array([[1.5]]), jnp.array([[[VARIANCE]]]))
    keys, labels, data = _pairs(mixture)
    values = jax.jit(jax.vmap(partial(loss, path, getattr(mixture, view)(path))))(keys, data, labels)
    mean, error = _mean_and_error(values)
    assert abs(mean - _least_loss(name, ts).mean()) < 4 * error


@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (0.2, 0.6)])
def test_uniform_times(start, stop):
    """Frequencies of ten bins within 4 standard errors."""
    times = jax.vmap(losses.uniform(start, stop))(jax.random.split(jax.random.key(0), NUM_SAMPLES))
    counts, _ = np.histogram(times, bins=np.linspace(start, stop, 11))
    assert counts.sum() == NUM_SAMPLES
    assert np.all(np.abs(counts / NUM_SAMPLES - 0.1) < 4 * np.sqrt(0.1 * 0.9 / NUM_SAMPLES))


@pytest.mark.parametrize(("location", "spread"), [(0.0, 1.0), (-0.8, 0.5)])
def test_logit_normal_times(location, spread):
    """The logit's distribution at five levels within 4 standard errors."""
    times = jax.vmap(losses.logit_normal(location, spread))(jax.random.split(jax.random.key(0), NUM_SAMPLES))
    logits = np.log(np.asarray(times)) - np.log1p(-np.asarray(times))
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        below = np.mean(logits < norm(location, spread).ppf(level))
        assert abs(below - level) < 4 * np.sqrt(level * (1 - level) / NUM_SAMPLES)


def test_logit_normal_times_are_by_default_of_the_standard_normal():
    key = jax.random.key(0)
    np.testing.assert_allclose(losses.logit_normal()(key), jax.nn.sigmoid(jax.random.normal(key)), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: losses.uniform(-0.1, 1.0), "start"),
        (lambda: losses.uniform(0.0, 1.1), "stop"),
        (lambda: losses.logit_normal(0.0, -1.0), "spread"),
    ],
)
def test_bad_densities_are_refused(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_a_classifier_has_no_loss_at_the_null_label(clustered):
    """Concrete it is refused; traced it is NaN, not the loss of label K - 1."""
    path, null = paths.linear(), clustered.num_classes
    loss = partial(losses.classifier_cross_entropy, path, clustered.label_log_probs(path), jax.random.key(0))
    with pytest.raises(ValueError, match=rf"y must be in \[0, {null - 1}\], got {null}"):
        loss(jnp.zeros(2), null)
    found = jax.jit(lambda y: loss(jnp.zeros(2), y))
    assert np.isnan(found(jnp.int32(null)))
    assert np.isfinite(found(jnp.int32(null - 1)))


def test_a_density_of_times_on_nothing_is_refused():
    with pytest.raises(ValueError, match="start must be under stop"):
        losses.uniform(0.5, 0.5)


@pytest.mark.parametrize(
    ("loss", "name"),
    [(losses.flow_matching, "field"), (losses.noise_matching, "noise"), (losses.score_matching, "score")],
)
def test_a_network_of_another_shape_is_refused(loss, name):
    """One number for an image would be spread over it, and train to its mean."""
    with pytest.raises(ValueError, match=rf"{name} must give the shape \(4,\), got \(\)"):
        loss(paths.linear(), lambda x, t: jnp.mean(x), jax.random.key(0), jnp.zeros(4))
