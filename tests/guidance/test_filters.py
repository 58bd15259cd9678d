"""Low passes of frequency-decoupled guidance: against SciPy, what they keep and take, and the law that they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cfgjax import guidance, solvers
from tests.support import normals

WEIGHTS = np.array([1, 4, 6, 4, 1]) / 16
IMAGE = np.random.default_rng(0).normal(size=(8, 12, 3))


def _by_scipy(image, levels):
    """(F1) by SciPy: mirrored blurs, and a doubling by linear interpolation that holds the edges."""

    def blur(image):
        for axis in (0, 1):
            image = ndimage.correlate1d(image, WEIGHTS, axis=axis, mode="mirror")
        return image

    for _ in range(levels):
        image = blur(image)[::2, ::2]
    for _ in range(levels):
        rows, columns, depth = image.shape
        places = np.meshgrid(
            (np.arange(2 * rows) - 0.5) / 2, (np.arange(2 * columns) - 0.5) / 2, np.arange(depth), indexing="ij"
        )
        image = blur(ndimage.map_coordinates(image, places, order=1, mode="nearest"))
    return image


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("levels", [1, 2])
def test_the_laplacian_pass_is_that_of_scipy(levels):
    low = guidance.filters.laplacian_low(levels)
    np.testing.assert_allclose(jax.jit(low)(jnp.asarray(IMAGE)), _by_scipy(IMAGE, levels), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 2])
def test_constants_stay_and_a_checkerboard_vanishes(levels):
    low = jax.jit(guidance.filters.laplacian_low(levels))
    np.testing.assert_array_equal(low(jnp.full((8, 4, 1), 0.75)), np.full((8, 4, 1), 0.75))
    board = (-1.0) ** np.add.outer(np.arange(8), np.arange(4))[:, :, np.newaxis]
    np.testing.assert_array_equal(low(jnp.asarray(board, jnp.float32)), np.zeros((8, 4, 1)))


@pytest.mark.parametrize("shape", [(8, 6, 1), (7, 8, 1), (8, 8)])
def test_an_image_that_cannot_be_halved_is_refused(shape):
    with pytest.raises(ValueError, match="value must"):
        guidance.filters.laplacian_low(2)(jnp.ones(shape))


@pytest.mark.usefixtures("x64")
def test_the_law_has_one_scale_along_the_low_pass_and_another_across(plain_or_steep_path):
    """Of N(0, 2 I) and N(1, I) in 3-D, by the mean over coordinates: variance V_y^w V_null^(1 - w) with w_low, w."""
    scale, share = 2.5, 0.4
    pair = guidance.frequency_decoupled(normals.pair(plain_or_steep_path), guidance.filters.mean_low, share)
    solver = solvers.rk4(guidance.given(guidance.extrapolate(pair, scale), normals.LABEL))
    starts = jnp.stack([jnp.zeros(3), jnp.ones(3) / jnp.sqrt(3.0), jnp.array([1.0, -1.0, 0.0]) / jnp.sqrt(2.0)])
    end = jax.jit(jax.vmap(lambda x: solvers.integrate(solver, normals.KEY, x, np.linspace(0, 1, 201))))
    middle, along, across = np.asarray(end(starts))
    low = 1 + share * (scale - 1)
    np.testing.assert_allclose(np.sum((along - middle) ** 2), 2 ** (1 - low), rtol=1e-4)
    np.testing.assert_allclose(np.sum((across - middle) ** 2), 2 ** (1 - scale), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_a_checkerboard_is_guided_by_w_and_a_constant_by_the_low_scale():
    board = jnp.asarray((-1.0) ** np.add.outer(np.arange(4), np.arange(4))[:, :, np.newaxis])
    pair = guidance.pair(lambda x, t, y: x + y * (2 * board + 3), 0)
    decoupled = guidance.frequency_decoupled(pair, guidance.filters.laplacian_low(), 0.25)
    guided = jax.jit(guidance.extrapolate(decoupled, 5.0))
    found = guided(jnp.zeros((4, 4, 1)), jnp.asarray(0.3), jnp.asarray(1))
    np.testing.assert_allclose(found, 5 * 2 * board + 2 * 3, atol=1e-12)


def test_a_low_pass_of_another_shape_is_refused():
    pair = guidance.frequency_decoupled(guidance.pair(lambda x, t, y: x * y, 3), lambda value: value[:1])
    with pytest.raises(ValueError, match=r"low_pass must give the shape \(2,\), got \(1,\)"):
        guidance.extrapolate(pair, 2.0)(jnp.ones(2), jnp.float32(0.3), 1)
