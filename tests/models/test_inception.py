"""FID's Inception against the network by hand in NumPy, its inputs against their formulas in float64, its files."""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from cfgjax.models import inception_inputs, pretrained_inception
from cfgjax.models.inception import FIDInception
from tests.support import inception_by_hand as by_hand

MOST = 1e-4
"""Largest difference allowed, relative to the value's root mean square."""
SHAPE = (107, 139, 3)
"""Of the smallest image whose last map is larger than 1 x 1 both ways: 2 x 3."""


@cache
def _weights():
    tensors = by_hand.random_tensors(pretrained_inception.shapes_of())
    return tensors, pretrained_inception.parameters(tensors.__getitem__)


@cache
def _image():
    return np.random.default_rng(1).uniform(-1, 1, SHAPE).astype(np.float32)


@cache
def _ours():
    return [np.asarray(each) for each in jax.jit(FIDInception().apply)(_weights()[1], _image())]


def _differences(found, expected):
    return [np.max(np.abs(a - b)) / np.sqrt(np.mean(np.square(b))) for a, b in zip(found, expected, strict=True)]


def test_the_network_is_the_one_by_hand():
    expected = by_hand.features(_weights()[0], _image())
    assert [each.shape for each in expected] == [(2048,), (5, 7, 7), (1008,)]
    assert max(_differences(_ours(), expected)) < MOST


MISTAKES = {
    "pools that count the padding": ({"counts_padding": True}, 1.0, 0.3),
    "a mean for the last maximum": ({"last_is_mean": True}, 1.0, 0.0),
    "epsilon 1e-5": ({"epsilon": 1e-5}, 0.1, 0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_what_copies_get_wrong_shows(name):
    wrong, least_of_pool, least_of_spatial = MISTAKES[name]
    pool, spatial, _ = _differences(by_hand.features(_weights()[0], _image(), **wrong), _ours())
    assert pool > least_of_pool
    assert spatial >= least_of_spatial


@pytest.mark.slow
def test_colours_in_another_order_show():
    found = jax.jit(FIDInception().apply)(_weights()[1], _image()[..., ::-1])
    assert min(_differences([np.asarray(each) for each in found], _ours())) > 0.1


@pytest.mark.parametrize("image", [np.ones((107, 107)), np.ones((107, 107, 1)), np.ones((74, 107, 3))])
def test_what_is_not_one_image_is_refused(image):
    with pytest.raises(ValueError, match=r"^image must be ONE image \[height, width, 3\] with sides of at least 75"):
        FIDInception().apply({}, image)


def _by_formula(pixels, offset):
    """Output i at (i + offset) n / 299 - offset in float32 along each axis; the rest in float64."""
    values = np.asarray(pixels, np.float64)
    for axis in (0, 1):
        size = values.shape[axis]
        found = []
        for index in range(299):
            place = np.float32(np.float32(index + offset) * np.float32(size / 299)) - np.float32(offset)
            place = max(place, np.float32(0))
            low = min(int(np.floor(place)), size - 1)
            share, rows = float(place) - low, np.moveaxis(values, axis, 0)
            found.append((1 - share) * rows[low] + share * rows[min(low + 1, size - 1)])
        values = np.moveaxis(np.stack(found), 0, axis)
    return values


INPUTS = {
    "tensorflow": (inception_inputs.tensorflow_input, lambda pixels: (_by_formula(pixels, 0.0) - 128) / 128),
    "pytorch_fid": (inception_inputs.pytorch_fid_input, lambda pixels: _by_formula(pixels, 0.5) / 255 * 2 - 1),
}


@pytest.mark.parametrize("shape", [(8, 8), (32, 48), (299, 299), (64, 301), (500, 20), (1, 3)])
@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_their_formulas(name, shape):
    make, formula = INPUTS[name]
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    for given in (pixels, pixels.astype(np.float32)):
        np.testing.assert_allclose(jax.jit(make)(given), formula(pixels), rtol=0, atol=1e-6)


def test_the_conventions_place_pixels_differently():
    """A row 0, 128: TensorFlow's begins at the first pixel and holds the last from the middle on; torch's is even."""
    row = np.repeat(np.array([[[0], [128]]], np.uint8), 3, axis=2)
    tensorflow = np.asarray(inception_inputs.tensorflow_input(row))[0, :, 0] * 128 + 128
    torch = (np.asarray(inception_inputs.pytorch_fid_input(row))[0, :, 0] + 1) * 127.5
    np.testing.assert_allclose(tensorflow[[0, 1, 149, 150, 298]], [0, 256 / 299, 149 * 256 / 299, 128, 128], atol=1e-4)
    np.testing.assert_allclose(torch[[0, 74, 149, 224, 298]], [0, 0, 64, 128, 128], atol=0.5)
    np.testing.assert_allclose(torch + torch[::-1], 128, atol=1e-3)
    assert not np.allclose(tensorflow + tensorflow[::-1], 128, atol=1)


def test_a_picture_of_299_is_only_scaled():
    pixels = np.random.default_rng(3).integers(0, 256, (299, 299, 3), np.uint8)
    np.testing.assert_array_equal(inception_inputs.tensorflow_input(pixels), (pixels.astype(np.float32) - 128) / 128)
    np.testing.assert_allclose(inception_inputs.pytorch_fid_input(pixels), pixels / 127.5 - 1, atol=3e-7)


NO_PICTURES = (np.ones((8, 8), np.uint8), np.ones((8, 8, 1)), np.ones((0, 8, 3)), np.ones((2, 8, 8, 3)))


@pytest.mark.parametrize("make", [make for make, _ in INPUTS.values()])
@pytest.mark.parametrize("pixels", NO_PICTURES)
def test_what_is_not_one_picture_is_refused(make, pixels):
    with pytest.raises(ValueError, match=r"^pixels must be ONE picture \[height, width, 3\], got shape "):
        make(pixels)


def test_names_are_the_published_ones():
    """470 tensors of 94 units, and the last layer's two: 23.9 million numbers."""
    shapes = pretrained_inception.shapes_of()
    assert len(shapes) == 94 * 5 + 2
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 23_885_392
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6d.branch7x7_2.conv.weight"] == (160, 160, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["fc.weight"] == (1008, 2048)


def _file(folder: Path, tensors) -> Path:
    safetensors = pytest.importorskip("safetensors.numpy")
    file = folder / "inception.safetensors"
    safetensors.save_file(tensors, file)
    return file


def test_a_file_is_read(tmp_path):
    tensors, params = _weights()
    found = pretrained_inception.read(_file(tmp_path, tensors))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, params))


NAME = "Mixed_6e.branch_pool.bn.running_mean"
VARIANCE = "Mixed_5b.branch1x1.bn.running_var"
REFUSED = {
    "missing": ({NAME: None}, rf"tensor {NAME} is missing"),
    "unexpected": ({"other": np.ones(1, np.float32)}, r"tensor other is unexpected"),
    "another shape": ({NAME: np.ones(3, np.float32)}, rf"tensor {NAME} must have shape \(192,\), got \(3,\)"),
    "not finite": ({NAME: np.full(192, np.nan, np.float32)}, rf"tensor {NAME} is not finite"),
    "negative": ({VARIANCE: np.full(64, -1, np.float32)}, rf"tensor {VARIANCE} must not be negative, got -1"),
    "a counter": ({"a.num_batches_tracked": np.ones(1, int)}, r"tensor a.num_batches_tracked must be F32"),
    "torchvision's": ({"fc.weight": np.ones((1000, 2048), np.float32)}, r"torchvision's own Inception-v3"),
    "with a head": ({"AuxLogits.fc.bias": np.ones(9, np.float32)}, r"torchvision's own Inception-v3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name(name, tmp_path):
    changes, message = REFUSED[name]
    tensors = {name: np.zeros(shape, np.float32) for name, shape in pretrained_inception.shapes_of().items()} | changes
    tensors = {name: each for name, each in tensors.items() if each is not None}
    with pytest.raises(ValueError, match=message):
        pretrained_inception.read(_file(tmp_path, tensors))
