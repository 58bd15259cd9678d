"""How many examples are computed together, and the compiler's options, by a function's trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import xla_flags
from experiments.benchmark import workloads
from experiments.run.batch_sampling import draw_all, sample_keys
from experiments.runtime import batching
from experiments.runtime.batching import plan_batching


def _outer(x):
    return jnp.sum(jnp.outer(x, x))


@pytest.mark.parametrize(("size", "chunk"), [(4000, 1), (1000, 2), (700, 4), (100, 128), (2, 1024)])
def test_a_chunk_s_largest_value_stays_in_the_caches(size, chunk):
    """8 MiB over 4 size^2 bytes, down to a power of 2."""
    assert plan_batching(_outer, jnp.ones(size)).chunk == chunk


def test_values_inside_scans_and_compiled_functions_count():
    def repeated(x):
        return jax.lax.scan(lambda x, _: (x + jax.jit(_outer)(x), None), x, length=3)[0]

    assert plan_batching(repeated, jnp.ones(700)).chunk == plan_batching(_outer, jnp.ones(700)).chunk


def test_accelerators_take_more(monkeypatch):
    monkeypatch.setattr(batching.jax, "default_backend", lambda: "gpu")
    assert plan_batching(_outer, jnp.ones(1000)).chunk == 1024
    assert plan_batching(_outer, jnp.ones(2)).chunk == 8192


def _options(one, *example, shared=0):
    return plan_batching(one, *example, shared=shared).compiler_options


def test_batches_of_products_are_told_from_products():
    """A product with weights that all examples share is one larger product; a product of two values is a batch."""
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))
    assert _options(jnp.matmul, a, b, shared=1) == {}
    assert _options(lambda a: a @ b, a) == {}
    assert _options(jnp.vdot, a[0], a[1]) == {}
    assert _options(jnp.matmul, a[0], b) == {}
    wanted = xla_flags.batched_product_options()
    assert _options(jnp.matmul, a, b) == wanted
    assert _options(jax.vmap(jnp.matmul), jnp.ones((3, 4, 5)), jnp.ones((3, 5, 6))) == wanted


@pytest.mark.parametrize(("work", "has_attention"), [("W0", False), ("W2", True), ("W3", True)])
def test_networks_with_attention_are_compiled_for_batches_of_products(work, has_attention):
    wanted = xla_flags.batched_product_options() if has_attention else {}
    assert workloads.compiler_options(workloads.WORKLOADS[work]) == wanted


@pytest.fixture
def _warned_of_constants():
    before = jax.config.jax_captured_constants_warn_bytes
    jax.config.update("jax_captured_constants_warn_bytes", 1000)
    yield
    jax.config.update("jax_captured_constants_warn_bytes", before)


@pytest.mark.usefixtures("_warned_of_constants")
def test_weights_are_no_constants_of_what_is_drawn():
    """JAX warns where more than the bytes allowed are in the program, and warnings are errors here."""
    weights = jnp.linspace(-0.1, 0.1, 2500).reshape(50, 50)

    def draw(key, y, scale):
        return weights @ jax.random.normal(key, (50,)) + scale * y

    found = draw_all(draw, 3, np.arange(4), (0.5, 2.0))
    keys = sample_keys(3, 4)
    expected = [[draw(keys[index], index, scale) for index in range(4)] for scale in (0.5, 2.0)]
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)
    with pytest.warns(UserWarning, match="constants were captured"):
        jax.jit(lambda x: weights @ x)(jnp.ones(50))
