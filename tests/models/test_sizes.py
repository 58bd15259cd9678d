"""The papers' sizes: parameters and operations, counted without a number computed."""

import jax
import jax.numpy as jnp
import pytest

from cfgjax.models import SIZES, UNET_SIZES, ConvNet, DiT, UNet


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_the_transformer_has_the_papers_number_of_parameters(size, millions):
    """Peebles & Xie, table 1; theirs predict a variance, too: 4 more output channels, 1,000 labels."""
    network = DiT(num_classes=1000, **SIZES[size]._asdict())
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), jnp.zeros((32, 32, 4)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    )
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6) == pytest.approx(millions, abs=1)


@pytest.mark.parametrize(
    ("size", "patch", "billions"), [("S", 2, 6.06), ("S", 8, 0.36), ("B", 4, 5.56), ("L", 4, 19.7)]
)
def test_the_transformer_has_the_papers_operations(size, patch, billions):
    """Peebles & Xie, table 4, in multiply-adds on 32 x 32 x 4 latents."""
    network = DiT(num_classes=1000, **SIZES[size]._asdict(), patch=patch)
    inputs = jnp.zeros((32, 32, 4)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    flops = jax.jit(network.apply).lower(shapes, *inputs).cost_analysis()["flops"]
    assert flops / 2e9 == pytest.approx(billions, rel=0.04)


def test_the_transformer_is_by_default_the_papers_small_one():
    assert DiT() == DiT(**SIZES["S"]._asdict(), patch=2)


def test_the_unet_has_the_parameters_of_its_layers():
    """One level, attention in the middle, by hand: convolutions, norms, the condition's layers, the label's rows."""
    width, k = 32, 3
    network = UNet(num_classes=k, width=width, multipliers=(1,), blocks_per_level=1, attention=())
    conv = lambda a, b: 9 * a * b + b  # noqa: E731
    dense = lambda a, b: a * b + b  # noqa: E731

    def block(a):
        norms = 2 * a + 2 * width
        return (
            norms + conv(a, width) + conv(width, width) + dense(4 * width, 2 * width) + (a != width) * dense(a, width)
        )

    condition = dense(width, 4 * width) + dense(4 * width, 4 * width) + (k + 1) * 4 * width
    attention = 2 * width + dense(width, 3 * width) + dense(width, width)
    blocks = 3 * block(width) + attention + 2 * block(2 * width)
    expected = condition + conv(2, width) + blocks + 2 * width + conv(width, 2)
    inputs = jnp.zeros((8, 8, 2)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_the_unet_has_the_papers_size():
    """Ho et al., arXiv 2006.11239, appendix B: 35.7 M, less the scales and the labels that theirs has not."""
    network = UNet(num_classes=10, **UNET_SIZES["DDPM"])
    inputs = jnp.zeros((32, 32, 3)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in leaves}
    scales = sum(size for name, size in sizes.items() if "ResidualBlock" in name and "Dense_0" in name) // 2
    labels = sum(size for name, size in sizes.items() if "LabelEmbedding" in name)
    assert labels == 11 * 512
    assert (sum(sizes.values()) - scales - labels) / 1e6 == pytest.approx(35.7, abs=0.1)
    flops = jax.jit(network.apply).lower(shapes, *inputs).cost_analysis()["flops"]
    assert flops / 2e9 == pytest.approx(6.06, rel=0.05)


def test_the_large_unet_lacks_only_the_papers_residual_halvings_and_doublings():
    """Dhariwal & Nichol, arXiv 2105.05233, table 4: 296 M; six of its blocks resample, here convolutions."""
    network = UNet(num_classes=1000, **UNET_SIZES["ADM-64"])
    inputs = jnp.zeros((64, 64, 3)), jnp.zeros(()), jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    convolution = lambda width: 9 * width * width + width  # noqa: E731
    block = lambda width: 2 * convolution(width) + 4 * width + 2 * width * (4 * 192 + 1)  # noqa: E731
    resampled = sum(block(m * 192) - convolution(m * 192) for m in (1, 2, 3)) + sum(
        block(m * 192) - convolution(m * 192) for m in (2, 3, 4)
    )
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert (found + resampled) / 1e6 == pytest.approx(296, abs=1.5)


def test_the_convnet_has_by_default_32_channels_and_128_features():
    (features, log_probs), params = jax.eval_shape(ConvNet(3).init_with_output, jax.random.key(0), jnp.zeros((8, 8, 1)))
    assert (features.shape, log_probs.shape) == ((128,), (3,))
    assert params["params"]["Conv_0"]["kernel"].shape == (5, 5, 1, 32)
