"""Ours and the network by hand against diffusers' AutoencoderKL, with random weights (needs PyTorch and diffusers)."""

import warnings
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import AUTOENCODERS, LATENT_SCALINGS, AutoencoderKL, decode_tiled, pretrained_autoencoder
from experiments.benchmark.decoding import theirs_of
from tests.support import autoencoder_by_hand as by_hand

torch = pytest.importorskip("torch")
with warnings.catch_warnings(action="ignore"):
    diffusers = pytest.importorskip("diffusers")

MOST = 1e-4
"""Largest difference allowed, relative to the value's root mean square."""
SMALL = AutoencoderKL(4, 3, (8, 16, 16), 1, 4)
SMALL_16 = AutoencoderKL(16, 3, (8, 16), 2, 4, has_quant_convs=False)


def _theirs(network, scaling=LATENT_SCALINGS["SD"]):
    """Their network of the sizes of ours, with no weight at zero."""
    theirs = theirs_of(network, scaling)
    shapes = {name: tuple(each.shape) for name, each in theirs.state_dict().items()}
    tensors = by_hand.random_tensors(shapes)
    theirs.load_state_dict({name: torch.from_numpy(each) for name, each in tensors.items()})
    return theirs, tensors


@cache
def _pair(network):
    """Theirs, the tensors, and our parameters of them."""
    theirs, tensors = _theirs(network)
    return theirs, tensors, pretrained_autoencoder.parameters(tensors.__getitem__, network)


def _batch(x):
    return torch.from_numpy(np.ascontiguousarray(np.asarray(x).transpose(2, 0, 1)))[None]


def _moments(theirs, x):
    found = theirs.encode(x).latent_dist
    return found.mean, found.logvar


def _call(theirs, x, method):
    return _moments(theirs, x) if method == "encode" else (theirs.decode(x).sample,)


def _difference(found, expected):
    expected = expected.detach().numpy()[0].transpose(1, 2, 0) if expected.ndim == 4 else expected.detach().numpy()
    return float(np.max(np.abs(np.asarray(found) - expected)) / np.sqrt(np.mean(np.square(expected))))


def _input(network, method, side):
    rng = np.random.default_rng(1)
    if method == "encode":
        return rng.uniform(-1, 1, (side, side, 3)).astype(np.float32)
    side //= network.downsampling
    return rng.normal(size=(side, side, network.latent_channels)).astype(np.float32)


def _check(network, side, label):
    theirs, _, params = _pair(network)
    for method in ("encode", "decode"):
        x = _input(network, method, side)
        with torch.inference_mode():
            expected = _call(theirs, _batch(x), method)
        found = jax.tree.leaves(jax.jit(lambda p, x, m=method: network.apply(p, x, method=m))(params, x))
        differences = [_difference(*each) for each in zip(found, expected, strict=True)]
        print(label, method, *(f"{each:.1e}" for each in differences))
        assert max(differences) < MOST


def _check_gradients(network, side, label):
    """Of a weighted sum of the outputs, by the input and by every parameter, from theirs in double precision.

    Each is relative to its own size. That of a key's bias is 0 but for rounding: no array is taken for smaller than 1 %
    of all of them.
    """
    theirs, tensors, params = _pair(network)
    for method in ("encode", "decode"):
        x = _input(network, method, side)
        shapes = [each.shape for each in jax.tree.leaves(network.apply(params, x, method=method))]
        weights = [np.random.default_rng(7).normal(size=shape).astype(np.float32) for shape in shapes]

        def summed(params, x, method=method, weights=weights):
            out = jax.tree.leaves(network.apply(params, x, method=method))
            return sum(jnp.sum(a * b) for a, b in zip(out, weights, strict=True))

        slopes, x_slope = jax.jit(jax.grad(summed, (0, 1)))(params, x)
        batch = _batch(x).double().requires_grad_()
        theirs.double().zero_grad()
        out = _call(theirs, batch, method)
        sum((a * _batch(b)).sum() for a, b in zip(out, weights, strict=True)).backward()
        slope_of = {name: each.grad.numpy() for name, each in theirs.named_parameters() if each.grad is not None}
        no_slope = {name: np.zeros_like(each) for name, each in tensors.items()}
        expected = pretrained_autoencoder.parameters((no_slope | slope_of).__getitem__, network)
        differences = [_difference(x_slope, batch.grad)]
        least = 0.01 * jnp.sqrt(jnp.mean(jnp.concatenate([jnp.ravel(each) for each in jax.tree.leaves(expected)]) ** 2))
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True):
            differences.append(float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.sqrt(jnp.mean(b**2)), least)))
        print(label, method, "gradients", f"{differences[0]:.1e} {max(differences):.1e}")
        assert max(differences) < MOST
    theirs.float()


@pytest.mark.parametrize("network", [SMALL, SMALL_16], ids=["4 channels", "16 channels"])
def test_ours_with_the_weights_of_theirs_is_theirs(network):
    _check(network, 32, "small")
    _check_gradients(network, 16, "small")


@pytest.mark.parametrize("network", [SMALL, SMALL_16], ids=["4 channels", "16 channels"])
def test_the_network_by_hand_is_theirs(network):
    """The names, too, by which the tests without PyTorch know the published network."""
    theirs, tensors, _ = _pair(network)
    sizes = network.widths, network.blocks_per_level, network.latent_channels, 3, network.has_quant_convs
    assert by_hand.shapes_of(*sizes) == {name: each.shape for name, each in tensors.items()}
    hand = by_hand.Autoencoder(tensors, network.num_groups)
    for method in ("encode", "decode"):
        x = _batch(_input(network, method, 32)).double()
        with torch.inference_mode():
            expected = _call(theirs.double(), x, method)
        found = getattr(hand, method)(x[0].numpy())
        for one, each in zip(found if method == "encode" else (found,), expected, strict=True):
            np.testing.assert_allclose(one, each[0].numpy(), rtol=1e-9, atol=1e-9)
    theirs.float()


@pytest.mark.parametrize("name", ["SD", "SDXL", "SD3", "FLUX"])
def test_their_saved_folder_is_read(name, tmp_path):
    """Scaling, groups and weights, by the file and the config that ``save_pretrained`` writes."""
    pytest.importorskip("safetensors")
    sizes = AUTOENCODERS[name].clone(widths=(8, 16), blocks_per_level=1, num_groups=4)
    theirs, tensors = _theirs(sizes, LATENT_SCALINGS[name])
    theirs.save_pretrained(tmp_path)
    found = pretrained_autoencoder.read(Path(tmp_path) / "diffusion_pytorch_model.safetensors")
    assert (found.network, found.scaling) == (sizes, LATENT_SCALINGS[name])
    expected = pretrained_autoencoder.parameters(tensors.__getitem__, sizes)
    assert jax.tree.all(jax.tree.map(np.array_equal, found.params, expected))


def test_tiles_are_as_near_to_the_whole_as_theirs():
    """Both blend tiles that see less than the whole; the distance to it is alike."""
    theirs, _, params = _pair(SMALL)
    theirs.tile_latent_min_size, theirs.tile_sample_min_size, theirs.tile_overlap_factor = 16, 64, 0.25
    latent = _input(SMALL, "decode", 160)
    with torch.inference_mode():
        whole, tiled = (f(_batch(latent)).sample[0].numpy() for f in (theirs.decode, theirs.tiled_decode))
    found = decode_tiled(lambda z: SMALL.apply(params, z, method="decode"), latent, 16, 4)
    off = [np.sqrt(np.mean((each - whole) ** 2)) for each in (np.asarray(found).transpose(2, 0, 1), tiled)]
    print("tiles:", *(f"{each / whole.std():.3f}" for each in off))
    assert 0.5 < off[0] / off[1] < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SD", "SD3"])
def test_a_published_size_in_full(name):
    """84 million random parameters, 64 x 64 pixels, values and gradients."""
    _check(AUTOENCODERS[name], 64, name)
    _check_gradients(AUTOENCODERS[name], 64, name)
    _pair.cache_clear()
