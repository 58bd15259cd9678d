"""FID's Inception and its inputs against PyTorch's layers, with random weights (needs PyTorch)."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import inception_inputs, pretrained_inception
from cfgjax.models.inception import FIDInception
from tests.support import inception_by_hand as by_hand

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.slow
MOST = 1e-4
"""Largest difference allowed, relative to the value's root mean square."""


def _in_torch(tensors):
    """The layers of a batch [n, C, H, W], with the norms as they are published."""
    weights = {name: torch.from_numpy(each) for name, each in tensors.items()}

    def unit(name, x, stride, padding):
        found = functional.conv2d(x, weights[f"{name}.conv.weight"], None, stride, padding)
        mean, variance = weights[f"{name}.bn.running_mean"], weights[f"{name}.bn.running_var"]
        norm = weights[f"{name}.bn.weight"], weights[f"{name}.bn.bias"]
        return functional.relu(functional.batch_norm(found, mean, variance, *norm, False, 0.0, by_hand.EPSILON))

    return by_hand.Layers(
        unit,
        lambda x: functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        lambda x: functional.max_pool2d(x, 3, 1, 1),
        lambda x: functional.max_pool2d(x, 3, 2),
        lambda branches: torch.cat(branches, 1),
    )


def features_in_torch(tensors, image):
    """Pool features, spatial ones and logits of an image [H, W, 3], by PyTorch."""
    with torch.no_grad():
        batch = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None]
        sixth, last = by_hand.maps(_in_torch(tensors), batch)
        pool = last.mean((2, 3))
        logits = pool @ torch.from_numpy(tensors["fc.weight"]).T + torch.from_numpy(tensors["fc.bias"])
    return pool[0].numpy(), sixth[0, :7].permute(1, 2, 0).numpy(), logits[0].numpy()


@cache
def _weights():
    tensors = by_hand.random_tensors(pretrained_inception.shapes_of())
    return tensors, pretrained_inception.parameters(tensors.__getitem__)


def _difference(found, expected):
    return float(np.max(np.abs(np.asarray(found) - expected)) / np.sqrt(np.mean(np.square(expected))))


def test_the_network_is_pytorchs():
    tensors, params = _weights()
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    image = inception_inputs.tensorflow_input(picture)
    found = jax.jit(FIDInception().apply)(params, image)
    differences = [_difference(*pair) for pair in zip(found, features_in_torch(tensors, image), strict=True)]
    print("pool, spatial, logits:", *(f"{each:.1e}" for each in differences))
    assert [each.shape for each in found] == [(2048,), (17, 17, 7), (1008,)]
    assert max(differences) < MOST


@pytest.mark.parametrize("shape", [(8, 8), (32, 48), (299, 299), (256, 301), (640, 480), (1, 3)])
def test_pytorch_fids_input_is_pytorchs_interpolation(shape):
    """But for the rounding of positions, whose error grows with the side."""
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    resized = functional.interpolate(batch, size=(299, 299), mode="bilinear", align_corners=False)
    expected = (2 * resized - 1)[0].permute(1, 2, 0).numpy()
    found = jnp.asarray(inception_inputs.pytorch_fid_input(picture))
    assert np.max(np.abs(np.asarray(found) - expected)) < 2 * max(shape) * 2**-23 + 1e-6
