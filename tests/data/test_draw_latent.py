"""One latent of a picture: its Gaussian's mean and variance, one of the two views, and what is not stored."""

import jax
import numpy as np
import pytest

from cfgjax import data
from cfgjax.checks import THREEFRY

NUM_DRAWS = 4000
KEYS = jax.random.split(jax.random.key(0, impl=THREEFRY), NUM_DRAWS)
MEAN = np.broadcast_to(np.array([3.0, -1.0]), (2, 2, 2)).astype(np.float32)
DEVIATION = np.broadcast_to(np.array([0.5, 2.0]), (2, 2, 2)).astype(np.float32)


def _drawn(views):
    return np.asarray(jax.vmap(lambda key: data.draw_latent(key, views))(KEYS), np.float64)


def test_draws_have_the_mean_and_the_variance_of_each_number():
    drawn = _drawn(data.Views(MEAN, DEVIATION))
    assert (np.abs(drawn.mean(axis=0) - MEAN) < 4 * DEVIATION / np.sqrt(NUM_DRAWS)).all()
    relative = drawn.var(axis=0) / np.square(DEVIATION) - 1
    assert (np.abs(relative) < 4 * np.sqrt(2 / NUM_DRAWS)).all()
    noise = ((drawn - MEAN) / DEVIATION).reshape(NUM_DRAWS, -1)
    others = (noise.T @ noise / NUM_DRAWS)[~np.eye(8, dtype=bool)]
    assert (np.abs(others) < 4.5 / np.sqrt(NUM_DRAWS)).all()


def test_half_of_the_draws_are_of_the_mirrored_picture_with_its_own_deviation():
    drawn = _drawn(data.Views(MEAN, 0 * DEVIATION, -MEAN, 1e-3 * DEVIATION))
    is_flipped = drawn[:, 0, 0, 0] < 0
    assert abs(is_flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(NUM_DRAWS)
    np.testing.assert_array_equal(drawn[~is_flipped], np.broadcast_to(MEAN, drawn[~is_flipped].shape))
    np.testing.assert_allclose(drawn[is_flipped].std(axis=0), 1e-3 * DEVIATION, rtol=0.1)


@pytest.mark.parametrize("views", [data.Views(MEAN), data.Views(MEAN, 0 * DEVIATION), data.Views(MEAN, None, MEAN)])
def test_what_has_no_deviation_is_the_mean_bitwise(views):
    np.testing.assert_array_equal(_drawn(views), np.broadcast_to(MEAN, (NUM_DRAWS, 2, 2, 2)))


def test_views_without_deviations_are_drawn_whole():
    drawn = _drawn(data.Views(MEAN, None, -MEAN))
    found = np.unique(drawn.reshape(NUM_DRAWS, -1), axis=0)
    np.testing.assert_array_equal(found, [(-MEAN).ravel(), MEAN.ravel()])
