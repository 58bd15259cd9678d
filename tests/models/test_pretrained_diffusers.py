"""Our transformer against diffusers' DiTTransformer2DModel, with random weights (needs PyTorch and diffusers)."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models import pretrained

torch = pytest.importorskip("torch")
with warnings.catch_warnings(action="ignore"):
    diffusers = pytest.importorskip("diffusers")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

MOST = 1e-4
"""Largest difference allowed, relative to the output's root mean square."""
STEPS = (0, 1, 100, 500, 999)


def _theirs(heads, head_width, depth, num_classes=1000, side=32):
    """Their network, with no weight at zero."""
    torch.manual_seed(0)
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=head_width, in_channels=4, out_channels=8, num_layers=depth,
        sample_size=side, patch_size=2, num_embeds_ada_norm=num_classes,
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for each in theirs.parameters():
            each.copy_(torch.from_numpy(rng.normal(0, 0.05, each.shape).astype(np.float32)))
        first = theirs.transformer_blocks[0].norm1.emb.state_dict()
        for block in theirs.transformer_blocks:
            block.norm1.emb.load_state_dict(first)
    return theirs


def _difference(theirs, kind, file, num_heads, side):
    """The largest difference of the noise over its root mean square, at each of STEPS."""
    safetensors_numpy.save_file({name: each.numpy() for name, each in theirs.state_dict().items()}, file)
    architecture, params = pretrained.read(file, num_heads, kind, side)
    network = pretrained.network(kind, architecture)
    x = np.random.default_rng(1).normal(size=(side, side, 4)).astype(np.float32)
    found = []
    for step in STEPS:
        with torch.no_grad():
            image = torch.from_numpy(x.transpose(2, 0, 1)[np.newaxis].copy())
            output = theirs(image, timestep=torch.tensor([step]), class_labels=torch.tensor([3])).sample
        expected = output[0, :4].numpy().transpose(1, 2, 0)
        ours = network.apply(params, jnp.asarray(x), jnp.float32(1 - step / 999), jnp.int32(3))
        found.append(float(np.abs(ours - expected).max() / np.sqrt(np.mean(expected**2))))
    return np.array(found)


def test_what_diffusers_computes_is_one_kind_and_the_published_network_another(tmp_path):
    theirs = _theirs(2, 8, 2, num_classes=5, side=8)
    assert np.all(_difference(theirs, "diffusers_dit", tmp_path / "a.safetensors", 2, 8) < MOST)
    assert np.all(_difference(theirs, "dit", tmp_path / "b.safetensors", 2, 8)[2:] > 20 * MOST)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "depth"), [(6, 12), (16, 2)])
def test_true_sizes_compute_what_diffusers_does(heads, depth, tmp_path):
    """S/2 in full, and 2 blocks of XL/2."""
    theirs = _theirs(heads, 64 if heads == 6 else 72, depth)
    found = _difference(theirs, "diffusers_dit", tmp_path / "a.safetensors", heads, 32)
    print(f"{heads} heads, {depth} blocks: {found}")
    assert np.all(found < MOST)
