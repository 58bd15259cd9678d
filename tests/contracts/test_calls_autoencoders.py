"""Calls of autoencoders and of their latents: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import models
from cfgjax.models import LatentScaling, pretrained_autoencoder
from tests.support.calls import COUNT, FUNCTIONS, KEY, KEYS, NAN, NO_ARRAY, Case, Choices, fuzz, plain, typed

SMALL = models.AutoencoderKL(2, 3, (4, 8), 1, 2)
SHAPES = pretrained_autoencoder.shapes_of(SMALL)
FEW = COUNT._replace(allowed=(1, 2, np.int64(2)), more=None)


def _maps(height, width, channels):
    values = np.linspace(-1, 1, height * width * channels).reshape(height, width, channels)
    wrong = (jnp.ones((height, width)), jnp.ones((1, height, width, channels)), jnp.ones((height, width, channels + 1)))
    return Choices(typed(values), (*NO_ARRAY, *wrong, jnp.ones((0, width, channels)), 1.0))


IMAGES, LATENTS = _maps(8, 4, 3), _maps(4, 2, 2)
SCALINGS = Choices(
    (LatentScaling(0.5), LatentScaling(2, np.float32(-1)), LatentScaling(jnp.float32(0.25), 1)),
    (
        None,
        0.5,
        (0.5, 0.0),
        "SD",
        LatentScaling(0),
        LatentScaling(NAN),
        LatentScaling(1.0, "a"),
        LatentScaling(1, None),
    ),
)
NETWORKS = Choices((SMALL, SMALL.clone(has_quant_convs=False)), (None, "SD", models.AutoencoderKL, (2, 3)))


def _shapes(method):
    def call(x, **settings):
        network = SMALL.clone(**settings)
        found = jax.eval_shape(lambda: network.init_with_output(KEY, x, method=method)[0])
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
        return [np.zeros(leaf.shape) for leaf in jax.tree.leaves(found)]

    return call


def _read_back(network):
    return pretrained_autoencoder.network_of(pretrained_autoencoder.shapes_of(network), 2)


def _tensor(name):
    return np.zeros(SHAPES[name], np.float16)


CASES = [
    Case(
        "models.AutoencoderKL",
        _shapes("__call__"),
        {
            "x": IMAGES.but(refused=(jnp.ones((8, 5, 3)),)),
            "latent_channels": FEW,
            "widths": Choices(((4, 8), (2, 2)), ((), (0,), (4, -2), (1.5,), (4, 3), "width", None)),
            "blocks_per_level": FEW,
            "num_groups": FEW.but(refused=(5,)),
        },
        lambda x, **settings: [np.zeros(np.shape(x))],
        {"x": "image", "widths": "widths|num_groups"},
    ),
    Case(
        "models.AutoencoderKL: decode",
        _shapes("decode"),
        {"x": LATENTS},
        lambda x: [np.zeros((8, 4, 3))],
        {"x": "latent"},
    ),
    Case(
        "models.sample_latent",
        lambda key, mean, log_variance: models.sample_latent(key, mean, log_variance),
        {
            "key": KEYS,
            "mean": Choices(typed([1, -2]), NO_ARRAY),
            "log_variance": Choices(typed([-200, -200], (np.float32, jnp.float32)), (*NO_ARRAY, jnp.ones(3), 1.0)),
        },
        lambda key, mean, log_variance: plain(mean),
    ),
    Case(
        "models.kl_to_normal",
        models.kl_to_normal,
        {
            "mean": Choices(typed([1, -2]), NO_ARRAY),
            "log_variance": Choices(typed([0, 0]), (*NO_ARRAY, jnp.ones(3), 1.0)),
        },
        lambda mean, log_variance: 2.5,
    ),
    Case(
        "models.autoencoder_loss",
        models.autoencoder_loss,
        {
            "encode": Choices((lambda image: (jnp.ones(2), jnp.full(2, -200.0)),), FUNCTIONS),
            "decode": Choices((lambda latent: 3 * latent,), (*FUNCTIONS, lambda latent: latent[:1])),
            "key": KEYS,
            "image": Choices(typed([1, 1]), NO_ARRAY),
            "kl_weight": Choices((0, 0.0, np.float32(0)), (-1, NAN, "one", None)),
        },
        lambda encode, decode, key, image, kl_weight: 2.0,
        {"decode": "decode"},
    ),
    Case(
        "models.scale_latent, unscale_latent",
        lambda latent, scaling: models.unscale_latent(models.scale_latent(latent, scaling), scaling),
        {"latent": LATENTS._replace(refused=NO_ARRAY), "scaling": SCALINGS},
        lambda latent, scaling: plain(latent),
    ),
    Case(
        "models.decode_tiled",
        models.decode_tiled,
        {
            "decode": Choices((lambda latent: jnp.repeat(latent, 1, axis=0),), FUNCTIONS),
            "latent": LATENTS._replace(refused=(*NO_ARRAY, jnp.ones((4, 2)), jnp.ones((0, 2, 2)))),
            "tile": FEW._replace(allowed=(3, 4, 64)),
            "overlap": FEW._replace(allowed=(0, 1, 2), refused=(-1, 64, 2.5, NAN, "one", None)),
        },
        lambda decode, latent, tile, overlap: plain(latent),
        {"tile": "tile|overlap"},
    ),
    Case(
        "pretrained_autoencoder.shapes_of, network_of",
        lambda network: float(_read_back(network) == network),
        {"network": NETWORKS},
        lambda network: 1.0,
    ),
    Case(
        "pretrained_autoencoder.network_of",
        lambda shapes, num_groups: float(pretrained_autoencoder.network_of(shapes, num_groups).num_groups),
        {
            "shapes": Choices(
                (SHAPES,), (None, 3, "shapes", [SHAPES], {3: (1, 2)}, SHAPES | {"quant_conv.bias": None})
            ),
            "num_groups": Choices((1, 2, np.int64(2)), (0, -1, 2.5, NAN, "two", 3, True)),
        },
        lambda shapes, num_groups: float(num_groups),
    ),
    Case(
        "pretrained_autoencoder.parameters",
        pretrained_autoencoder.parameters,
        {
            "tensor": Choices((_tensor,), (*FUNCTIONS, lambda name: np.zeros(1), lambda name: _tensor(name) + NAN)),
            "network": NETWORKS,
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)
