"""The convolution of a doubled map against that of the map written out, and its products counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from cfgjax.models.doubling import DoublingConv

jax.config.update("jax_numpy_rank_promotion", "raise")
OURS = DoublingConv(5, jnp.dtype(jnp.float32))


def _written_out(params, x):
    """In float64: every position four times, zeros all round, a sum over the nine shifts."""
    kernel, bias = (np.asarray(params["params"][name], np.float64) for name in ("kernel", "bias"))
    large = np.pad(np.repeat(np.repeat(np.asarray(x, np.float64), 2, 0), 2, 1), ((1, 1), (1, 1), (0, 0)))
    rows, columns = 2 * x.shape[0], 2 * x.shape[1]
    shifts = [(i, j) for i in range(3) for j in range(3)]
    return bias + sum(large[i : i + rows, j : j + columns] @ kernel[i, j] for i, j in shifts)


@pytest.fixture(scope="module")
def case():
    """Parameters, none of them zero, and a map that is no square."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(3, 3, 3, 5)), "bias": rng.normal(size=5)}
    return {"params": jax.tree.map(jnp.float32, params)}, jnp.asarray(rng.normal(size=(4, 6, 3)), jnp.float32)


def test_it_is_the_convolution_of_the_doubled_map(case):
    params, x = case
    np.testing.assert_allclose(OURS.apply(params, x), _written_out(params, x), rtol=1e-5, atol=1e-5)


def test_its_parameters_are_those_of_a_convolution(case):
    _, x = case
    theirs = linen.Conv(5, (3, 3)).init(jax.random.key(1), x)
    ours = OURS.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_its_gradients_are_those_of_the_convolution_of_the_doubled_map(case):
    params, x = case
    plain = linen.Conv(5, (3, 3))

    def loss(apply, params, x):
        return jnp.sum(jnp.sin(apply(params, x)))

    ours = jax.grad(loss, (1, 2))(OURS.apply, params, x)
    theirs = jax.grad(loss, (1, 2))(lambda p, x: plain.apply(p, jnp.repeat(jnp.repeat(x, 2, 0), 2, 1)), params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_it_takes_four_ninths_of_the_products(case):
    params, x = case
    plain = linen.Conv(5, (3, 3))
    programs = OURS.apply, lambda p, x: plain.apply(p, jnp.repeat(jnp.repeat(x, 2, 0), 2, 1))
    ours, theirs = (_products(jax.make_jaxpr(each)(params, x).jaxpr) for each in programs)
    assert ours * 9 == theirs * 4


def _products(program):
    """Of all convolutions of a program: outputs times the kernel's positions and channels."""
    found = 0
    for equation in program.eqns:
        if equation.primitive.name in ("convolution", "conv_general_dilated"):
            kernel = equation.invars[1].aval.shape
            found += np.prod(equation.outvars[0].aval.shape) * np.prod(kernel[:3])
        for each in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(each, "jaxpr", each)
            found += _products(inner) if hasattr(inner, "eqns") else 0
    return found
