"""Networks: the start, what they depend on, and that they are functions of one example."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import MLP, DiT
from cfgjax.models.embeddings import TimeEmbedding

SHAPES = [(2,), (8, 8, 1), ()]
NUM_CLASSES = 3


def _network(shape, perturbed=True, **settings):
    """A small network as a function of (x, t, y) alone; ``perturbed`` moves it away from its start."""
    model = MLP(NUM_CLASSES, width=16, depth=2, **settings)
    params = model.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(()), jnp.zeros((), jnp.int32))
    if perturbed:
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
        params = jax.tree.unflatten(tree, moved)
    return lambda x, t, y, **options: jnp.asarray(model.apply(params, x, t, y, **options))


def _inputs(shape, num_examples=6):
    x = jax.random.normal(jax.random.key(2), (num_examples, *shape))
    return x, jnp.linspace(0, 1, num_examples), jnp.arange(num_examples) % (NUM_CLASSES + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_starts_as_the_field_zero(shape):
    network = _network(shape, perturbed=False)
    np.testing.assert_array_equal(jax.jit(jax.vmap(network))(*_inputs(shape)), jnp.zeros((6, *shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_depends_on_state_time_and_every_label(shape):
    network, x = jax.jit(_network(shape)), _inputs(shape)[0][0]
    by_label = [np.asarray(network(x, jnp.float32(0.5), jnp.int32(y))) for y in range(NUM_CLASSES + 1)]
    for i in range(NUM_CLASSES + 1):
        for j in range(i):
            assert np.max(np.abs(by_label[i] - by_label[j])) > 1e-3
    assert np.max(np.abs(network(x, jnp.float32(0.6), jnp.int32(0)) - by_label[0])) > 1e-3
    assert np.max(np.abs(network(x + 1, jnp.float32(0.5), jnp.int32(0)) - by_label[0])) > 1e-3
    assert by_label[0].shape == shape


def test_there_is_one_row_for_the_null_label():
    model = MLP(NUM_CLASSES, width=16, depth=1)
    params = model.init(jax.random.key(0), jnp.zeros(2), jnp.zeros(()), jnp.zeros((), jnp.int32))
    rows = params["params"]["LabelEmbedding_0"]["Embed_0"]["embedding"]
    assert len(np.unique(np.asarray(rows), axis=0)) == NUM_CLASSES + 1


def test_only_the_given_label_learns():
    """The embedding's gradient is zero in the other rows."""
    model = MLP(NUM_CLASSES, width=16, depth=1)
    x, t, y = jnp.ones(2), jnp.float32(0.5), jnp.int32(1)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0), x, t, y))
    gradient = jax.grad(lambda params: jnp.sum(jnp.asarray(model.apply(params, x, t, y)) ** 2))(params)
    rows = np.abs(gradient["params"]["LabelEmbedding_0"]["Embed_0"]["embedding"]).sum(axis=1)
    assert rows[1] > 0
    np.testing.assert_array_equal(rows[[0, 2, 3]], 0)


def test_time_is_not_cast_below_float32():
    """A bfloat16 state does not round the time, and a bfloat16 time acts as its own float32 value."""
    network, y = _network((2,)), jnp.int32(0)
    x, t = jnp.ones(2, jnp.bfloat16), jnp.float32(0.50049)
    assert float(t.astype(jnp.bfloat16)) == 0.5
    assert not np.array_equal(network(x, t, y), network(x, jnp.float32(0.5), y))
    found, expected = network(x, t.astype(jnp.bfloat16), y), network(x, jnp.float32(0.5), y)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("shape", SHAPES)
def test_examples_do_not_see_each_other(shape):
    """A permuted batch gives permuted outputs, and one example alone its own."""
    network, inputs = jax.jit(jax.vmap(_network(shape))), _inputs(shape)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    found = network(*inputs)
    np.testing.assert_allclose(network(*(leaf[order] for leaf in inputs)), found[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(network(*(leaf[2:3] for leaf in inputs))[0], found[2], rtol=1e-5, atol=1e-6)


def test_dropout_acts_only_where_it_is_asked_for():
    plain, network = _network((2,)), _network((2,), dropout=0.5)
    x, t, y = jnp.ones(2), jnp.float32(0.5), jnp.int32(0)
    np.testing.assert_array_equal(network(x, t, y), plain(x, t, y))
    dropped = [network(x, t, y, deterministic=False, rngs={"dropout": jax.random.key(i)}) for i in range(2)]
    assert not np.array_equal(dropped[0], dropped[1])


def test_the_network_trains():
    """From its zero start, gradients reach the first layer after one step."""
    model, (x, t, y) = MLP(NUM_CLASSES, width=16, depth=1), _inputs((2,))
    params = model.init(jax.random.key(0), x[0], t[0], y[0])

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.mean((jnp.asarray(jax.vmap(partial(model.apply, params))(x, t, y)) - 1) ** 2)

    moved = jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, params, gradient(params))
    first = gradient(moved)["params"]["Dense_0"]["kernel"]
    assert np.max(np.abs(first)) > 1e-4


@pytest.mark.parametrize("settings", [{}, {"max_frequency": 50.0, "num_features": 8, "ends": (999.0, 0.0)}])
def test_the_time_embedding_by_hand(settings):
    """Cosines, then sines, of frequencies in geometric steps from 1, through two dense layers and SiLU."""
    model, t = TimeEmbedding(6, **settings), 0.3
    params = model.init(jax.random.key(0), t)
    first, second = (params["params"][name] for name in ("Dense_0", "Dense_1"))
    start, stop = settings.get("ends", (0.0, 1.0))
    frequencies = np.geomspace(1, settings.get("max_frequency", 100.0), settings.get("num_features", 6) // 2)
    angles = frequencies * (start + (stop - start) * t)
    hidden = np.concatenate([np.cos(angles), np.sin(angles)]) @ first["kernel"] + first["bias"]
    expected = (hidden / (1 + np.exp(-hidden))) @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(model.apply(params, t), expected, rtol=2e-3, atol=2e-3)


def _initial(network):
    x = jnp.zeros((4, 4, 2))
    return jax.jit(network.init)(jax.random.key(0), x, jnp.zeros(()), jnp.zeros((), jnp.int32))["params"]


@pytest.mark.parametrize(
    ("network", "std"),
    [(MLP(1000, embedding_width=64, depth=0), 1.0), (DiT(width=64, depth=0, num_classes=1000), 0.02)],
)
def test_labels_start_as_normal_rows(network, std):
    """Within 4 standard errors of their width: 1, or the transformer paper's 0.02."""
    rows = _initial(network)["LabelEmbedding_0"]["Embed_0"]["embedding"]
    assert rows.shape == (1001, 64)
    assert float(jnp.std(rows)) == pytest.approx(std, rel=4 / (2 * rows.size) ** 0.5)
