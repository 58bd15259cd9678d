"""Patches, modulation, positions, and the sides and widths that they do not divide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import DiT, UNet
from cfgjax.models.blocks import from_patches, modulate, to_patches
from cfgjax.models.embeddings import sincos_positions


def test_patches_hold_squares_of_the_image_and_go_back():
    x = jnp.arange(4 * 6 * 2).reshape(4, 6, 2)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 3, 8)
    np.testing.assert_array_equal(patches[1, 2].reshape(2, 2, 2), x[2:4, 4:6])
    np.testing.assert_array_equal(from_patches(patches, 2), x)


def test_modulation_scales_and_shifts_every_position():
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 4))
    gain, shift = jnp.arange(4.0), jnp.ones(4)
    expected = np.asarray(hidden) * np.array([1, 2, 3, 4]).reshape(1, 1, 4) + 1
    np.testing.assert_allclose(modulate(hidden, gain, shift), expected, rtol=1e-6)


def test_positions_tell_rows_from_columns():
    table = np.asarray(sincos_positions(3, 4, 16)).reshape(3, 4, 16)
    assert len(np.unique(table.reshape(12, 16), axis=0)) == 12
    np.testing.assert_allclose(table[2, 1, :4], np.sin(2 / 10000.0 ** (np.arange(4) / 4)), rtol=1e-5)
    np.testing.assert_allclose(table[2, 1, 4:8], np.sin(1 / 10000.0 ** (np.arange(4) / 4)), rtol=1e-5)


def _initialise(network, shape):
    jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(()), jnp.zeros((), jnp.int32))


@pytest.mark.parametrize("network", [UNet(multipliers=(1, 2)), UNet(width=8, multipliers=(1,), patch=4), DiT(patch=4)])
def test_sides_that_do_not_divide_are_refused(network):
    for shape in ((7, 8, 2), (8, 7, 2)):
        with pytest.raises(ValueError, match=r"patch must divide|multipliers halve"):
            _initialise(network, shape)
    with pytest.raises(ValueError, match="x must be ONE image"):
        _initialise(network, (2, 8, 8, 2))


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide the width 32, got 3"):
        _initialise(DiT(num_classes=2, width=32, depth=1, num_heads=3), (8, 8, 2))
    with pytest.raises(ValueError, match="width must be divisible by 4"):
        _initialise(DiT(num_classes=2, width=30, depth=1, num_heads=3), (8, 8, 2))
