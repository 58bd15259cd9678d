"""Autoencoders of a few random weights, in files as diffusers writes them."""

import json

import numpy as np
import pytest

from cfgjax.models import AutoencoderKL, pretrained_autoencoder

GRAY = AutoencoderKL(latent_channels=2, image_channels=1, widths=(4, 4), blocks_per_level=1, num_groups=2)
COLOUR = GRAY.clone(image_channels=3)
CONFIG = {"_class_name": "AutoencoderKL", "norm_num_groups": 2, "scaling_factor": 0.5, "shift_factor": 0.25}


def write_autoencoder(folder, network, seed=0):
    """A folder as diffusers writes it, of random weights."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    rng = np.random.default_rng(seed)
    shapes = pretrained_autoencoder.shapes_of(network)
    tensors = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder
