"""What is measured of a digit's image: drawn bars by their closed forms, and every image by NumPy's covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.data import measured
from tests.support.digits import train_digits

CANVAS = (16, 32)
RNG = np.random.default_rng(0)
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def _image(ink):
    """The image [H, W, 1] on [-1, 1] of ink [H, W] on [0, 1]."""
    return jnp.asarray(2 * np.asarray(ink)[..., np.newaxis] - 1, jnp.float32)


_measured = jax.jit(measured.properties)


def _properties(ink):
    return np.asarray(_measured(_image(ink)))


def _bar(height, width, slant=0, top=4, left=12):
    """A bar of full ink, each row of which lies ``slant`` columns to the right of the row under it."""
    ink = np.zeros(CANVAS)
    for row in range(height):
        start = left + slant * (height - 1 - row)
        ink[top + row, start : start + width] = 1
    return ink


def _blot():
    """Uneven ink, with room around it."""
    ink = np.zeros(CANVAS)
    ink[3:8, 14:18] = RNG.uniform(0.2, 1, (5, 4))
    return ink


def _sheared(ink, slant):
    """The ink, each row moved ``slant`` columns to the right of the row under it."""
    return np.stack([np.roll(row, -slant * index) for index, row in enumerate(ink)])


@pytest.mark.parametrize(("height", "width"), [(6, 2), (1, 1), (8, 1), (3, 7), (5, 5)])
def test_an_upright_bar(height, width):
    expected = [height * width / (height + width), width, height, 0]
    np.testing.assert_allclose(_properties(_bar(height, width)), expected, **TOLERANCE)


@pytest.mark.parametrize("slant", [-2, -1, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(6, 2), (4, 3)])
def test_a_leaning_bar(height, width, slant):
    """As wide as the upright one; half its perimeter has |slant| more for each step from row to row."""
    weight = height * width / (height + width + abs(slant) * (height - 1))
    np.testing.assert_allclose(_properties(_bar(height, width, slant)), [weight, width, height, slant], **TOLERANCE)


def test_a_digit_whose_top_lies_to_the_right_leans_right():
    assert _properties(np.eye(8)[::-1])[3] == pytest.approx(1, abs=1e-5)


def _by_numpy(image):
    """(M1-M3) in float64 by another way: np.cov, and a loop over all neighbours."""
    darkness = np.clip((np.asarray(image, np.float64)[..., 0] + 1) / 2, 0, 1)
    ink = np.pad(np.maximum(darkness - darkness.max() / 8, 0), 1)
    row, column = np.indices(ink.shape)
    (of_rows, of_both), (_, of_columns) = np.cov(row.ravel(), column.ravel(), ddof=0, aweights=ink.ravel())
    changes = 0.0
    for r, c in np.ndindex(*ink.shape):
        changes += abs(ink[r, c] - ink[r - 1, c]) * (r > 0) + abs(ink[r, c] - ink[r, c - 1]) * (c > 0)
    upright = of_columns - of_both**2 / of_rows
    return [2 * ink.sum() / changes, np.sqrt(1 + 12 * upright), np.sqrt(1 + 12 * of_rows), -of_both / of_rows]


def test_real_digits_and_noise_are_measured_as_by_numpy():
    images = np.concatenate([train_digits().image[:30], RNG.normal(size=(10, 8, 8, 1))])
    found = jax.jit(jax.vmap(measured.properties))(jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(found, [_by_numpy(image) for image in images], rtol=1e-4, atol=1e-5)


def test_nothing_changes_where_the_ink_moves():
    ink = _blot()
    expected = _properties(ink)
    for shift in [(3, 5), (-3, 0), (0, -14), (8, 14)]:
        np.testing.assert_allclose(_properties(np.roll(ink, shift, axis=(0, 1))), expected, **TOLERANCE)
    np.testing.assert_allclose(_properties(np.pad(ink, ((0, 7), (4, 0)))), expected, **TOLERANCE)


@pytest.mark.parametrize("factor", [0.75, 0.5, 0.1])
def test_nothing_changes_where_all_of_the_ink_is_fainter(factor):
    ink = _blot()
    np.testing.assert_allclose(_properties(factor * ink), _properties(ink), **TOLERANCE)


@pytest.mark.parametrize("slant", [-1, 1, 2])
def test_a_shear_adds_to_the_slant_and_leaves_width_and_height(slant):
    ink = _blot()
    _, width, height, before = _properties(ink)
    np.testing.assert_allclose(_properties(_sheared(ink, slant))[1:], [width, height, before + slant], **TOLERANCE)


def test_a_mirror_image_leans_the_other_way():
    ink = _blot()
    for flipped in (ink[:, ::-1], ink[::-1]):
        np.testing.assert_allclose(_properties(flipped), _properties(ink) * [1, 1, 1, -1], **TOLERANCE)


def test_a_background_fainter_than_an_eighth_of_the_ink_counts_nothing():
    ink = 0.8 * _bar(6, 2)
    noise = RNG.uniform(0, 0.0999, ink.shape) * (ink == 0)
    np.testing.assert_array_equal(_properties(ink + noise), _properties(ink))
    assert _properties(ink + 1.3 * noise)[1] > _properties(ink)[1]


def test_what_lies_outside_the_range_counts_as_its_ends():
    ink = _bar(6, 2)
    np.testing.assert_array_equal(_properties(3 * ink - 1), _properties(ink))


def test_images_with_no_ink_and_with_one_row_of_it():
    np.testing.assert_array_equal(_properties(np.zeros(CANVAS)), [0, 1, 1, 0])
    np.testing.assert_allclose(_properties(_bar(1, 4)), [0.8, 4, 1, 0], **TOLERANCE)


def test_an_image_that_is_not_finite_has_no_properties():
    ink = _bar(6, 2)
    ink[0, 0] = np.nan
    assert np.isnan(_properties(ink)).all()


def test_the_same_under_jit_and_in_half_precision():
    image = train_digits().image[7]
    expected = measured.properties(image)
    np.testing.assert_allclose(_measured(image), expected, rtol=1e-5, atol=1e-6)
    in_half = _measured(image.astype(jnp.bfloat16))
    assert in_half.dtype == jnp.float32
    np.testing.assert_allclose(in_half, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3), (5, 8, 8, 1), ()])
def test_what_is_not_one_gray_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"^image must be ONE gray image \[height, width, 1\], got shape"):
        measured.properties(jnp.zeros(shape))


def test_standardised_properties_have_mean_0_and_deviation_1_and_an_inverse():
    properties = train_digits().properties
    spread = measured.spread_of(np.asarray(properties))
    found = jax.vmap(measured.standardised, in_axes=(0, None))(properties, spread)
    np.testing.assert_allclose(found.mean(axis=0), np.zeros(4), atol=1e-5)
    np.testing.assert_allclose(found.std(axis=0), np.ones(4), atol=1e-5)
    again = jax.vmap(measured.from_standardised, in_axes=(0, None))(found, spread)
    np.testing.assert_allclose(again, properties, rtol=1e-5, atol=1e-5)


def test_one_property_by_hand():
    spread = measured.spread_of(np.array([[1.0, 2, 3, 4], [3, 2.5, 5, 8]]))
    np.testing.assert_allclose(spread.mean, [2, 2.25, 4, 6])
    np.testing.assert_allclose(spread.deviation, [1, 0.25, 1, 2])
    np.testing.assert_allclose(measured.standardised(jnp.array([4.0, 2, 4, 7]), spread), [2, -1, 0, 0.5])


def test_a_property_that_is_the_same_of_all_is_refused():
    with pytest.raises(ValueError, match=r"^properties must differ between images, got 5 for the height of all$"):
        measured.spread_of(np.array([[1.0, 2, 5, 4], [3, 2.5, 5, 8]]))
    with pytest.raises(ValueError, match=r"^properties must have the shape \(2, 4\), got \(2, 3\)$"):
        measured.spread_of(np.ones((2, 3)))
