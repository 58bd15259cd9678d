"""Embeddings of conditions: each by its formula in NumPy, the learned nulls, padding and sets."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.conditions import Known, Tokens, known, unknown
from cfgjax.models import (
    Conditioning,
    Embedded,
    ImageEmbedding,
    LabelEmbedding,
    SequenceEmbedding,
    VectorEmbedding,
)
from cfgjax.types import Array
from tests.models.test_networks_by_hand import Layers, attention, dense, gelu, normed, positions, silu

WIDTH = 8
NAN = np.float32(np.nan)
THERE = np.array([True, True, False, True, False])
WORDS = Tokens(np.array([4, 0, 1, 2, 3]), THERE)
POINTS = Tokens(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), THERE)
PICTURE = np.random.default_rng(1).normal(size=(4, 2, 2)).astype(np.float32)
VECTOR = np.array([0.5, -1.25, 2.0], np.float32)
TEXT = SequenceEmbedding(WIDTH, vocabulary_size=5, depth=1, num_heads=2)
CLOUD = SequenceEmbedding(WIDTH, positions="none", depth=1, num_heads=2)
CASES = {
    "vector": (VectorEmbedding(WIDTH, num_features=4), VECTOR),
    "words": (TEXT, WORDS),
    "learned": (SequenceEmbedding(WIDTH, vocabulary_size=5, positions="learned"), WORDS),
    "points": (CLOUD, POINTS),
    "picture": (ImageEmbedding(), PICTURE),
}
LEARNED = [name for name in CASES if name != "picture"]


@cache
def _compiled(module):
    return jax.jit(lambda params, y: module.apply({"params": params}, y))


@cache
def _params(name):
    """Random parameters of a case, in float64."""
    return _params_of(*CASES[name])


def _params_of(module, y):
    shapes = jax.eval_shape(module.init, jax.random.key(0), y).get("params", {})
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda leaf: 0.7 * rng.normal(size=leaf.shape), shapes)


def _apply(module, params, y):
    return _compiled(module)(jax.tree.map(jnp.float32, params), y)


def _arrays(embedded):
    """The arrays of what an embedding gives, by name."""
    found = Embedded(embedded) if isinstance(embedded, Array) else embedded
    return {name: leaf for name, leaf in found._asdict().items() if leaf is not None}


def _assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, _arrays(found), _arrays(expected))


def _garbage(y):
    """A condition of y's shape that nobody should look at."""
    return jax.tree.map(lambda leaf: np.full_like(leaf, NAN if leaf.dtype == np.float32 else 1000), y)


# By hand


@pytest.mark.parametrize("num_features", [0, 6])
def test_a_vector_goes_through_two_layers_with_its_waves(num_features):
    module = VectorEmbedding(WIDTH, num_features, max_frequency=16.0)
    params = _params_of(module, VECTOR)
    angles = np.outer(VECTOR.astype(float), [1, 4, 16][: num_features // 2]).ravel()
    layers, features = Layers(params), np.concatenate([VECTOR, np.cos(angles), np.sin(angles)])
    hidden = silu(dense(layers("Dense"), features))
    expected = dense(layers("Dense"), hidden)
    found = _apply(module, params, known(VECTOR))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.dtype == jnp.float32
    _assert_same(_apply(module, params, unknown(VECTOR)), jnp.float32(params["null"]))


def test_one_number_is_a_vector_of_one():
    module = VectorEmbedding(WIDTH, 2)
    params = _params_of(module, 0.25)
    found, expected = (_apply(module, params, y) for y in (jnp.float32(0.25), known(jnp.array([0.25]))))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _layer_norm(params, x):
    return normed(x, -1) * params["scale"] + params["bias"]


def _through_blocks(layers, tokens, depth):
    for _ in range(depth):
        block = layers("_Block")
        tokens = tokens + attention(block("SelfAttention"), _layer_norm(block("LayerNorm"), tokens), 2)
        inner = gelu(dense(block("Dense"), _layer_norm(block("LayerNorm"), tokens)))
        tokens = tokens + dense(block("Dense"), inner)
    return _layer_norm(layers("LayerNorm"), tokens)


def _positions(module, params, size):
    fixed = {"none": np.zeros((size, WIDTH)), "sine": positions(size, 1, WIDTH)}
    return params["positions"] if module.positions == "learned" else fixed[module.positions]


@pytest.mark.parametrize("name", ["words", "learned", "points"])
def test_a_sequence_is_what_is_there_of_it(name):
    """By hand there is no mask: what is not there is left out."""
    (module, y), params = CASES[name], _params(name)
    layers = Layers(params)
    rows = dense(layers("Dense"), y.values) if name == "points" else params["Embed_0"]["embedding"][y.values]
    tokens = _through_blocks(layers, (rows + _positions(module, params, 5))[THERE], module.depth)
    found = _apply(module, params, known(y))
    np.testing.assert_array_equal(found.mask, [False, *THERE])
    np.testing.assert_allclose(found.tokens[np.asarray(found.mask)], tokens, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.vector, dense(layers("Dense"), tokens.mean(axis=0)), rtol=1e-3, atol=1e-4)
    assert not np.any(found.tokens[~np.asarray(found.mask)])
    assert found.vector.dtype == found.tokens.dtype == jnp.float32


@pytest.mark.parametrize("name", ["words", "points"])
def test_what_is_not_known_is_a_learned_token_and_a_learned_vector(name):
    (module, y), params = CASES[name], _params(name)
    found, null = _apply(module, params, unknown(y)), params["null_token"][None]
    np.testing.assert_array_equal(found.mask, [True, *[False] * 5])
    np.testing.assert_allclose(found.tokens[:1], _through_blocks(Layers(params), null, 1), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.vector, jnp.float32(params["null"]))


def test_without_a_mask_all_tokens_are_there():
    apply, full = partial(_apply, CLOUD, _params("points")), known(POINTS._replace(mask=np.ones(5, bool)))
    for y in (POINTS._replace(mask=None), POINTS.values):
        found, expected = (_arrays(apply(each)) for each in (y, full))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_picture_stands_beside_whether_it_is_known(is_known):
    found = _apply(ImageEmbedding(), {}, known(PICTURE)._replace(is_known=jnp.asarray(is_known)))
    expected = np.concatenate([PICTURE * is_known, np.full((4, 2, 1), is_known)], axis=-1)
    np.testing.assert_array_equal(found.image, expected)


PARTS = {"label": LabelEmbedding(3, WIDTH), "size": CASES["vector"][0], "text": TEXT, "points": CLOUD}
PARTS |= {"before": ImageEmbedding(), "after": ImageEmbedding()}
ALL = {"label": 2, "size": known(VECTOR), "text": known(WORDS), "points": unknown(POINTS)}
ALL |= {"before": known(PICTURE), "after": unknown(PICTURE)}


def test_several_conditions_add_vectors_and_join_tokens_and_pictures():
    module = Conditioning(PARTS)
    params = _params_of(module, ALL)
    assert sorted(params) == sorted(f"parts_{name}" for name in PARTS if name not in ("before", "after"))
    found = _apply(module, params, ALL)
    own = {name: params.get(f"parts_{name}", {}) for name in PARTS}
    each = {name: _arrays(_apply(part, own[name], ALL[name])) for name, part in PARTS.items()}
    vectors = [each[name]["vector"] for name in ("label", "points", "size", "text")]
    np.testing.assert_allclose(found.vector, np.sum(vectors, axis=0), rtol=1e-5, atol=1e-6)
    for leaf in ("tokens", "mask"):
        expected = np.concatenate([each["points"][leaf], each["text"][leaf]])
        np.testing.assert_allclose(getattr(found, leaf), expected, rtol=1e-4, atol=1e-5)
    pictures = each["after"]["image"], each["before"]["image"]
    np.testing.assert_array_equal(found.image, np.concatenate(pictures, axis=-1))


def test_the_order_of_names_changes_nothing():
    module, again = Conditioning(PARTS), Conditioning(dict(reversed(PARTS.items())))
    params = _params_of(module, ALL)
    programs = [_compiled(each).lower(params, y).as_text() for each, y in ((module, ALL), (again, {**ALL}))]
    assert programs[0] == programs[1]
    assert hash(module) == hash(again) and module == again


# Nulls, padding, sets


@pytest.mark.parametrize("name", CASES)
def test_the_value_of_what_is_not_known_is_not_looked_at(name):
    """Bitwise, and be it NaN."""
    module, y = CASES[name]
    apply, null = partial(_apply, module, _params(name)), unknown(y)
    for value in (y, _garbage(y)):
        _assert_same(apply(null._replace(value=value)), apply(null))


@pytest.mark.parametrize("name", ["words", "points"])
def test_padding_changes_nothing(name):
    module, y = CASES[name]
    apply = partial(_apply, module, _params(name))
    garbage = _garbage(y.values)
    padded = y._replace(values=np.where(THERE if name == "words" else THERE[:, None], y.values, garbage))
    _assert_same(apply(Known(padded, np.True_)), apply(known(y)))
    longer = Tokens(np.concatenate([y.values, garbage]), np.concatenate([THERE, np.zeros(5, bool)]))
    found, expected = apply(Known(longer, np.True_)), apply(known(y))
    np.testing.assert_allclose(found.vector, expected.vector, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.tokens[:6], expected.tokens, rtol=1e-4, atol=1e-5)


ORDER = np.array([3, 2, 0, 4, 1])


@pytest.mark.parametrize("kind", ["none", "sine", "learned"])
def test_a_set_has_no_order_and_a_sequence_has(kind):
    module = SequenceEmbedding(WIDTH, positions=kind, depth=1, num_heads=2)
    apply = partial(_apply, module, _params_of(module, POINTS))
    found, expected = apply(known(Tokens(*(leaf[ORDER] for leaf in POINTS)))), apply(known(POINTS))
    if kind == "none":
        np.testing.assert_allclose(found.vector, expected.vector, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.tokens[1:], expected.tokens[1:][ORDER], rtol=1e-4, atol=1e-5)
    else:
        assert np.max(np.abs(found.vector - expected.vector)) > 1e-2


@cache
def _gradient(name):
    """Of a number that all values enter, in the parameters of a case, as a function of the condition."""
    module, params = CASES[name][0], jax.tree.map(jnp.float32, _params(name))

    def energy(params, y):
        found = _arrays(module.apply({"params": params}, y))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in found.values() if leaf.dtype != bool)

    return partial(jax.jit(jax.grad(energy)), params)


@pytest.mark.parametrize("name", LEARNED)
def test_a_null_learns_where_its_condition_is_not_known_and_there_alone(name):
    y = CASES[name][1]
    of_known, of_null = (_gradient(name)(each) for each in (known(y), unknown(y)))
    for null in {"null", "null_token"} & of_null.keys():
        assert not np.any(of_known[null]) and np.all(of_null[null] != 0)
    seen = {"vector": ("Dense_0", "Dense_1"), "points": ("Dense_0",)}.get(name, ("Embed_0",))
    for layer in seen:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_null[layer]))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(of_known[layer]))


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_not_looked_at_is_in_no_gradient(name):
    """NaN in the place of what is not known."""
    null = unknown(CASES[name][1])
    found, expected = (_gradient(name)(each) for each in (null._replace(value=_garbage(null.value)), null))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(expected))


def test_a_batch_mixes_what_is_known_and_what_is_not():
    nothing = {name: 3 if name == "label" else unknown(y.value) for name, y in ALL.items()}
    partly = nothing | {"points": known(POINTS), "after": known(PICTURE)}
    examples = [ALL, nothing, ALL | {"text": nothing["text"]}, partly]
    module = Conditioning(PARTS)
    params = _params_of(module, ALL)
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *examples)
    found = jax.vmap(partial(_apply, module, params))(batch)
    for index, y in enumerate(examples):
        for name, leaf in _arrays(_apply(module, params, y)).items():
            np.testing.assert_allclose(getattr(found, name)[index], leaf, rtol=1e-4, atol=1e-5)


def test_all_of_a_sequence_padded_is_one_that_is_not_known():
    """In a trace; where the mask is concrete it is an error."""
    apply = partial(_apply, TEXT, _params("words"))
    _assert_same(apply(known(WORDS._replace(mask=np.zeros(5, bool)))), apply(unknown(WORDS)))
