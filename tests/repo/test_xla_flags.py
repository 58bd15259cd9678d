"""The compiler's sums over many examples are right, and its flags are left to the user."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths, xla_flags
from cfgjax.models.blocks import attention


def test_a_large_batch_of_the_oracle_is_each_example_alone():
    """A mixture built inside the compiled function, mapped over labels and 2,000 examples: every row is right."""
    mixture, x = mixtures.ring(8), jax.random.normal(jax.random.key(0), (2000, 2))

    def guided(x):
        return guidance.classifier_free(mixture.vector_field(paths.linear()), 3.0, 8)(x, jnp.float32(0.5), 1)

    together = jax.jit(jax.vmap(guided))(x)
    in_parts = jnp.concatenate([jax.jit(jax.vmap(guided))(x[start : start + 250]) for start in range(0, 2000, 250)])
    np.testing.assert_allclose(together, in_parts, rtol=1e-4, atol=1e-5)


def test_many_sums_of_products():
    """The sum over a matrix times each of 32,769 rows."""
    rows = jnp.stack([jnp.arange(32_769.0), jnp.zeros(32_769), jnp.zeros(32_769)], axis=1)
    sums = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)
    np.testing.assert_allclose(sums, np.arange(32_769.0) ** 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("jaxlib", "flags", "expected"),
    [
        ("0.10.2", "", "--xla_cpu_experimental_ynn_fusion_type=-reduce"),
        ("0.10.2", "--xla_a=1", "--xla_a=1 --xla_cpu_experimental_ynn_fusion_type=-reduce"),
        ("0.10.2", "--xla_cpu_experimental_ynn_fusion_type=dot", "--xla_cpu_experimental_ynn_fusion_type=dot"),
        ("0.11.0", "--xla_a=1", "--xla_a=1"),
    ],
)
def test_the_flag_is_added_where_it_is_needed(monkeypatch, jaxlib, flags, expected):
    monkeypatch.setattr(xla_flags, "version", lambda name: jaxlib)
    monkeypatch.setenv("XLA_FLAGS", flags)
    xla_flags.avoid_wrong_reductions()
    assert os.environ["XLA_FLAGS"] == expected


def test_options_for_batched_products_leave_the_numbers(monkeypatch):
    """Attention with and without, against float64; and no option where it is not known to help."""
    query, key, value = jax.random.normal(jax.random.key(0), (3, 64, 4, 16))
    logits = np.einsum("qhd,khd->hqk", *(np.asarray(each, np.float64) for each in (query, key))) / 4
    weights = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
    expected = np.einsum("hqk,khd->qhd", weights, np.asarray(value, np.float64))
    for options in ({}, xla_flags.batched_product_options()):
        found = jax.jit(attention, compiler_options=options)(query, key, value)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    monkeypatch.setattr(xla_flags, "version", lambda name: "0.11.0")
    assert xla_flags.batched_product_options() == {}
