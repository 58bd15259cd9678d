"""How many examples are computed together, and the compiler's options, by a function's trace."""

import jax
import jax.numpy as jnp
import pytest

from cfgjax import compiler
from experiments import programs
from experiments.benchmark import works
from experiments.programs import plan_of


def _outer(x):
    return jnp.sum(jnp.outer(x, x))


@pytest.mark.parametrize(("size", "chunk"), [(4000, 1), (1000, 2), (700, 4), (100, 128), (2, 1024)])
def test_a_chunk_s_largest_value_stays_in_the_caches(size, chunk):
    """8 MiB over 4 size^2 bytes, down to a power of 2."""
    assert plan_of(_outer, jnp.ones(size)).chunk == chunk


def test_values_inside_scans_and_compiled_functions_count():
    def repeated(x):
        return jax.lax.scan(lambda x, _: (x + jax.jit(_outer)(x), None), x, length=3)[0]

    assert plan_of(repeated, jnp.ones(700)).chunk == plan_of(_outer, jnp.ones(700)).chunk


def test_accelerators_take_more(monkeypatch):
    monkeypatch.setattr(programs.jax, "default_backend", lambda: "gpu")
    assert plan_of(_outer, jnp.ones(1000)).chunk == 1024
    assert plan_of(_outer, jnp.ones(2)).chunk == 8192


def _options(one, *example, shared=0):
    return plan_of(one, *example, shared=shared).compiler_options


def test_batches_of_products_are_told_from_products():
    """A product with weights that all examples share is one larger product; a product of two values is a batch."""
    a, b = jnp.ones((4, 5)), jnp.ones((5, 6))
    assert _options(jnp.matmul, a, b, shared=1) == {}
    assert _options(lambda a: a @ b, a) == {}
    assert _options(jnp.vdot, a[0], a[1]) == {}
    assert _options(jnp.matmul, a[0], b) == {}
    wanted = compiler.batched_product_options()
    assert _options(jnp.matmul, a, b) == wanted
    assert _options(jax.vmap(jnp.matmul), jnp.ones((3, 4, 5)), jnp.ones((3, 5, 6))) == wanted


@pytest.mark.parametrize(("work", "has_attention"), [("W0", False), ("W2", True), ("W3", True)])
def test_networks_with_attention_are_compiled_for_batches_of_products(work, has_attention):
    assert bool(works.compiler_options(works.WORKS[work])) == has_attention
