"""The transformer's internal head: its sides against the whole network and one that ends where it stands."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import losses, paths
from cfgjax.models import DiT

PLAIN = DiT(num_classes=3, width=16, depth=3, num_heads=2, norm_scale=True)
NETWORK = PLAIN.clone(internal_block=2)
IN_CONTEXT = NETWORK.clone(in_context_tokens=2, in_context_start=1)
HEAD = {"internal_modulation": "Dense_1", "internal_norm": "last_norm", "internal_layer": "Dense_2"}
"""The head's layers -> those at the end of the network."""
T, Y = 0.3, 1


def _image():
    return jax.random.normal(jax.random.key(0), (8, 8, 2))


@cache
def _params(network):
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(network.init, jax.random.key(1), _image(), T, Y)
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def _sides(network, params):
    return network.apply(params, _image(), T, Y, method="sides")


@pytest.mark.parametrize("network", [NETWORK, IN_CONTEXT], ids=["plain", "in context"])
def test_the_sides_are_a_smaller_network_and_the_whole_one(network):
    """After two blocks the head is the end of a network of two blocks, whose layers have its parameters."""
    params = _params(network)
    internal, final = _sides(network, params)
    np.testing.assert_array_equal(final, network.apply(params, _image(), T, Y))
    inner = {name: value for name, value in params["params"].items() if name not in HEAD and name != "DiTBlock_2"}
    smaller = inner | {end: params["params"][name] for name, end in HEAD.items()}
    expected = network.clone(depth=2, internal_block=0).apply({"params": smaller}, _image(), T, Y)
    np.testing.assert_array_equal(internal, expected)
    assert np.abs(np.asarray(internal - final)).max() > 1e-2


def test_without_its_head_a_network_has_the_parameters_and_the_field_that_it_had():
    params = _params(NETWORK)
    others = {name: value for name, value in params["params"].items() if name not in HEAD}
    assert jax.tree.structure(others) == jax.tree.structure(_params(PLAIN)["params"])
    without = PLAIN.apply({"params": others}, _image(), T, Y)
    np.testing.assert_array_equal(NETWORK.apply(params, _image(), T, Y), without)


def test_a_new_head_is_the_field_0_and_draws_no_other_parameters():
    params, others = (each.init(jax.random.key(1), _image(), T, Y)["params"] for each in (NETWORK, PLAIN))
    jax.tree.map(np.testing.assert_array_equal, {name: params[name] for name in others}, others)
    assert params.keys() - others.keys() == HEAD.keys()
    np.testing.assert_array_equal(_sides(NETWORK, {"params": params})[0], 0)


@pytest.mark.slow
def test_the_head_alone_costs_the_blocks_before_it():
    """XLA leaves out what the internal side does not need, and of w = 1 the head."""
    params = _params(NETWORK)

    def flops(function):
        return jax.jit(function).lower(params).compile().cost_analysis()["flops"]

    whole = flops(lambda p: NETWORK.apply(p, _image(), T, Y))
    assert flops(lambda p: _sides(NETWORK, p)[1]) == whole == flops(lambda p: PLAIN.apply(p, _image(), T, Y))
    assert whole < flops(lambda p: _sides(NETWORK, p)) < 1.1 * whole
    assert flops(lambda p: _sides(NETWORK, p)[0]) < 0.75 * whole


@pytest.mark.slow
def test_later_blocks_learn_nothing_from_the_internal_prediction():
    def slope(share):
        def loss(params):
            sides = lambda x, t, y: NETWORK.apply(params, x, t, y, method="sides")  # noqa: E731
            return losses.internal_matching(paths.linear(), sides, jax.random.key(5), _image(), Y, share=share)

        return jax.grad(loss)(_params(NETWORK))["params"]

    less, more = jax.jit(slope)(0.5), jax.jit(slope)(2.0)
    for name in ("DiTBlock_2", "Dense_1", "Dense_2", "last_norm"):
        jax.tree.map(np.testing.assert_array_equal, less[name], more[name])
    for name in HEAD:
        jax.tree.map(lambda one, four: np.testing.assert_allclose(four, 4 * one, rtol=1e-4), less[name], more[name])
    assert not np.allclose(less["DiTBlock_0"]["Dense_0"]["kernel"], more["DiTBlock_0"]["Dense_0"]["kernel"])


@pytest.mark.parametrize("number", [3, 4])
def test_a_head_at_the_end_or_beyond_is_refused(number):
    with pytest.raises(ValueError, match=rf"internal_block must be under the depth 3, got {number}"):
        jax.eval_shape(PLAIN.clone(internal_block=number).init, jax.random.key(0), _image(), T, Y)


def test_a_network_without_the_head_has_no_sides():
    with pytest.raises(ValueError, match="internal_block must be at least 1 for the sides of internal guidance, got 0"):
        _sides(PLAIN, _params(PLAIN))
