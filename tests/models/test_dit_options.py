"""The transformer's options against NumPy: rotary positions, gated MLPs, norms, a bottleneck and tokens in context."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import DiT, DiTClassifier, VectorEmbedding
from cfgjax.models.blocks import SelfAttention
from cfgjax.models.embeddings import grid_angles, rotate
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.tasks.registry import facts_of
from tests.models.test_networks_by_hand import (
    LABEL,
    NUM_CLASSES,
    TIME,
    Layers,
    condition,
    dense,
    gelu,
    log_softmax,
    mixture,
    normed,
    patched,
    positions,
    silu,
    unpatched,
)

GRID = [(0, 0), (1, 3), (2, 1), (4, 5), (7, 2)]
DIT = {"num_classes": NUM_CLASSES, "width": 24, "depth": 2, "num_heads": 2, "patch": 2, "norm": "rms"}
IN_CONTEXT = {"in_context_tokens": 3, "in_context_start": 1}
GATED = {"norm_scale": True, "feed_forward": "swiglu", "rotary": True}
OPTIONS = {
    "norm scale": {"norm_scale": True},
    "layer norm scale": {"norm": "layer", "norm_scale": True},
    "swiglu": {"feed_forward": "swiglu"},
    "qk norm": {"qk_norm": True},
    "rotary": {"rotary": True},
    "bottleneck": {"bottleneck": 5},
    "in context": IN_CONTEXT,
    "in context from the first block": IN_CONTEXT | {"in_context_start": 0},
    "as LightningDiT": GATED,
    "as JiT": GATED | IN_CONTEXT | {"qk_norm": True, "bottleneck": 5},
}


def _frequencies(width):
    return 10000.0 ** (-4 * np.arange(width // 4) / width)


def _angles_at(position, width):
    row, column = position
    return np.concatenate([row * _frequencies(width), column * _frequencies(width)])


def _turned(heads, angles):
    """[T, heads, width]: pairs as complex numbers, multiplied by e^(i angle)."""
    pairs = (heads[..., ::2] + 1j * heads[..., 1::2]) * np.exp(1j * angles)[:, None]
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(heads.shape)


def test_angles_are_the_rows_then_the_columns():
    found = np.asarray(grid_angles(8, 6, 16)).reshape(8, 6, 8)
    for row, column in GRID:
        np.testing.assert_allclose(found[row, column], _angles_at((row, column), 16), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_inner_products_depend_on_differences_of_positions_alone():
    """sum of |q_k| |k_k| cos(f_k . (p - q) + phase), in float64: by the difference, and by the closed form."""
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 1, 1, 16))

    def product(here, there):
        turned = (rotate(each, _angles_at(at, 16)[None]) for each, at in ((query, here), (key, there)))
        return float(jnp.sum(next(turned) * next(turned)))

    pairs = np.conj(key[0, 0, ::2] + 1j * key[0, 0, 1::2]) * (query[0, 0, ::2] + 1j * query[0, 0, 1::2])
    for (row, column), (other_row, other_column) in pairwise(GRID):
        difference = row - other_row, column - other_column
        expected = np.sum(pairs * np.exp(1j * _angles_at(difference, 16))).real
        for shift in (0, 1, 5):
            here, there = (row + shift, column + 2 * shift), (other_row + shift, other_column + 2 * shift)
            np.testing.assert_allclose(product(here, there), expected, rtol=0, atol=1e-13)
        assert abs(product((row, column), (other_column, other_row)) - expected) > 1e-2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_heads_are_turned_in_float32(dtype):
    heads = np.asarray(jax.random.normal(jax.random.key(0), (5, 2, 16)).astype(dtype), np.float64)
    angles = np.stack([_angles_at(position, 16) for position in GRID])
    found = rotate(jnp.asarray(heads, dtype), jnp.float32(angles))
    assert found.dtype == dtype
    atol = 2e-6 if dtype == jnp.float32 else 2**-7
    np.testing.assert_allclose(np.asarray(found, np.float64), _turned(heads, angles), atol=atol)


def test_angles_of_other_tokens_are_refused():
    with pytest.raises(ValueError, match=r"angles must have the shape \(5, 8\), got \(4, 8\)"):
        rotate(jnp.ones((5, 2, 16)), jnp.ones((4, 8)))


def _attention(params, tokens, heads, angles):
    query, key, value = dense(params["Dense_0"], tokens).reshape(len(tokens), 3, heads, -1).transpose(1, 0, 2, 3)
    if "query_norm" in params:
        query = normed(query, -1, 0) * params["query_norm"]["scale"]
        key = normed(key, -1, 0) * params["key_norm"]["scale"]
    if angles is not None:
        query, key = _turned(query, angles), _turned(key, angles)
    mixed = mixture(*(each.transpose(1, 0, 2) for each in (query, key, value)))
    return dense(params["Dense_1"], mixed)


def _norm(params, network, name, tokens):
    scale = params[name]["scale"] if network.norm_scale else 1
    return normed(tokens, -1, 0 if network.norm == "rms" else None) * scale


def _block(params, network, tokens, given, angles):
    gain, shift, gate, inner_gain, inner_shift, inner_gate = np.split(dense(params["Dense_0"], given), 6)
    mixed = (1 + gain) * _norm(params, network, "norm_1", tokens) + shift
    tokens = tokens + gate * _attention(params["SelfAttention_0"], mixed, network.num_heads, angles)
    inner = dense(params["Dense_1"], (1 + inner_gain) * _norm(params, network, "norm_2", tokens) + inner_shift)
    half = inner.shape[-1] // 2
    inner = silu(inner[:, :half]) * inner[:, half:] if network.feed_forward == "swiglu" else gelu(inner)
    return tokens + inner_gate * dense(params["Dense_2"], inner)


def _tokens_by_hand(network, params, x, given):
    """Tokens after all blocks and the last norm, in rows and columns."""
    patches = patched(x, 2)
    rows, columns, size = patches.shape
    tokens = patches.reshape(-1, size)
    if network.bottleneck:
        tokens = tokens @ params["bottleneck_layer"]["kernel"]
    tokens = dense(params["Dense_0"], tokens) + positions(rows, columns, network.width)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    angles = np.stack([_angles_at(place, network.width // network.num_heads) for place in places])
    for number in range(network.depth):
        if "in_context" in params and number == network.in_context_start:
            label = params["LabelEmbedding_0"]["Embed_0"]["embedding"][LABEL]
            tokens = np.concatenate([label + params["in_context"], tokens])
            angles = np.concatenate([np.zeros((network.in_context_tokens, angles.shape[1])), angles])
        tokens = _block(params[f"DiTBlock_{number}"], network, tokens, given, angles if network.rotary else None)
    tokens = tokens[-len(places) :]
    gain, shift = np.split(dense(params["Dense_1"], given), 2)
    return ((1 + gain) * _norm(params, network, "last_norm", tokens) + shift).reshape(rows, columns, -1)


def _by_hand(network, params, x):
    """The network, or its classifier, by its formula."""
    if isinstance(network, DiTClassifier):
        tokens = _tokens_by_hand(network, params, x, condition(Layers(params), 256, False))
        return log_softmax(dense(params["Dense_2"], tokens.mean(axis=(0, 1))))
    tokens = _tokens_by_hand(network, params, x, condition(Layers(params), 256, True))
    return unpatched(dense(params["Dense_2"], tokens), 2)


def _random(network, shape=(4, 6, 2)):
    """Parameters in float64, an image, and the inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    inputs = jnp.asarray(x, jnp.float32), jnp.float32(TIME), jnp.int32(LABEL)
    inputs = inputs[:2] if isinstance(network, DiTClassifier) else inputs
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    draw = lambda leaf: rng.normal(size=leaf.shape) / math.sqrt(max(leaf.shape[0], 4))  # noqa: E731
    return jax.tree.map(draw, shapes), x, inputs


def _as_float32(params):
    return {"params": jax.tree.map(jnp.float32, params)}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_network_with_its_options_is_its_formula(name):
    _assert_by_hand(DiT(**DIT | OPTIONS[name]))


def test_a_classifier_has_the_options_but_for_the_tokens_of_a_label():
    _assert_by_hand(DiTClassifier(**DIT | GATED, qk_norm=True, bottleneck=5))


def _assert_by_hand(network):
    params, x, inputs = _random(network)
    found = jax.jit(network.apply)(_as_float32(params), *inputs)
    expected = _by_hand(network, params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.max(np.abs(expected)))


def test_inner_units_of_a_gated_mlp_have_as_many_weights():
    """Two thirds of 4 * width, twice in the first layer: 3 * 8/3 against 2 * 4, rounded down."""
    params, *_ = _random(DiT(**DIT | {"width": 32, "feed_forward": "swiglu"}))
    block = params["DiTBlock_0"]
    assert block["Dense_1"]["kernel"].shape == (32, 2 * 85)
    assert block["Dense_2"]["kernel"].shape == (85, 32)


@pytest.mark.slow
def test_inner_values_computed_again_change_nothing():
    network = DiT(**DIT | OPTIONS["as JiT"])
    params, _, inputs = _random(network)

    def slope(network):
        return jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, *inputs) ** 2)))(_as_float32(params))

    remat = slope(DiT(**DIT | OPTIONS["as JiT"], rematerialise=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), remat, slope(network))


def test_half_precision_agrees_within_its_error():
    params, x, inputs = _random(DiT(**DIT | OPTIONS["as JiT"]))
    half = DiT(**DIT | OPTIONS["as JiT"], dtype=jnp.dtype(jnp.bfloat16))
    found, expected = jax.jit(half.apply)(_as_float32(params), *inputs), _by_hand(half, params, x)
    assert found.dtype == jnp.float32
    assert 1e-5 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.03


def test_heads_of_normed_attention_can_have_any_size():
    """A query's length does not matter: the scale of its layer's kernel changes nothing but by the epsilon."""
    module, x = SelfAttention(2, qk_norm=True), jax.random.normal(jax.random.key(0), (5, 8))
    params = module.init(jax.random.key(1), x)["params"]
    first = params["Dense_0"]
    kernel = first["kernel"] * jnp.where(jnp.arange(24) < 16, 7.0, 1.0)[None]
    larger = params | {"Dense_0": first | {"kernel": kernel}}
    found, expected = (module.apply({"params": each}, x) for each in (larger, params))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(*(SelfAttention(2).apply({"params": each}, x) for each in (larger, params)), atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rotary": True, "width": 12},
            r"width must be divisible by 4 \* num_heads for rotary positions, got 12 and 2",
        ),
        (IN_CONTEXT | {"in_context_start": 2}, "in_context_start must be under the depth 2, got 2"),
        ({"in_context_tokens": -1}, "in_context_tokens must be"),
        ({"bottleneck": -1}, "bottleneck must be"),
        ({"feed_forward": "relu"}, "feed_forward must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _random(DiT(**DIT | options))


def test_tokens_in_context_need_a_vector():
    class Nothing(VectorEmbedding):
        def __call__(self, y):
            return None

    with pytest.raises(ValueError, match="in_context_tokens must be 0 where the conditioning gives no vector"):
        _random(DiT(**DIT | IN_CONTEXT, conditioning=Nothing(24)))


def _shapes_of(network, preset):
    experiment = PRESETS[preset][1]
    experiment = type(experiment)(**{**vars(experiment), "network": network})
    model = model_of(experiment, facts_of(experiment))
    return jax.eval_shape(model.init, jax.random.key(0))["params"]


def test_the_settings_are_the_networks():
    settings = DiTNetwork(width=24, depth=2, num_heads=2, patch=7, **GATED | IN_CONTEXT, qk_norm=True, bottleneck=5)
    params = _shapes_of(settings, "fashion_mnist")
    assert params["in_context"].shape == (3, 24)
    assert params["bottleneck_layer"]["kernel"].shape == (49, 5)
    assert "norm_1" in params["DiTBlock_1"]
    with pytest.raises(UserError, match=r"knows no label: network\.in_context_tokens must be 0, got 3"):
        _shapes_of(settings, "fashion_mnist_classifier")
    without = DiTNetwork(width=24, depth=2, num_heads=2, patch=7, **GATED)
    assert "norm_2" in _shapes_of(without, "fashion_mnist_classifier")["DiTBlock_1"]
    with pytest.raises(UserError, match=r"network does not fit data of shape .*width must be divisible by 4"):
        _shapes_of(DiTNetwork(width=20, depth=1, num_heads=2, patch=7, rotary=True), "fashion_mnist")
