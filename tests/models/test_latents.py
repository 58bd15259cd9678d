"""Latents: the draw and the scale by their formulas, and tiles against the whole where they must be equal to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.data import to_pixels
from cfgjax.models import (
    LATENT_SCALINGS,
    AutoencoderKL,
    LatentScaling,
    decode_tiled,
    pretrained_autoencoder,
    sample_latent,
    scale_latent,
    unscale_latent,
)
from cfgjax.models.latents import _starts, _weights
from tests.support.autoencoder_by_hand import random_tensors, shapes_of

KEY = jax.random.key(7)
PUBLISHED = {"SD": (0.18215, 0.0), "SDXL": (0.13025, 0.0), "SD3": (1.5305, 0.0609), "FLUX": (0.3611, 0.1159)}


def _mean(shape=(4, 6, 2)):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_a_draw_is_the_mean_and_the_deviation_times_noise():
    """The same noise whatever both are: no deviation at all gives the mean, and twice it twice the distance."""
    mean = _mean()
    noise = sample_latent(KEY, np.zeros_like(mean), np.zeros_like(mean))
    log_variance = _mean()[::-1]
    np.testing.assert_allclose(
        sample_latent(KEY, mean, log_variance), mean + np.exp(log_variance / 2) * noise, rtol=1e-6
    )
    np.testing.assert_array_equal(sample_latent(KEY, mean, np.full_like(mean, -np.float32(200))), mean)


def test_draws_have_the_variance_of_its_logarithm():
    count = 20_000
    draws = sample_latent(KEY, np.full(count, 3, np.float32), np.full(count, np.log(0.25), np.float32))
    assert abs(np.mean(draws) - 3) < 4 * 0.5 / np.sqrt(count)
    assert abs(np.var(draws) - 0.25) < 4 * 0.25 * np.sqrt(2 / count)


def test_mean_and_log_variance_have_one_shape():
    with pytest.raises(ValueError, match=r"log_variance"):
        sample_latent(KEY, np.zeros((4, 4, 2)), np.zeros((4, 4, 1)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_scale_is_factor_times_what_is_above_the_shift(name):
    """Scaling without the shift is noticed: it moves every number by factor times shift."""
    factor, shift = PUBLISHED[name]
    latent, scaling = _mean(), LATENT_SCALINGS[name]
    assert scaling == (factor, shift)
    scaled = scale_latent(latent, scaling)
    np.testing.assert_allclose(scaled, (np.float64(latent) - shift) * factor, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unscale_latent(scaled, scaling), latent, rtol=1e-5, atol=1e-6)
    assert LATENT_SCALINGS.keys() == PUBLISHED.keys()


def test_what_is_decoded_is_clipped_before_it_becomes_eight_bits():
    """By ``data.to_pixels``: without it 1.01 would wrap to 0."""
    assert to_pixels(np.array([-2.2, -1.01, 1.01, 2.4])).tolist() == [0, 0, 255, 255]


SIZES = [(20, 16, 4), (17, 8, 0), (64, 16, 15), (23, 7, 3), (5, 8, 4), (8, 8, 3)]


@pytest.mark.parametrize(("length", "tile", "overlap"), SIZES)
def test_tiles_cover_all_and_their_weights_sum_to_one(length, tile, overlap):
    side = min(length, tile)
    starts = _starts(length, side, overlap)
    assert (starts[0], starts[-1]) == (0, length - side)
    assert all(np.diff(starts) <= side - overlap) and (len(starts) == 1 or all(np.diff(starts) > 0))
    assert len(starts) == (1 if length <= tile else -(-(length - overlap) // (tile - overlap)))
    weights, total = _weights(length, starts, side, overlap, 3), np.zeros(3 * length)
    for start, each in zip(starts, weights, strict=True):
        total[3 * start : 3 * (start + side)] += each
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert np.all(weights > 0)


def test_two_tiles_are_blended_linearly_over_their_overlap():
    """The formula by hand: 0..6 and 4..10 with f = 2; pixel 8 lies 0.25 of the overlap's 2 into it."""
    weights = _weights(10, np.array([0, 4]), 6, 2, 2)
    np.testing.assert_allclose(weights[0, 6:], [1, 1, 0.875, 0.625, 0.375, 0.125], rtol=1e-6)
    np.testing.assert_allclose(weights[1, :6], [0.125, 0.375, 0.625, 0.875, 1, 1], rtol=1e-6)


def _pointwise(latent):
    """A decoder whose pixel depends on its own position alone: every position as 2 x 2 pixels."""
    return jnp.repeat(jnp.repeat(jnp.sin(3 * latent), 2, axis=0), 2, axis=1)


@pytest.mark.parametrize(("tile", "overlap"), [(4, 0), (4, 2), (5, 4), (7, 3), (64, 16)])
@pytest.mark.parametrize("shape", [(11, 9, 2), (4, 16, 1)])
def test_a_pointwise_decoder_by_tiles_is_the_whole(tile, overlap, shape):
    latent = _mean(shape)
    found = jax.jit(lambda z: decode_tiled(_pointwise, z, tile, overlap))(latent)
    np.testing.assert_allclose(found, _pointwise(latent), rtol=1e-5, atol=1e-6)


def test_far_from_a_tile_s_edges_a_local_decoder_is_the_whole():
    """What reaches one position to each side: right where ONE tile has all the weight, wrong only beside edges."""

    def averaged(latent):
        padded = jnp.pad(latent, ((1, 1), (1, 1), (0, 0)))
        return _pointwise((padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4)

    latent = _mean((20, 8, 2))
    off = np.abs(decode_tiled(averaged, latent, 12, 4) - averaged(latent)).max(axis=(1, 2))
    assert off[:16].max() < 1e-6 and off[24:].max() < 1e-6 and off[16:24].max() > 1e-2


NETWORK = AutoencoderKL(4, 3, (4, 4), 1, 2)


def _decode(params):
    return lambda latent: NETWORK.apply(params, latent, method="decode")


def test_one_tile_that_holds_all_is_the_whole():
    """Bitwise."""
    tensors = random_tensors(shapes_of(NETWORK.widths, 1, 4))
    params = pretrained_autoencoder.parameters(tensors.__getitem__, NETWORK)
    latent = _mean((6, 9, 4))
    whole, tiled = (jax.jit(f)(latent) for f in (_decode(params), lambda z: decode_tiled(_decode(params), z, 9, 2)))
    np.testing.assert_array_equal(tiled, whole)


def test_tiles_take_less_memory():
    params = jax.eval_shape(NETWORK.init, KEY, np.zeros((8, 8, 3), np.float32))
    latent = jax.ShapeDtypeStruct((96, 96, 4), jnp.float32)
    programs = (lambda p, z: _decode(p)(z), lambda p, z: decode_tiled(_decode(p), z, 16, 4))
    found = [jax.jit(f).lower(params, latent).compile().memory_analysis().temp_size_in_bytes for f in programs]
    assert 4 * found[1] < found[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"overlap": 4}, "overlap must be less than tile 4, got 4"),
        ({"latent": np.zeros((2, 4, 4, 1))}, r"latent must be ONE latent \[height, width, channels\], got shape"),
        ({"decode": lambda z: z[0]}, r"decode must give \[f h, f w, C\] of a latent \(4, 4\)"),
        ({"decode": lambda z: jnp.zeros((9, 8, 1))}, r"decode must give \[f h, f w, C\]"),
        ({"decode": lambda z: None}, r"decode must give \[f h, f w, C\]"),
    ],
)
def test_what_gives_no_tiles_is_refused(changes, expected):
    usual = {"decode": _pointwise, "latent": np.zeros((8, 8, 1)), "tile": 4, "overlap": 1}
    with pytest.raises(ValueError, match=expected):
        decode_tiled(**usual | changes)


def test_a_scaling_is_traced():
    """Factor and shift are numbers: one program for all."""
    traces = []

    @jax.jit
    def compiled(mean, scaling):
        traces.append("traced")
        return scale_latent(mean, scaling)

    for name, scaling in LATENT_SCALINGS.items():
        np.testing.assert_allclose(compiled(_mean(), scaling), scale_latent(_mean(), scaling), rtol=1e-6, err_msg=name)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "scaling", [(0.18215, 0.0), LatentScaling(0.0), LatentScaling(np.nan), LatentScaling(1, "a"), 1]
)
def test_what_is_no_scaling_is_refused(scaling):
    with pytest.raises((TypeError, ValueError), match="scaling"):
        scale_latent(_mean(), scaling)
