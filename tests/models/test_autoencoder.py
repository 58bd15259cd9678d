"""AutoencoderKL against the published network by NumPy in float64: values, gradients, and each detail of its own."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import AUTOENCODERS, AutoencoderKL, attention, pretrained_autoencoder
from tests.support import autoencoder_by_hand as by_hand

MOST = 1e-5
"""Largest difference allowed, relative to the value's root mean square."""
WIDTHS, GROUPS = (8, 16, 16), 4
NETWORKS = {
    "4 channels": AutoencoderKL(4, 3, WIDTHS, 1, GROUPS),
    "16 channels, no quant convolutions": AutoencoderKL(16, 3, WIDTHS, 2, GROUPS, has_quant_convs=False),
}
SD = NETWORKS["4 channels"]
IMAGE = np.random.default_rng(1).uniform(-1, 1, (16, 24, 3)).astype(np.float32)


@cache
def _tensors(network=SD):
    shapes = by_hand.shapes_of(
        network.widths, network.blocks_per_level, network.latent_channels, 3, network.has_quant_convs
    )
    return by_hand.random_tensors(shapes)


def _params(tensors, network=SD):
    return pretrained_autoencoder.parameters(tensors.__getitem__, network)


def _first(image):
    """Channels first, in float64."""
    return np.asarray(image, np.float64).transpose(2, 0, 1)


def _difference(found, expected):
    """Of ours, channels last, from theirs."""
    return float(np.max(np.abs(_first(found) - expected)) / np.sqrt(np.mean(np.square(expected))))


@cache
def _compiled(network, method):
    return jax.jit(lambda params, x: network.apply(params, x, method=method))


def _ours(network, params, x, method):
    return _compiled(network, method)(params, jnp.asarray(x))


def _latent(network):
    return np.random.default_rng(2).normal(size=(4, 6, network.latent_channels)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_published_network(name):
    network = NETWORKS[name]
    tensors, latent = _tensors(network), _latent(network)
    params, theirs = _params(tensors, network), by_hand.Autoencoder(tensors, GROUPS)
    for found, expected in zip(_ours(network, params, IMAGE, "encode"), theirs.encode(_first(IMAGE)), strict=True):
        assert _difference(found, expected) < MOST
    assert _difference(_ours(network, params, latent, "decode"), theirs.decode(_first(latent))) < MOST


def test_a_call_is_the_image_of_the_mean():
    params, theirs = _params(_tensors()), by_hand.Autoencoder(_tensors(), GROUPS)
    expected = theirs.decode(theirs.encode(_first(IMAGE))[0])
    assert _difference(_ours(SD, params, IMAGE, "__call__"), expected) < MOST


def test_a_batch_is_its_examples():
    params, images = _params(_tensors()), jnp.stack([IMAGE, IMAGE[::-1]])
    found = jax.jit(jax.vmap(SD.apply, (None, 0)))(params, images)
    expected = [_ours(SD, params, image, "__call__") for image in images]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


CHANGES = {
    "zeros all round": ({"padding": by_hand.ALL_ROUND}, 1.0),
    "epsilon 1e-5": ({"epsilon": 1e-5}, 1e-3),
    "several heads": ({"heads": 2}, 1.0),
    "other groups": ({"num_groups": 8}, 1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_detail_that_is_wrong_is_noticed(name):
    """On a dim image and with small weights, which alone tell the epsilon: it stands beside their variance."""
    change, size = CHANGES[name]
    image = size * _first(IMAGE)
    tensors = _tensors() | {"encoder.conv_in.bias": np.zeros(8, np.float32)} if size < 1 else _tensors()
    settings = {"num_groups": GROUPS} | change
    found = _ours(SD, _params(tensors), size * IMAGE, "encode")[0]
    assert _difference(found, by_hand.Autoencoder(tensors, GROUPS).encode(image)[0]) < MOST
    assert _difference(found, by_hand.Autoencoder(tensors, **settings).encode(image)[0]) > 1000 * MOST


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("pair", [("to_q", "to_k"), ("to_k", "to_v"), ("to_v", "to_out.0")])
def test_names_of_attention_that_are_exchanged_are_noticed(part, pair):
    place = f"{part}.mid_block.attentions.0."
    tensors = _tensors()
    first, second = (tensors[f"{place}{each}.weight"] for each in pair)
    changed = tensors | {f"{place}{pair[0]}.weight": second, f"{place}{pair[1]}.weight": first}
    x, method = (IMAGE, "encode") if part == "encoder" else (_latent(SD), "decode")
    right, wrong = (np.asarray(_ours(SD, _params(each), x, method)) for each in (tensors, changed))
    assert np.max(np.abs(right - wrong)) > 100 * MOST


def test_the_log_variance_is_clipped_and_the_mean_is_not():
    tensors = {name: 100 * each if name == "quant_conv.bias" else each for name, each in _tensors().items()}
    free = by_hand.Autoencoder(tensors, GROUPS, clip=(-np.inf, np.inf)).encode(_first(IMAGE))
    mean, log_variance = _ours(SD, _params(tensors), IMAGE, "encode")
    assert free[1].max() > 20 and free[1].min() < -10 and np.abs(free[0]).max() > 20
    assert _difference(mean, free[0]) < MOST
    assert np.max(np.abs(_first(log_variance) - np.clip(free[1], -30, 20))) < 1e-3
    assert float(log_variance.max()) == 20


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_gradients_are_those_of_the_published_network(method):
    """Along random directions of the input and of all parameters at once, by central differences in float64."""
    rng, tensors = np.random.default_rng(3), _tensors()
    x = IMAGE if method == "encode" else _latent(SD)
    toward = {name: rng.normal(size=each.shape).astype(np.float32) for name, each in tensors.items()}
    x_toward = rng.normal(size=x.shape).astype(np.float32)
    params, params_toward = _params(tensors), _params(toward)
    weights = jax.tree.map(lambda out: rng.normal(size=out.shape), _ours(SD, params, x, method))

    def summed(params, x):
        out = SD.apply(params, x, method=method)
        return sum(jnp.sum(a * jnp.float32(b)) for a, b in zip(*map(jax.tree.leaves, (out, weights)), strict=True))

    def theirs(step, inner):
        moved = {name: each.astype(np.float64) + step * (1 - inner) * toward[name] for name, each in tensors.items()}
        out = getattr(by_hand.Autoencoder(moved, GROUPS), method)(_first(x) + step * inner * _first(x_toward))
        return sum(np.sum(a * _first(b)) for a, b in zip(*map(jax.tree.leaves, (out, weights)), strict=True))

    slopes = jax.jit(jax.grad(summed, (0, 1)))(params, jnp.asarray(x))
    for inner, (slope, direction) in enumerate(zip(slopes, (params_toward, jnp.asarray(x_toward)), strict=True)):
        products = jax.tree.map(lambda a, b: np.sum(np.float64(a) * np.float64(b)), slope, direction)
        found, step = sum(jax.tree.leaves(products)), 1e-5
        expected = (theirs(step, inner) - theirs(-step, inner)) / (2 * step)
        sizes = [np.sum(np.square(np.float64(each))) for each in jax.tree.leaves(slope)]
        assert abs(found - expected) < 1e-4 * np.sqrt(np.sum(sizes)), (inner, found, expected)


def test_bfloat16_computes_in_it_and_gives_float32():
    """Near the float32 network's, not equal to it: statistics, last layers and outputs are float32."""
    half, params = SD.clone(dtype=jnp.dtype(jnp.bfloat16)), _params(_tensors())
    for method, x in (("encode", IMAGE), ("decode", _latent(SD))):
        wide, found = (jax.tree.leaves(_ours(each, params, x, method)) for each in (SD, half))
        for each, expected in zip(found, wide, strict=True):
            assert each.dtype == jnp.float32
            off = np.sqrt(np.mean(np.square(each - expected)) / np.mean(np.square(expected)))
            assert 1e-4 < off < 3e-2
    text = str(jax.make_jaxpr(lambda x: half.apply(params, x, method="decode"))(_latent(SD)))
    convolutions = [line for line in text.splitlines() if " convolution[" in line]
    assert sum("bf16" in line.split("=")[0] for line in convolutions) == len(convolutions) - 2


def test_attention_in_chunks_is_attention(monkeypatch):
    """With a last chunk that is smaller, and its gradient."""
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", 5)
    query, key, value = jax.random.normal(jax.random.key(0), (3, 17, 2, 4))
    whole, chunks = (
        jax.value_and_grad(lambda *args, f=f: jnp.sum(jnp.sin(f(*args))), (0, 1, 2))(query, key, value)
        for f in (attention.attention, attention.attention_in_chunks)
    )
    for found, expected in zip(jax.tree.leaves(chunks), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_attention_in_chunks_holds_few_scores():
    """Of 4096 positions of one head, as of 512 x 512 pixels, a quarter of 64 MiB."""
    tokens = jax.ShapeDtypeStruct((4096, 1, 8), jnp.float32)
    found = [
        jax.jit(f).lower(tokens, tokens, tokens).compile().memory_analysis().temp_size_in_bytes
        for f in (attention.attention_in_chunks, attention.attention)
    ]
    assert 2 * found[0] < found[1] and found[1] > 60e6


@pytest.mark.parametrize(("name", "millions"), [("SD", 83.65), ("SDXL", 83.65), ("SD3", 83.82), ("FLUX", 83.82)])
def test_published_sizes(name, millions):
    shapes = pretrained_autoencoder.shapes_of(AUTOENCODERS[name])
    assert round(sum(map(np.prod, shapes.values())) / 1e6, 2) == millions
    network = AUTOENCODERS[name]
    sizes = network.widths, network.blocks_per_level, network.latent_channels, 3, network.has_quant_convs
    assert shapes == by_hand.shapes_of(*sizes)


@pytest.mark.parametrize(
    ("method", "shape", "expected"),
    [
        ("encode", (16, 16, 4), r"image must be ONE image \[height, width, 3\], got shape \(16, 16, 4\)"),
        ("encode", (1, 16, 16, 3), "image must be ONE image"),
        ("encode", (16, 18, 3), r"image must have sides that 4 divides, got shape \(16, 18, 3\)"),
        ("decode", (4, 4, 16), r"latent must be ONE latent \[height, width, 4\], got shape \(4, 4, 16\)"),
        ("decode", (0, 4, 4), "latent must be ONE latent"),
        ("decode", (4, 4, 4, 4), "latent must be ONE latent"),
    ],
)
def test_what_is_no_image_or_latent_is_refused(method, shape, expected):
    with pytest.raises(ValueError, match=expected):
        SD.apply(_params(_tensors()), jnp.zeros(shape), method=method)


def test_groups_must_divide_the_widths():
    with pytest.raises(ValueError, match=r"num_groups must divide all widths, got 5 and \(8, 16, 16\)"):
        SD.clone(num_groups=5).init(jax.random.key(0), IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SD", "SD3"])
def test_a_published_size_in_full(name):
    """84 million random parameters, 64 x 64 pixels."""
    network, image = AUTOENCODERS[name], np.random.default_rng(5).uniform(-1, 1, (64, 64, 3)).astype(np.float32)
    tensors = _tensors(network)
    params, theirs = _params(tensors, network), by_hand.Autoencoder(tensors)
    expected = theirs.encode(_first(image))
    differences = [_difference(*each) for each in zip(_ours(network, params, image, "encode"), expected, strict=True)]
    latent = expected[0].transpose(1, 2, 0).astype(np.float32)
    found = _ours(network, params, latent, "decode")
    differences.append(_difference(found, theirs.decode(_first(latent))))
    print(name, *(f"{each:.1e}" for each in differences))
    assert max(differences) < 10 * MOST
