"""Calls of the networks: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import models
from cfgjax.conditions import Known, Tokens, known, unknown
from cfgjax.models.embeddings import sincos_positions
from cfgjax.types import Interval
from tests.support.calls import (
    ANY_STATE,
    COUNT,
    INF,
    KEY,
    NO_ARRAY,
    NULL_OR_LABEL,
    NUM_CLASSES,
    POSITIVE,
    SCALE,
    SHARE,
    TIME,
    Case,
    Choices,
    fuzz,
    plain,
    typed,
)

IMAGE = Choices(
    typed(np.arange(64).reshape(8, 8, 1) % 3),
    (
        *NO_ARRAY,
        jnp.ones((8, 8)),
        jnp.ones((1, 8, 8, 1)),
        jnp.ones((8, 7, 1)),
        jnp.ones((0, 8, 1)),
        jnp.ones((8, 8, 0)),
        1.0,
    ),
)
STATES = ANY_STATE._replace(allowed=ANY_STATE.allowed[:8], refused=(*NO_ARRAY, jnp.ones(0), np.ones((2, 0))))
AT = {"t": TIME, "y": NULL_OR_LABEL}
SMALL = COUNT._replace(allowed=(1, 2, np.int64(2)), more=None)
RATE = SHARE._replace(allowed=(0.25, 0, 1.0))
DEPTH = SMALL.but(allowed=(0,))._replace(refused=COUNT.refused[1:])
WIDTH = COUNT._replace(allowed=(8, 16), more=None)
HALF = POSITIVE._replace(allowed=(10.0, 100), more=None)
WORDS_OF_NORM = Choices(("layer", "rms"), ("batch", None, 3, ""))
WORDS_OF_POSITIONS = Choices(("sine", "learned"), ("none", None, 3, ""))
VECTORS = Choices(
    (*typed([1, -2]), 0.5, 3, known(jnp.ones(2)), unknown(jnp.ones(3))),
    (*NO_ARRAY, jnp.ones((2, 1)), jnp.ones(0), [0.5, 1.0], (1.0, 2.0), known(jnp.ones((1, 2))), Known(jnp.ones(2), 1)),
)
PICTURES = Choices(
    (*typed(np.ones((4, 2, 1))), known(jnp.ones((4, 2, 1))), unknown(jnp.ones((4, 2, 1)))),
    (*NO_ARRAY, 1.0, jnp.ones((4, 2)), jnp.ones((1, 4, 2, 1)), jnp.ones((0, 2, 1)), known(jnp.ones((4, 2)))),
)
MASK = np.array([True, False])
TOKENS = Choices(
    (
        *(Tokens(values, MASK) for values in typed(np.ones((2, 3)))[:5]),
        jnp.ones((2, 3)),
        known(Tokens(jnp.ones((2, 3)))),
        unknown(Tokens(jnp.ones((2, 3)), MASK)),
    ),
    (
        *NO_ARRAY,
        np.ones((2, 3), int),
        jnp.ones(2),
        jnp.ones((0, 3)),
        *(Tokens(jnp.ones((2, 3)), mask) for mask in (~MASK[:1], MASK[:1], [True, False], MASK.astype(int))),
        known(Tokens(jnp.ones((2, 3)), MASK & False)),
    ),
)
WORDS = Choices(
    (jnp.array([0, 4]), Tokens(np.array([1, 9]), MASK), known(Tokens(np.array([1, 3], np.uint8)))),
    (jnp.ones((2, 3)), np.array([[1]]), np.array([0, 5]), Tokens(np.array([-1, 2]), MASK), 2, *NO_ARRAY),
)
LABEL_AND_SIZE = {"label": models.LabelEmbedding(NUM_CLASSES, 8), "size": models.VectorEmbedding(8)}
SEVERAL = Choices(
    ({"label": 1, "size": jnp.ones(2)}, {"size": unknown(jnp.ones(2)), "label": jnp.int32(3)}),
    (
        *({"label": 1, "size": size} for size in (jnp.ones((2, 2)), "big", Known(jnp.ones(2), None))),
        *({"label": label, "size": 1.0} for label in (4, 0.5, None, jnp.ones(2, int))),
        *({"label": 1}, {}, {"label": 1, "size": 1.0, "text": 1}, {"label": 1, "sizes": 1.0}),
        *(1, None, "label", (1, 1.0), jnp.ones(2), [1, 1.0]),
    ),
)
MODULES = Choices((None,), (3, "label", jnp.ones(2), lambda y: y, {}))
UNET = {"width": 8, "multipliers": (1, 2), "blocks_per_level": 1, "attention": (4,), "head_width": 8}
DIT = {"width": 16, "depth": 1, "num_heads": 2}


def _shape(module, *inputs):
    """The shape and type of a network's value, by a trace of it; Python scalars stay concrete in it."""
    found = jax.eval_shape(lambda: module.init_with_output(KEY, *inputs)[0])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    return [np.zeros(leaf.shape) for leaf in jax.tree.leaves(found)]


def _shape_of_tokens(module, y):
    """The shapes of vector, tokens and mask."""
    found = jax.eval_shape(lambda: module.init_with_output(KEY, y)[0])
    assert [leaf.dtype for leaf in jax.tree.leaves(found)] == [jnp.float32, jnp.float32, jnp.bool_]
    return [np.zeros(leaf.shape) for leaf in jax.tree.leaves(found)]


def _of(make, **fixed):
    def call(x, t, **settings):
        labels = (settings.pop("y"),) if "y" in settings else ()
        return _shape(make(**(fixed | settings)), x, t, *labels)

    return call


def _like(x, t, y, **settings):
    return [np.zeros(np.shape(x))]


def _probabilities(x, t, num_classes=NUM_CLASSES, **settings):
    return [np.zeros(num_classes)]


CASES = [
    Case("models.MLP", _of(models.MLP, num_classes=NUM_CLASSES, width=8, depth=1), AT | {"x": STATES}, _like),
    Case(
        "models.MLP: settings",
        _of(models.MLP),
        {"x": Choices((jnp.ones(2),), ()), "t": Choices((0.5,), ()), "y": Choices((0,), ())}
        | {
            "num_classes": SMALL,
            "width": WIDTH,
            "depth": DEPTH,
            "dropout": RATE,
            "max_frequency": HALF,
            "conditioning": MODULES,
        },
        _like,
    ),
    Case("models.DiT", _of(models.DiT, num_classes=NUM_CLASSES, **DIT), AT | {"x": IMAGE}, _like, {"x": "x|patch"}),
    Case(
        "models.DiT: settings",
        _of(models.DiT, **DIT),
        {"x": Choices((jnp.ones((8, 8, 1)),), ()), "t": Choices((0.5,), ()), "y": Choices((0,), ())}
        | {
            "num_classes": SMALL,
            "width": COUNT._replace(allowed=(16, 32), more=None).but(refused=(17, 6)),
            "depth": DEPTH,
            "num_heads": SMALL.but(refused=(3,)),
            "patch": SMALL.but(allowed=(4,), refused=(3, 16)),
            "norm": WORDS_OF_NORM,
            "positions": WORDS_OF_POSITIONS,
            "dropout": RATE,
            "conditioning": MODULES,
        },
        _like,
    ),
    Case(
        "models.DiTClassifier",
        _of(models.DiTClassifier, **DIT),
        {"x": IMAGE, "t": TIME, "num_classes": SMALL},
        _probabilities,
        {"x": "x|patch"},
    ),
    Case(
        "models.UNet",
        _of(models.UNet, num_classes=NUM_CLASSES, **UNET),
        AT | {"x": IMAGE},
        _like,
        {"x": "x|multipliers"},
    ),
    Case(
        "models.UNet: settings",
        _of(models.UNet, **UNET),
        {"x": Choices((jnp.ones((8, 8, 1)),), ()), "t": Choices((0.5,), ()), "y": Choices((0,), ())}
        | {
            "num_classes": SMALL,
            "width": WIDTH,
            "multipliers": Choices(((1,), (1, 2)), ((), (0,), (1, -1), (1.5,), (1, 1, 1, 1, 1))),
            "blocks_per_level": SMALL,
            "head_width": WIDTH,
            "patch": SMALL.but(refused=(3, 16)),
            "dropout": RATE,
            "conditioning": MODULES,
        },
        _like,
        {"patch": "patch|multipliers"},
    ),
    Case(
        "models.UNetClassifier",
        _of(models.UNetClassifier, **UNET),
        {"x": IMAGE, "t": TIME, "num_classes": SMALL},
        _probabilities,
        {"x": "x|multipliers"},
    ),
    Case(
        "models.ConvNet",
        lambda x, **settings: _shape(models.ConvNet(**settings), x),
        {
            "x": IMAGE._replace(refused=tuple(each for each in IMAGE.refused if np.shape(each) != (8, 7, 1))),
            "num_classes": SMALL,
            "width": COUNT._replace(allowed=(8, 16), more=None).but(refused=(12,)),
            "num_features": SMALL,
            "dropout": RATE,
        },
        lambda x, num_classes, num_features, **settings: [np.zeros(num_features), np.zeros(num_classes)],
    ),
    Case(
        "models.TimeEmbedding",
        lambda t, width, max_frequency: _shape(models.TimeEmbedding(width, max_frequency), t),
        {"t": TIME, "width": WIDTH.but(refused=(1,)), "max_frequency": HALF},
        lambda t, width, max_frequency: [np.zeros(width)],
    ),
    Case(
        "models.GuidanceEmbedding",
        lambda y, **settings: _shape(models.GuidanceEmbedding(**settings), y),
        {
            "y": Choices((*SCALE.allowed, Interval(2.5, 0, jnp.float32(0.5))), (*SCALE.refused, lambda t: t)),
            "width": WIDTH,
            "max_frequency": HALF,
            "num_features": COUNT._replace(allowed=(2, 8), more=None).but(refused=(1,)),
        },
        lambda y, width, **settings: [np.zeros(width)],
    ),
    Case(
        "models.SpanEmbedding",
        lambda y, **settings: _shape(models.SpanEmbedding(**settings), y),
        {
            "y": TIME,
            "width": WIDTH,
            "max_frequency": HALF,
            "num_features": COUNT._replace(allowed=(2, 8), more=None).but(refused=(1,)),
        },
        lambda y, width, **settings: [np.zeros(width)],
    ),
    Case(
        "models.LabelEmbedding",
        lambda y, num_classes, width: _shape(models.LabelEmbedding(num_classes, width), y),
        {"y": NULL_OR_LABEL, "num_classes": COUNT._replace(allowed=(NUM_CLASSES,), more=None), "width": WIDTH},
        lambda y, num_classes, width: [np.zeros(width)],
    ),
    Case(
        "models.VectorEmbedding",
        lambda y, **settings: _shape(models.VectorEmbedding(**settings), y),
        {
            "y": VECTORS,
            "width": WIDTH,
            "num_features": COUNT._replace(allowed=(0, 2, 8), refused=(-1, -2, 1, 3, 2.0, None, "two"), more=None),
            "max_frequency": HALF,
        },
        lambda y, width, **settings: [np.zeros(width)],
    ),
    Case(
        "models.SequenceEmbedding",
        lambda y, **settings: _shape_of_tokens(models.SequenceEmbedding(**settings), y),
        {
            "y": TOKENS,
            "width": COUNT._replace(allowed=(8, 16), more=None).but(refused=(6,)),
            "positions": Choices(("sine", "learned"), (None, "absolute", 3)),
            "depth": DEPTH,
            "num_heads": SMALL.but(refused=(3,)),
        },
        lambda y, width, **settings: [np.zeros(width), np.zeros((3, width)), np.zeros(3)],
        {"num_heads": "num_heads|width", "width": "width|num_heads"},
    ),
    Case(
        "models.SequenceEmbedding: words",
        lambda y, **settings: _shape_of_tokens(models.SequenceEmbedding(8, **settings), y),
        {"y": WORDS, "vocabulary_size": COUNT._replace(allowed=(5,), refused=(0, -1, 5.0, "five"), more=None)},
        lambda y, vocabulary_size: [np.zeros(8), np.zeros((3, 8)), np.zeros(3)],
    ),
    Case(
        "models.ImageEmbedding",
        lambda y: _shape(models.ImageEmbedding(), y),
        {"y": PICTURES},
        lambda y: [np.zeros((4, 2, 2))],
    ),
    Case(
        "models.Conditioning",
        lambda y, parts: _shape(models.Conditioning(parts), y),
        {
            "y": SEVERAL,
            "parts": Choices((LABEL_AND_SIZE,), ({}, None, 3, [models.VectorEmbedding(8)], {"label": 1, "size": 2})),
        },
        lambda y, parts: [np.zeros(8)],
    ),
    Case(
        "models.sincos_positions",
        sincos_positions,
        {"rows": SMALL, "columns": SMALL, "width": COUNT._replace(allowed=(4, 8), more=None).but(refused=(6,))},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


def test_a_label_that_is_none_does_not_take_another_ones_row():
    """Row -1 would have been the null label's, and K + 1 NaN."""
    embedding = models.LabelEmbedding(NUM_CLASSES, 4)
    rows = embedding.init(KEY, 0)
    assert len({tuple(plain(embedding.apply(rows, y))) for y in range(NUM_CLASSES + 1)}) == NUM_CLASSES + 1
    for y in (-1, NUM_CLASSES + 1):
        with pytest.raises(ValueError, match=r"y must be in \[0, 3\], got"):
            embedding.apply(rows, y)


def test_a_network_passes_its_checks_under_jit_vmap_and_grad():
    network = models.MLP(NUM_CLASSES, width=8, depth=1)
    params = network.init(KEY, jnp.ones(2), 0.5, 0)
    x, t, y = jnp.ones((3, 2)), jnp.array([0.0, 0.5, 1.0]), jnp.array([0, 2, 3])
    slopes = jax.jit(jax.vmap(jax.grad(lambda x, t, y: network.apply(params, x, t, y).sum())))(x, t, y)
    assert slopes.shape == (3, 2) and np.all(np.isfinite(slopes))
    assert not np.isfinite(INF) and network.apply(params, np.ones(2, int), 1, np.uint8(3)).dtype == jnp.float32
