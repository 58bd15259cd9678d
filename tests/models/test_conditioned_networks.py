"""Networks of any condition: what they depend on, the start, precision, remat, and guidance with one null."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance
from cfgjax.conditions import Tokens, known, unknown, without
from cfgjax.models import (
    MLP,
    Conditioning,
    DiT,
    Embedded,
    ImageEmbedding,
    LabelEmbedding,
    SequenceEmbedding,
    UNet,
    VectorEmbedding,
)
from cfgjax.models.blocks import CrossAttention

NUM_CLASSES = 3
SHAPE = (4, 4, 2)
WIDTH = 12
DIT = {"width": WIDTH, "depth": 1, "num_heads": 2, "patch": 2}
UNET = {"width": 3, "multipliers": (1,), "blocks_per_level": 1, "attention": (), "head_width": 3}
PARTS = {
    "label": LabelEmbedding(NUM_CLASSES, WIDTH),
    "text": SequenceEmbedding(WIDTH, vocabulary_size=5),
    "size": VectorEmbedding(WIDTH),
    "picture": ImageEmbedding(),
}
NETWORKS = {
    "mlp": MLP(width=16, embedding_width=WIDTH, depth=1, conditioning=Conditioning(PARTS)),
    "dit": DiT(**DIT, conditioning=Conditioning(PARTS)),
    "unet": UNet(**UNET, conditioning=Conditioning(PARTS)),
}
Y = {
    "label": jnp.int32(1),
    "text": known(Tokens(jnp.array([4, 0, 1]), jnp.array([True, True, False]))),
    "size": known(jnp.array([0.5, -1.0])),
    "picture": known(jax.random.normal(jax.random.key(5), (4, 4, 1))),
}
NULL = {name: jnp.int32(NUM_CLASSES) if name == "label" else unknown(y.value) for name, y in Y.items()}
OTHERS = {
    "label": Y | {"label": jnp.int32(2)},
    "text": Y | {"text": known(Tokens(jnp.array([4, 3, 1]), jnp.array([True, True, False])))},
    "mask": Y | {"text": known(Tokens(jnp.array([4, 0, 1]), jnp.array([True, True, True])))},
    "size": Y | {"size": known(jnp.array([0.5, -1.5]))},
    "picture": Y | {"picture": known(Y["picture"].value.at[0, 0].add(1.0))},
} | {f"no {name}": Y | {name: NULL[name]} for name in Y}
KEY = jax.random.key(0, impl="unsafe_rbg")  # whose draws compile fast
X, TIME = jax.random.normal(jax.random.key(2), SHAPE), jnp.float32(0.3)


@cache
def _params(network, label=None):
    """Random parameters."""
    shapes = jax.eval_shape(network.init, KEY, X, TIME, Y if label is None else label)
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape) / np.sqrt(max(leaf.shape[0], 4))), shapes)


@cache
def _compiled(network):
    return jax.jit(network.apply)


def _value(network, y, params=None):
    """The network's value at y, by parameters that are random unless given."""
    return np.asarray(_compiled(network)(_params(network) if params is None else params, X, TIME, y))


@pytest.fixture(params=list(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def test_it_depends_on_every_condition_and_on_whether_it_is_known(network):
    expected = _value(network, Y)
    for name, y in OTHERS.items():
        assert np.max(np.abs(_value(network, y) - expected)) > 1e-4, name
    assert expected.shape == SHAPE and expected.dtype == np.float32


def test_padding_and_what_is_not_known_change_nothing(network):
    garbage = known(Tokens(jnp.array([4, 0, 3]), jnp.array([True, True, False])))
    np.testing.assert_array_equal(_value(network, Y | {"text": garbage}), _value(network, Y))
    unlooked = {name: y if name == "label" else y._replace(is_known=jnp.asarray(False)) for name, y in Y.items()}
    np.testing.assert_array_equal(_value(network, unlooked), _value(network, NULL | {"label": Y["label"]}))


def test_a_batch_mixes_conditions_that_are_known_and_not(network):
    examples = [Y, *OTHERS.values(), NULL]
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *examples)
    found = jax.vmap(partial(_compiled(network), _params(network)), (None, None, 0))(X, TIME, batch)
    for index, y in enumerate(examples):
        np.testing.assert_allclose(found[index], _value(network, y), rtol=1e-3, atol=1e-4)


def test_guidance_takes_the_null_that_training_drops_to(network):
    """Extrapolation by hand, from one call on both; one trace serves all conditions, nulls and scales."""
    traces = []

    @jax.jit
    def guided(y, null, scale):
        traces.append(y)
        return guidance.classifier_free(partial(network.apply, _params(network)), scale, null)(X, TIME, y)

    dropped = guidance.drop_condition(jax.random.key(0), Y, 1.0, NULL)
    assert jax.tree.all(jax.tree.map(np.array_equal, dropped, NULL))
    for scale, null in enumerate([NULL, *OTHERS.values(), without(NULL, "text", "label")(Y)]):
        low, high = _value(network, null), _value(network, Y)
        found = guided(Y, null, jnp.float32(scale))
        np.testing.assert_allclose(found, low + scale * (high - low), rtol=1e-3, atol=2e-3)
    assert len(traces) == 1


ATTENDING = ["dit", "unet"]


def _crosses(params, change):
    """The parameters with those of every last layer of cross-attention changed."""

    def changed(path, leaf):
        names = [str(each.key) for each in path]
        return change(leaf) if names[-3:-1] == ["CrossAttention_0", "Dense_2"] else leaf

    return jax.tree_util.tree_map_with_path(changed, params)


class WithoutTokens(Conditioning):
    """What ``Conditioning`` gives, but for the tokens."""

    def __call__(self, y):
        return super().__call__(y)._replace(tokens=None, mask=None)


def test_cross_attention_starts_at_zero():
    tokens, context = jnp.ones((3, 4)), (jnp.ones((2, 5)), jnp.array([True, False]))
    found, start = jax.jit(CrossAttention(2).init_with_output)(KEY, tokens, context)
    np.testing.assert_array_equal(found, np.zeros((3, 4)))
    assert all(np.any(start["params"][layer]["kernel"]) for layer in ("Dense_0", "Dense_1"))


@pytest.mark.parametrize("name", ATTENDING)
def test_attention_to_tokens_starts_as_nothing(name):
    """Where its last layers are zero, as at the start, tokens change nothing beside their vector."""
    network = NETWORKS[name]
    params = _crosses(_params(network), jnp.zeros_like)
    without_tokens = dataclasses.replace(network, conditioning=WithoutTokens(PARTS))
    found, expected = (_value(each, Y, params) for each in (network, without_tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(found - _value(network, Y))) > 1e-4


@pytest.mark.parametrize("name", [pytest.param("unet", marks=pytest.mark.slow), "dit"])
def test_rematerialising_changes_no_gradient(name):
    network = dataclasses.replace(NETWORKS[name], attention=(4,)) if name == "unet" else NETWORKS[name]
    again, params = dataclasses.replace(network, rematerialise=True), _params(network)
    assert jax.tree.structure(_params(again)) == jax.tree.structure(params)

    def slope(network):
        return jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(network.apply(params, X, TIME, Y)))))(params)

    for found, expected in zip(jax.tree.leaves(slope(again)), jax.tree.leaves(slope(network)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ATTENDING)
def test_half_precision_leaves_embeddings_and_the_field_float32(name):
    network = NETWORKS[name]
    half = dataclasses.replace(network, dtype=jnp.dtype(jnp.bfloat16))
    shapes = jax.eval_shape(half.init_with_output, KEY, X, TIME, Y)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    found, expected = (_value(each, Y, _params(network)) for each in (half, network))
    assert 1e-5 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.05


PLAIN = {
    "mlp": (MLP(NUM_CLASSES, width=16, embedding_width=WIDTH, depth=1), LabelEmbedding(NUM_CLASSES, WIDTH)),
    "dit": (DiT(**DIT, num_classes=NUM_CLASSES), LabelEmbedding(NUM_CLASSES, WIDTH, std=0.02)),
    "unet": (UNet(**UNET, num_classes=NUM_CLASSES), LabelEmbedding(NUM_CLASSES, 4 * UNET["width"])),
}


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_conditioning_it_is_that_of_labels(name):
    """The same other parameters, and with one table bitwise the same field."""
    plain, labels = PLAIN[name]
    network, y = dataclasses.replace(plain, conditioning=labels), jnp.int32(2)
    params = _params(plain, 2)["params"]
    table = params.pop("LabelEmbedding_0")
    shapes = jax.eval_shape(network.init, KEY, X, TIME, y)["params"]
    assert jax.tree.map(jnp.shape, params | {"conditioning": table}) == jax.tree.map(jnp.shape, shapes)
    found = _value(network, y, {"params": params | {"conditioning": table}})
    np.testing.assert_array_equal(found, _value(plain, y, {"params": params | {"LabelEmbedding_0": table}}))
    assert np.any(found)


def test_a_conditioning_leaves_the_first_values_of_other_parameters():
    """From one key."""
    plain, labels = PLAIN["mlp"]
    init = jax.jit(lambda network: network.init(KEY, X, TIME, 2)["params"], static_argnums=0)
    start, other = init(plain), init(dataclasses.replace(plain, conditioning=labels))
    assert start.keys() - other.keys() == {"LabelEmbedding_0"} and other.keys() - start.keys() == {"conditioning"}
    for layer in start.keys() & other.keys():
        jax.tree.map(np.testing.assert_array_equal, start[layer], other[layer])


class TokensAlone(LabelEmbedding):
    """Tokens without a vector."""

    def __call__(self, y):
        return Embedded(tokens=super().__call__(y)[None])


TALL = known(jnp.ones((8, 4, 1)))
MISTAKES = [
    ("mlp", {"conditioning": TokensAlone(3, WIDTH)}, 1, ValueError, "conditioning must give a vector beside tokens"),
    ("mlp", {"conditioning": LabelEmbedding(3, 4)}, 1, ValueError, r"conditioning\.vector must have the shape \(12,\)"),
    ("mlp", {"conditioning": abs}, 1, TypeError, "conditioning must be a Linen module"),
    ("dit", {"conditioning": None}, Y, TypeError, "y must be an integer"),
    ("dit", {}, 1, TypeError, "y must be a dict or a tuple of conditions"),
    ("dit", {}, {"label": 1}, ValueError, "y must have the names of parts"),
    ("dit", {}, Y | {"picture": TALL}, ValueError, r"y must hold an image of x's sides \(4, 4\), got one of \(8, 4\)"),
    ("unet", {}, Y | {"picture": TALL}, ValueError, r"y must hold an image of x's sides"),
]


@pytest.mark.parametrize(("name", "fields", "y", "kind", "message"), MISTAKES)
def test_a_mistake_is_named_in_one_line(name, fields, y, kind, message):
    network = dataclasses.replace(NETWORKS[name], **fields)
    with pytest.raises(kind, match=f"^{message}") as caught:
        jax.eval_shape(lambda: network.init(KEY, X, TIME, y))
    assert "\n" not in str(caught.value)
