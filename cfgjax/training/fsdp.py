"""Training states larger than one device's memory: the step of ``training``, every large leaf sharded over devices.

(F1) A leaf is cut along the axis that the devices divide into most parts, more than 64 counting as 64; among equals
     along the first. That is the inputs' axis of a layer's weights: cut so, they leave its output cut by examples
     alone, where weights cut by outputs draw values off their devices. Where the devices do not divide the axis
     wholly, the parts are fewer, each held by several devices. A leaf of few elements stays whole.
(F2) The step is the pure one, without a named axis, on the GLOBAL batch: the mean is the global mean of (T1), example i
     has its global index (T2), and the compiler adds the exchange between devices. A layer's weights are gathered for
     its use, forwards and again backwards; where a layer's values are fewer than its weights, they may travel instead.
(F3) A device holds, of each leaf, its bytes over its number of parts.

Source: Rajbhandari et al., arXiv 1910.02054 (the state sharded over devices), and Xu et al., 2105.04663 (programs
partitioned by the compiler).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from cfgjax.checks import short_repr
from cfgjax.contracts import Devices, NonNegativeInt, ShapedTree, checked, instance
from cfgjax.training import Step
from cfgjax.training.batching import require_sharded
from cfgjax.training.pmap import CompilerOptions
from cfgjax.types import Array, TrainState, Tree

MIN_SIZE = 2**14
"""Elements of the smallest leaf that is cut. Biases stay whole, as a gather costs more than their bytes."""

ENOUGH = 64
"""Parts above which more are no reason to cut along another axis (F1)."""

AnyMesh = Annotated[Mesh | AbstractMesh, instance((Mesh, AbstractMesh), "a Mesh, as fsdp.mesh_of() is")]
"""A mesh, of devices or without them."""


def _prime_factors(number: int) -> list[int]:
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors


@checked
def mesh_of(devices: Devices = None) -> Mesh:
    """The devices, by default all, as a mesh with one axis for each prime factor of their number.

    A part of the axes then cuts a leaf into any number of parts that divides the number of devices (F1).

    >>> dict(mesh_of(jax.devices()[:1]).shape)
    {'devices_0': 1}
    """
    found = np.asarray(devices or jax.devices())
    lengths = _prime_factors(found.size) or [1]
    return Mesh(found.reshape(lengths), tuple(f"devices_{index}" for index in range(len(lengths))))


def _axis_to_shard(size: int, mesh: AnyMesh) -> tuple[str, ...]:
    """The axes of the mesh that together cut an axis of this size, in their order."""
    taken = []
    for name, length in mesh.shape.items():
        if size % length == 0:
            taken.append(name)
            size //= length
    return tuple(taken)


def _spec(leaf: Any, mesh: AnyMesh, least: int) -> PartitionSpec:
    """(F1)."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.size < max(least, 1) or leaf.ndim == 0:
        return PartitionSpec()
    cuttings = [_axis_to_shard(size, mesh) for size in leaf.shape]
    num_parts = [min(ENOUGH, math.prod(mesh.shape[name] for name in names)) for names in cuttings]
    axis = num_parts.index(max(num_parts))
    return PartitionSpec(*[None] * axis, cuttings[axis]) if num_parts[axis] > 1 else PartitionSpec()


@checked
def shardings(state: ShapedTree, mesh: AnyMesh, least: NonNegativeInt = MIN_SIZE) -> Tree:
    """How each leaf of a state lies on a mesh (F1): a tree of ``NamedSharding``.

    Args:
        state: arrays, or their shapes and types, as of ``jax.eval_shape``. Typed keys and scalars stay whole.
        mesh: of ``mesh_of``; each axis of another mesh, too, cuts a leaf or leaves it whole.
        least: elements of the smallest leaf that is cut.
    """
    return jax.tree.map(lambda leaf: NamedSharding(mesh, _spec(leaf, mesh, least)), state)


@checked
def bytes_per_device(state: ShapedTree, placed: Tree) -> int:
    """The bytes of a state that lie on each device (F3).

    Args:
        state: arrays, or their shapes and types.
        placed: their shardings, as of ``shardings``.

    Raises:
        TypeError: shardings that are not one for each leaf.
    """
    is_alike = jax.tree.structure(placed) == jax.tree.structure(state)
    if not (is_alike and all(isinstance(each, jax.sharding.Sharding) for each in jax.tree.leaves(placed))):
        raise TypeError(f"placed must be one sharding for each leaf of the state, got {short_repr(placed)}")
    sizes = jax.tree.map(lambda leaf, s: math.prod(s.shard_shape(leaf.shape)) * leaf.dtype.itemsize, state, placed)
    return sum(jax.tree.leaves(sizes))


def _device_put(leaf: Any, wanted: NamedSharding) -> Array:
    """The leaf where it is wanted, itself if it is there; a leaf that one process holds is the same in all of them."""
    if getattr(leaf, "sharding", None) == wanted:
        return leaf
    if wanted.is_fully_addressable:
        return jax.device_put(leaf, wanted)
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_device_put(jax.random.key_data(leaf), wanted), impl=jax.random.key_impl(leaf))
    if not getattr(leaf, "is_fully_addressable", True):
        return jax.jit(lambda leaf: leaf, out_shardings=wanted)(leaf)
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, wanted, lambda index: value[index])


@checked
def shard_state(state: ShapedTree, devices: Devices = None, least: NonNegativeInt = MIN_SIZE) -> Tree:
    """The state on its shards; leaves that lie there already are not copied. Over several processes all must call it.

    Args:
        state: arrays, the same in every process.
        devices: the devices, by default all, of all processes.
        least: as of ``shardings``.
    """
    return jax.tree.map(_device_put, state, shardings(state, mesh_of(devices), least))


@checked
def init_state(make: Callable[[], Tree], devices: Devices = None, least: NonNegativeInt = MIN_SIZE) -> Tree:
    """The state ``make()``, computed on its shards: no device holds a large leaf whole.

    Args:
        make: a pure function without arguments, such as one that ends in ``training.init_state``.
        devices: the devices, by default all, of all processes.
        least: as of ``shardings``.
    """
    return jax.jit(make, out_shardings=shardings(jax.eval_shape(make), mesh_of(devices), least))()


def _everywhere(mesh: AnyMesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def _by_device(mesh: AnyMesh) -> NamedSharding:
    """Row d of the leading axis on device d."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def _merged(leaf: Array, axis: int) -> Array:
    """[num_devices, ..., B / num_devices, ...] with the devices' examples joined in order: [..., B, ...]."""
    moved = jax.numpy.moveaxis(leaf, 0, axis)
    return moved.reshape((*moved.shape[:axis], -1, *moved.shape[axis + 2 :]))


def _options_for(mesh: AnyMesh) -> dict[str, str]:
    """On TPUs weights are gathered once for a product; by default XLA cuts it into a loop over the devices' parts.

    For DiT-XL/2 on 16 v6e chips the loops cost 1.4 times the estimated cycles, most of them copies (libtpu 0.0.42.1).
    """
    is_tpu = isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == "tpu"
    return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "100000"} if is_tpu else {}


@checked
def program(
    step: Step,
    state: TrainState,
    batch: Tree,
    source: Tree = None,
    mesh: AnyMesh | None = None,
    donate: bool = True,
    compiler_options: CompilerOptions = None,
    least: NonNegativeInt = MIN_SIZE,
) -> Any:
    """The jitted function (state, batch, source) -> outputs of ``fsdp``; it has ``lower``.

    Args:
        step: as of ``fsdp``, likewise the others that are not here.
        state: arrays, or their shapes and types, for which alone the function is.
        batch: likewise; [num_devices, ...] over all processes.
        source: likewise.
        mesh: by default that of all devices.
        compiler_options: as of ``jax.jit``, before those that TPUs are given.

    Raises:
        ValueError: a batch without the devices in front; what the step refuses.
    """
    mesh = mesh_of() if mesh is None else mesh
    placed = shardings(state, mesh, least)
    example_axis = getattr(step, "example_axis", 0)
    require_sharded(batch, mesh.size, "devices", example_axis)
    merged = partial(_merged, axis=example_axis)

    def on_all(state: TrainState, batch: Tree, source: Tree) -> object:
        return step(state, jax.tree.map(merged, batch), source)

    outputs = jax.eval_shape(on_all, state, batch, source)
    return jax.jit(
        on_all,
        in_shardings=(placed, _by_device(mesh), _everywhere(mesh)),
        out_shardings=shardings(outputs, mesh, least),
        donate_argnums=(0,) if donate else (),
        compiler_options=_options_for(mesh) | dict(compiler_options or {}),
    )


def _global_batch(batch: Tree, mesh: Mesh, example_axis: int) -> Tree:
    """The processes' batches as one, each device's row on it."""
    num_local = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    require_sharded(batch, num_local, "local devices", example_axis)
    wanted = _by_device(mesh)

    def whole(leaf: Any) -> Array:
        shape = (mesh.size, *np.shape(leaf)[1:])
        return jax.make_array_from_process_local_data(wanted, np.asarray(leaf), shape)

    return jax.tree.map(whole, batch)


@checked
def fsdp(
    step: Step,
    devices: Devices = None,
    donate: bool = True,
    compiler_options: CompilerOptions = None,
    least: NonNegativeInt = MIN_SIZE,
) -> Callable[..., Any]:
    """The step with its state sharded over the devices (F1): (state, sharded batch, source=None) -> the same outputs.

    The twin of ``training.parallel``, to rounding with the same numbers: batches and sources are the same, and so is
    the state, but for where it lies. A state that does not lie on its shards yet is put there; ``init_state`` makes one
    that would not fit on one device first.

    Args:
        step: the pure step, ``training.multi_step`` of one, or an evaluation.
        devices: the devices to use; by default all of them, of all processes.
        donate: give the old state's memory to the new one. Pass False for an evaluation, which keeps its state.
        compiler_options: as of ``jax.jit``.
        least: elements of the smallest leaf that is cut.

    Returns:
        The function. Its batch is this process's, [num_local_devices, ...], from ``training.shard`` or, for
        ``training.multi_step``, ``training.shard_stacked``. It raises ValueError for another number of rows.
    """
    mesh, programs = mesh_of(devices), {}

    def run(state: TrainState, batch: Tree, source: Tree = None) -> object:
        batch = _global_batch(batch, mesh, getattr(step, "example_axis", 0))
        state = shard_state(state, devices, least)
        source = jax.tree.map(partial(_device_put, wanted=_everywhere(mesh)), source)
        leaves, structure = jax.tree.flatten((state, batch, source))
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in programs:
            programs[key] = program(step, state, batch, source, mesh, donate, compiler_options, least)
        return programs[key](state, batch, source)

    return run
