"""Attention: its value by hand, and the kernel that is chosen where a program is lowered for a GPU, a TPU or a CPU."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax._src.cudnn import fused_attention_stablehlo

from cfgjax import kernels
from cfgjax.analysis import likelihood
from cfgjax.models import DiT
from cfgjax.models.attention import (
    _is_fit_for_flash,
    _project,
    _project_to_heads,
    attention,
    inner_heads_attention,
    plain_attention,
)
from cfgjax.models.blocks import SelfAttention

SHAPE = (16, 2, 8)


@pytest.fixture
def cudnn(monkeypatch):
    """JAX as where its CUDA plugin is installed; nothing is compiled."""
    monkeypatch.setattr(
        fused_attention_stablehlo, "cuda_versions", SimpleNamespace(cudnn_get_version=lambda: 91200), raising=True
    )


def tokens(dtype=jnp.bfloat16, *batch):
    return jax.random.normal(jax.random.key(0), (*batch, *SHAPE)).astype(dtype)


def lowered(function, platform, *args):
    """The text of a function's program for a platform, traced anew."""
    return jax.jit(lambda *args: function(*args)).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def flash_kernels(text):
    """(flash kernels forward, and of gradients) in a program's text."""
    backward = text.count("@__cudnn$fmhaSoftmaxBackward")
    return text.count("@__cudnn$fmhaSoftmax") - backward, backward


def energy(x):
    """A number whose gradient passes through attention."""
    return jnp.sum(attention(x, x, x).astype(jnp.float32) ** 2)


@pytest.mark.parametrize("kernel", [attention, plain_attention, inner_heads_attention])
def test_every_token_mixes_the_values_by_its_softmax(kernel):
    query, key, value = (np.asarray(tokens(jnp.float32, 3)[index], np.float64) for index in range(3))
    scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(8)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("hqk,khd->qhd", weights, value)
    np.testing.assert_allclose(kernel(*map(jnp.float32, (query, key, value))), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [attention, plain_attention, inner_heads_attention])
def test_a_key_that_is_not_there_has_no_weight(kernel):
    """Fewer keys than queries, as of a condition: the value is that without them, and no number in them matters."""
    query, key, value = tokens(jnp.float32, 3)
    key, value, mask = key[:5], value[:5], np.array([True, False, True, True, False])
    found = kernel(query, key, value, mask)
    np.testing.assert_allclose(found, kernel(query, key[mask], value[mask]), rtol=1e-5, atol=1e-6)
    others = (jnp.where(mask[:, None, None], each, 7.0) for each in (key, value))
    np.testing.assert_array_equal(kernel(query, *others, mask), found)


@pytest.mark.parametrize("way", [_project, _project_to_heads])
def test_queries_keys_and_values_are_a_third_of_the_kernel_each(way):
    x, kernel, bias = (
        np.asarray(jax.random.normal(jax.random.key(i), s)) for i, s in enumerate([(5, 6), (6, 18), (18,)])
    )
    expected = (np.float64(x) @ kernel + bias).reshape(5, 3, 2, 3)
    for index, found in enumerate(way(jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(bias), 2)):
        np.testing.assert_allclose(found, expected[:, index], rtol=1e-5, atol=1e-5)


def test_self_attention_has_the_parameters_of_two_dense_layers():
    """By name, shape and, from one key, value; the published weights and older runs hold these."""

    class Layers(linen.Module):
        @linen.compact
        def __call__(self, x):
            first, last = (linen.Dense(width, kernel_init=linen.initializers.xavier_uniform()) for width in (18, 6))
            return last(first(x)[:, :6])

    x = jnp.ones((5, 6))
    found, expected = (module.init(jax.random.key(3), x) for module in (SelfAttention(2), Layers()))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_on_a_tpu_no_transpose_and_no_copy_splits_the_heads():
    """Lowered for a TPU the products have the heads' axis; elsewhere one product is split."""
    module, x = SelfAttention(2), tokens()[:, 0]
    params = module.init(jax.random.key(0), x)
    counts = {name: lowered(module.apply, name, params, x).count("stablehlo.dot_general") for name in ("cpu", "tpu")}
    assert counts == {"cpu": 4, "tpu": 6}


def test_flash_attention_takes_the_heads_that_cudnn_does():
    """In half precision heads of 8, 16, .., 128 channels, and an even number of tokens: its gradient takes no other."""

    def is_fit(width, dtype=jnp.bfloat16, count=4, num_keys=4):
        return _is_fit_for_flash(jnp.zeros((count, 2, width), dtype), jnp.zeros((num_keys, 2, width), dtype))

    assert [width for width in range(4, 160, 4) if is_fit(width)] == list(range(8, 129, 8))
    assert is_fit(64, jnp.float16)
    assert not is_fit(64, jnp.float32)
    assert not is_fit(64, count=5)
    assert not is_fit(64, num_keys=5)


def test_an_odd_number_of_tokens_has_a_gradient_on_gpus(cudnn):
    """As of 28 x 28 pictures in patches of 4."""
    odd = jnp.ones((3, 49, 2, 8), jnp.bfloat16)
    text = lowered(jax.vmap(jax.value_and_grad(energy)), "cuda", odd)
    assert flash_kernels(text) == (0, 0)
    assert "stablehlo.exponential" in text


@pytest.mark.parametrize("platform", ["cuda", "cpu", "tpu"])
def test_the_kernel_is_that_of_the_platform_lowered_for(platform, cudnn):
    """From a CPU: one flash kernel forward and one of the gradient for all examples and labels on a GPU, else none."""
    over_pairs = jax.vmap(jax.vmap(jax.value_and_grad(energy)))
    text = lowered(over_pairs, platform, tokens(jnp.bfloat16, 3, 2))
    assert flash_kernels(text) == ((1, 1) if platform == "cuda" else (0, 0))
    assert ("stablehlo.exponential" in text) == (platform != "cuda")


def test_each_example_has_its_gradient_where_all_have_one_cotangent(cudnn):
    """That of a sum is the same for all examples: JAX 0.10.2's own rule for a batch of cuDNN's gradients refuses it."""

    def total(x):
        return jnp.sum(attention(x, x, x).astype(jnp.float32))

    assert flash_kernels(lowered(jax.vmap(jax.grad(total)), "cuda", tokens(jnp.bfloat16, 3))) == (1, 1)


def test_a_tpu_has_the_heads_inside():
    """One transpose, of the result, in the place of five."""
    counts = {name: lowered(energy, name, tokens()).count("stablehlo.transpose") for name in ("cpu", "tpu", "cuda")}
    assert counts == {"cpu": 5, "tpu": 1, "cuda": 5}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_single_precision_has_no_flash_kernel(dtype, cudnn):
    assert flash_kernels(lowered(energy, "cuda", tokens(dtype))) == ((1, 0) if dtype == jnp.bfloat16 else (0, 0))


@pytest.mark.parametrize("platform", ["cuda", "cpu", "tpu"])
def test_with_a_mask_there_is_no_flash_kernel(platform, cudnn):
    """Also where the other arguments are fit for one; over a batch, with gradients."""

    def masked(x):
        return jnp.sum(attention(x, x[:3], x[:3], x[:3, 0, 0] > 0).astype(jnp.float32) ** 2)

    text = lowered(jax.vmap(jax.value_and_grad(masked)), platform, tokens(jnp.bfloat16, 3))
    assert flash_kernels(text) == (0, 0)
    assert "stablehlo.exponential" in text


def test_without_the_plugin_nothing_of_cudnn_is_traced():
    assert flash_kernels(lowered(energy, "cuda", tokens())) == (0, 0)


def test_normed_and_turned_heads_have_flash_attention(cudnn):
    """One kernel forward and one of the gradient for each block of a transformer, tokens in context or not."""
    options = {"qk_norm": True, "rotary": True, "in_context_tokens": 4, "in_context_start": 1}
    network = DiT(width=16, depth=2, num_heads=2, dtype=jnp.dtype(jnp.bfloat16), **options)
    x, t, y = jnp.ones((4, 4, 1)), jnp.float32(0.5), jnp.int32(1)
    params = jax.eval_shape(network.init, jax.random.key(0), x, t, y)
    text = lowered(jax.value_and_grad(lambda params: jnp.sum(network.apply(params, x, t, y))), "cuda", params)
    assert flash_kernels(text) == (2, 2)


def slope(x):
    """The derivative along x, in forward mode."""
    return jax.jvp(energy, (x,), (x,))[1]


def test_forward_mode_is_lowered_with_plain_kernels(cudnn):
    """And compiled apart: outside of it the same function has flash attention, before and after."""
    compiled = jax.jit(lambda x: energy(x))

    def again():
        return flash_kernels(compiled.trace(tokens()).lower(lowering_platforms=("cuda",)).as_text())

    assert again() == (1, 0)
    with kernels.plain():
        assert flash_kernels(lowered(slope, "cuda", tokens())) == (0, 0)
        assert flash_kernels(lowered(jax.vmap(slope), "cuda", tokens(jnp.bfloat16, 3))) == (0, 0)
        assert again() == (0, 0)
    assert again() == (1, 0)
    with pytest.raises(TypeError, match=r"can.t apply forward-mode"):
        lowered(slope, "cuda", tokens())


def test_forward_mode_gives_the_derivative_of_reverse_mode(cudnn):
    x = tokens()
    with kernels.plain():
        forward = slope(x)
    reverse = jnp.sum(jax.grad(energy)(x).astype(jnp.float32) * x.astype(jnp.float32))
    np.testing.assert_allclose(float(forward), float(reverse), rtol=0.02)


def _field(x, t):
    return attention(x, x, x)


def test_an_estimated_divergence_has_flash_attention(cudnn):
    divergence = likelihood.estimated_divergence(_field, jax.random.key(0))
    assert flash_kernels(lowered(divergence, "cuda", tokens(), jnp.float32(0.5))) == (1, 1)


def test_an_exact_divergence_has_none(cudnn):
    """It derives along all axes at once, which cuDNN's kernel does not."""
    divergence = likelihood.exact_divergence(_field)
    assert flash_kernels(lowered(divergence, "cuda", tokens(), jnp.float32(0.5))) == (0, 0)
    assert flash_kernels(lowered(jax.vmap(divergence), "cuda", tokens(jnp.bfloat16, 2), jnp.zeros(2))) == (0, 0)


@pytest.mark.skipif(not jax.__version__.startswith("0.10."), reason="later versions may derive along all axes at once")
def test_along_all_axes_at_once_flash_attention_is_refused(cudnn):
    with pytest.raises(TypeError, match="cannot reshape"):
        lowered(jax.jacrev(lambda x: attention(x, x, x)), "cuda", tokens())
