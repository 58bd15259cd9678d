"""Checksums: the same on the host, on one device and on eight, and another after any change of one number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from cfgjax.checkpoints import checksums, host_checksum

TYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "uint8", "int8", "bool"]


def _of(array):
    return checksums({"a": array})["a"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (8, 6), (2, 3, 4)])
def test_device_and_host_agree(dtype, shape):
    array = (100 * jax.random.normal(jax.random.key(3), shape)).astype(dtype)
    assert _of(array) == host_checksum(np.asarray(array))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_numbers_of_64_bits_count_whole(dtype):
    array = (1e6 * jax.random.normal(jax.random.key(3), (5, 3))).astype(dtype)
    assert _of(array) == host_checksum(np.asarray(array))


def test_the_host_sums_in_pieces():
    array = np.arange(2**22 + 5, dtype=np.int32)
    assert host_checksum(array) == _of(jnp.asarray(array))


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("devices"), PartitionSpec(None, "devices")])
def test_where_an_array_lies_changes_nothing(spec):
    array = jax.random.normal(jax.random.key(0), (16, 24))
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("devices",))
    assert _of(jax.device_put(array, NamedSharding(mesh, spec))) == _of(array)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 8 * 96 - 1))
def test_any_flipped_bit_is_seen(bit):
    content = bytearray(np.random.default_rng(0).normal(size=24).astype(np.float32).tobytes())
    before = host_checksum(np.frombuffer(bytes(content), np.float32))
    content[bit // 8] ^= 1 << bit % 8
    assert host_checksum(np.frombuffer(bytes(content), np.float32)) != before


def test_an_exchange_of_two_numbers_is_seen():
    assert _of(jnp.array([1.0, 2.0, 3.0])) != _of(jnp.array([2.0, 1.0, 3.0]))


def test_a_negative_zero_and_another_nan_are_seen():
    """Bits are compared, not numbers."""
    assert _of(jnp.array([0.0])) != _of(jnp.array([-0.0]))
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert host_checksum(nans[:1]) != host_checksum(nans[1:])


def test_large_arrays_among_small_ones_have_their_own_checksums_in_the_order_given():
    """Large ones are summed by themselves."""
    large = jnp.arange(2.0**20).reshape(2, -1)
    leaves = {"b": jnp.ones(3), "large": large, "a": jnp.full(3, 2.0), "other": large + 1, "c": jnp.zeros(())}
    found = checksums(leaves)
    assert list(found) == list(leaves)
    assert found == {name: host_checksum(np.asarray(leaf)) for name, leaf in leaves.items()}
