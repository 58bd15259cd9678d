"""U-Net, transformer and their classifiers: the start, what they depend on, precision, memory."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import guidance, losses, paths, training
from cfgjax.models import ConvNet, DiT, DiTClassifier, UNet, UNetClassifier

pytestmark = pytest.mark.slow

NUM_CLASSES = 3
SHAPE = (8, 8, 2)
UNET = {"width": 16, "multipliers": (1, 2), "blocks_per_level": 1, "attention": (4,), "head_width": 8}
DIT = {"width": 32, "depth": 2, "num_heads": 2, "patch": 4}
FIELDS = {
    "unet": UNet(num_classes=NUM_CLASSES, **UNET),
    "dit": DiT(num_classes=NUM_CLASSES, **DIT),
    "learned rms dit": DiT(num_classes=NUM_CLASSES, **DIT, norm="rms", positions="learned"),
}
CLASSIFIERS = {
    "unet": UNetClassifier(num_classes=NUM_CLASSES, **UNET),
    "dit": DiTClassifier(num_classes=NUM_CLASSES, **DIT),
}


def _label(network):
    return () if isinstance(network, UNetClassifier | DiTClassifier) else (jnp.zeros((), jnp.int32),)


@cache
def _params(network, shape=SHAPE, perturbed=True):
    """The network's parameters, moved away from their start where asked."""
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros(shape), jnp.zeros(()), *_label(network))
    if not perturbed:
        return params
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def _inputs(num_examples=6):
    x = jax.random.normal(jax.random.key(2), (num_examples, *SHAPE))
    return x, jnp.linspace(0, 1, num_examples), jnp.arange(num_examples) % (NUM_CLASSES + 1)


@pytest.fixture(params=list(FIELDS), scope="module")
def field(request):
    """A network and its moved parameters."""
    network = FIELDS[request.param]
    return network, _params(network)


@pytest.fixture(params=list(CLASSIFIERS), scope="module")
def classifier(request):
    """A noisy classifier and its moved parameters."""
    network = CLASSIFIERS[request.param]
    return network, _params(network)


def test_a_field_starts_at_zero(field):
    network, _ = field
    params = _params(network, perturbed=False)
    apply = jax.jit(jax.vmap(partial(network.apply, params)))
    np.testing.assert_array_equal(apply(*_inputs()), np.zeros((6, *SHAPE)))


def test_a_field_depends_on_state_time_and_every_label(field):
    network, params = field
    apply = jax.jit(partial(network.apply, params))
    x, t = _inputs()[0][0], jnp.float32(0.5)
    by_label = [np.asarray(apply(x, t, jnp.int32(y))) for y in range(NUM_CLASSES + 1)]
    for i in range(NUM_CLASSES + 1):
        for j in range(i):
            assert np.max(np.abs(by_label[i] - by_label[j])) > 1e-3
    assert np.max(np.abs(apply(x, jnp.float32(0.6), jnp.int32(0)) - by_label[0])) > 1e-3
    corner = apply(x.at[0, 0].add(3.0), t, jnp.int32(0)) - by_label[0]
    assert np.max(np.abs(corner[0, 0])) > 1e-3
    assert np.max(np.abs(corner[7, 7])) > 1e-5
    assert by_label[0].dtype == np.float32


def test_examples_do_not_see_each_other(field):
    network, params = field
    apply, inputs = jax.jit(jax.vmap(partial(network.apply, params))), _inputs()
    order = jnp.array([3, 0, 5, 1, 4, 2])
    found = apply(*inputs)
    np.testing.assert_allclose(apply(*(leaf[order] for leaf in inputs)), found[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(*(leaf[2:3] for leaf in inputs))[0], found[2], rtol=1e-4, atol=1e-5)


def test_half_precision_agrees_within_its_error_and_leaves_the_ends_float32(field):
    """bfloat16 holds 8 bits: two percent of the field's length through a few layers; parameters stay float32."""
    network, params = field
    half = dataclasses.replace(network, dtype=jnp.dtype(jnp.bfloat16))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(_params(half)))
    full, rough = (jax.jit(jax.vmap(partial(net.apply, params)))(*_inputs()) for net in (network, half))
    assert rough.dtype == jnp.float32
    difference = jnp.linalg.norm((rough - full).ravel()) / jnp.linalg.norm(full.ravel())
    assert 1e-5 < float(difference) < 0.03
    assert len(np.unique(np.asarray(rough))) > 0.9 * rough.size


def test_time_reaches_half_precision_networks_in_full(field):
    """0.50049 and 0.5 are one number in bfloat16."""
    network, params = field
    half = dataclasses.replace(network, dtype=jnp.dtype(jnp.bfloat16))
    x, y = _inputs()[0][0], jnp.int32(0)
    apply = jax.jit(half.apply)
    values = [apply(params, x, jnp.float32(t), y) for t in (0.5, 0.50049)]
    assert not np.array_equal(values[0], values[1])
    np.testing.assert_array_equal(apply(params, x, jnp.bfloat16(0.5), y), values[0])


def _loss_and_slope(network, params):
    inputs = _inputs()

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return jnp.mean(jnp.square(jax.vmap(partial(network.apply, params))(*inputs) - 1))

    return loss(params)


@pytest.mark.parametrize("name", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_rematerialising_changes_no_gradient(name):
    network = FIELDS[name]
    params = _params(network)
    again = dataclasses.replace(network, rematerialise=True)
    assert jax.tree.structure(_params(again)) == jax.tree.structure(params)
    plain, saved = _loss_and_slope(network, params), _loss_and_slope(again, params)
    assert float(plain[0]) == pytest.approx(float(saved[0]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(plain[1]), jax.tree.leaves(saved[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_every_parameter_learns(field):
    """Away from its start no parameter is without a gradient, but the rows of labels that were not seen."""
    network, params = field
    _, slope = _loss_and_slope(network, params)
    flat = jax.tree_util.tree_flatten_with_path(slope)[0]
    assert not [jax.tree_util.keystr(path) for path, leaf in flat if float(jnp.max(jnp.abs(leaf))) == 0]


def test_dropout_acts_only_where_it_is_asked_for(field):
    network, params = field
    leaky = dataclasses.replace(network, dropout=0.5)
    x, t, y = (leaf[1] for leaf in _inputs())
    np.testing.assert_array_equal(*(jax.jit(net.apply)(params, x, t, y) for net in (leaky, network)))
    dropped = jax.jit(lambda key: leaky.apply(params, x, t, y, False, rngs={"dropout": key}))
    assert not np.array_equal(*(dropped(jax.random.key(seed)) for seed in range(2)))


def test_a_classifier_gives_log_probabilities_of_the_noisy_image(classifier):
    network, params = classifier
    apply = jax.jit(partial(network.apply, params))
    x, t, _ = _inputs()
    found = jax.vmap(apply)(x, t)
    assert found.shape == (6, NUM_CLASSES)
    np.testing.assert_allclose(jnp.sum(jnp.exp(found), axis=1), 1.0, rtol=1e-5)
    assert np.max(np.abs(apply(x[0], t[3]) - found[0])) > 1e-3
    slope = jax.grad(lambda x: apply(x, t[2])[1])(x[2])
    assert float(jnp.min(jnp.max(jnp.abs(slope), axis=(1, 2)))) > 0
    np.testing.assert_allclose(jax.vmap(apply)(x[::-1], t[::-1]), found[::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_a_field_trained_on_one_data_point_per_label_tells_them_apart(name):
    """After training, labelled fields point to their own data point, the null field to neither."""
    network = FIELDS[name]
    path, null = paths.linear(), NUM_CLASSES
    data = 0.8 * jax.random.rademacher(jax.random.key(5), (NUM_CLASSES, *SHAPE), jnp.float32)

    def loss(params, key, y):
        label_key, noise_key = jax.random.split(key)
        dropped = guidance.drop_condition(label_key, y, 0.2, null)
        return losses.flow_matching(path, partial(network.apply, params), noise_key, data[y], dropped)

    num_steps, rate = (80, 3e-3) if isinstance(network, UNet) else (200, 1e-2)
    optimizer = optax.adam(rate)
    step = jax.jit(training.make_step(loss, optimizer, 0.9))
    state = training.init_state(_params(network, perturbed=False), optimizer, jax.random.key(6))
    for _ in range(num_steps):
        state, _ = step(state, jnp.arange(24) % NUM_CLASSES)
    apply = jax.jit(partial(network.apply, state.params))
    noise, t = jax.random.normal(jax.random.key(7), SHAPE), jnp.float32(0.05)
    towards = jnp.stack([apply(noise, t, jnp.int32(y)) for y in range(NUM_CLASSES + 1)])
    goals = np.concatenate([data, np.mean(data, axis=0, keepdims=True)]) - np.asarray(noise)[np.newaxis]
    errors = np.mean(np.square(np.asarray(towards)[:, np.newaxis] - goals[np.newaxis]), axis=(2, 3, 4))
    assert np.argmin(errors, axis=1).tolist() == [0, 1, 2, 3]


def test_a_patched_unet_keeps_the_images_shape_and_sees_all_of_it():
    network = UNet(num_classes=NUM_CLASSES, **UNET, patch=2)
    apply = jax.jit(partial(network.apply, _params(network)))
    x, t, y = (leaf[1] for leaf in _inputs())
    moved = apply(x.at[7, 7].add(3.0), t, y) - apply(x, t, y)
    assert moved.shape == SHAPE
    assert float(jnp.min(jnp.max(jnp.abs(moved), axis=2))) > 0


def test_the_convnet_gives_features_and_log_probabilities():
    network, x = ConvNet(NUM_CLASSES), _inputs()[0]
    params = network.init(jax.random.key(0), x[0])
    features, log_probs = jax.vmap(partial(network.apply, params))(x)
    assert features.shape == (6, 128)
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_probs), axis=1), 1.0, rtol=1e-5)
    alone = network.apply(params, x[3])
    np.testing.assert_allclose(alone[0], features[3], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="x must be ONE image"):
        network.apply(params, x)
