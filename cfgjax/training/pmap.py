"""The pure step on all devices: the one line that says pmap, and what lies where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Annotated, Any

import jax
import numpy as np

from cfgjax.checks import is_traced, require_arrays
from cfgjax.contracts import ArrayTree, Devices, checked, instance
from cfgjax.training.batching import require_sharded
from cfgjax.training.step import Step
from cfgjax.types import TrainState, Tree

AXIS = "devices"

CompilerOptions = Annotated[
    Mapping[str, str] | None, instance((Mapping, NoneType), "a mapping of names to settings, or None")
]
"""Options of XLA by name, as of ``jax.jit``; None for none."""


def _own_mesh(devices: Sequence[jax.Device] | None) -> jax.sharding.Mesh:
    """This process's devices among those named, by default among all."""
    own = [device for device in devices or jax.devices() if device.process_index == jax.process_index()]
    return jax.sharding.Mesh(np.asarray(own), (AXIS,))


@checked
def replicate(tree: ArrayTree, devices: Devices = None) -> Tree:
    """The tree with every leaf on all devices of a ``parallel`` step: its state, or the source of its batches.

    Of several processes each places it on its own devices: ``jax.pmap`` takes and gives arrays of one process.
    """
    return _replicated(tree, devices)


def _replicated(tree: Tree, devices: Sequence[jax.Device] | None) -> Tree:
    return jax.device_put(tree, jax.sharding.NamedSharding(_own_mesh(devices), jax.sharding.PartitionSpec()))


@checked
def pmapped(step: Step, devices: Devices = None, donate: bool = True) -> Any:
    """The step under pmap: (state, sharded batch, source) -> the same outputs, with neither state nor source sharded.

    The function of ``parallel`` before it places its state; it has ``lower``, to compile without running.
    """
    donated = (0,) if donate else ()
    named = partial(step, axis_name=AXIS)
    return jax.pmap(named, AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices, donate_argnums=donated)


def _aot_cached(on_devices: Any, compiler_options: Mapping[str, str]) -> Callable[..., object]:
    """A function of ``pmapped`` that is compiled with options, once for each structure, shape and type of arguments."""
    programs: dict[Any, Callable[..., object]] = {}

    def run(*args: Tree) -> object:
        leaves, structure = jax.tree.flatten(args)
        key = structure, tuple(jax.typeof(leaf) for leaf in leaves)
        if key not in programs:
            programs[key] = on_devices.lower(*args).compile(compiler_options=dict(compiler_options))
        return programs[key](*args)

    return run


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not is_traced(leaf)


@checked
def parallel(
    step: Step,
    devices: Devices = None,
    donate: bool = True,
    compiler_options: CompilerOptions = None,
) -> Callable:
    """The step mapped over the devices: (state, sharded batch, source=None) -> the same outputs, replicated.

    The state has no device axis, before or after; the batch has one in front, from ``shard``. Works for
    ``make_eval_step`` too. A state that does not lie on all the devices yet is put there, so that the second step
    finds what the first one found and compiles nothing; put a source there once, by ``replicate``.

    Args:
        step: the pure step.
        devices: the devices to use; by default all of them, of all processes.
        donate: give the old state's memory to the new one. Pass False for an evaluation, which keeps its state.
        compiler_options: as of ``jax.jit``, such as ``xla_flags.batched_product_options()``. ``jax.pmap`` takes none,
            so the program is compiled ahead of its first run; over several processes pmap allows no such call, and
            the options are left out.

    Raises:
        TypeError, ValueError: at the call, a state without step, with a leaf that is neither array nor number, or that
            an earlier call was donated; a batch that ``shard`` has not cut for these devices; what the step refuses.
    """
    on_devices: Callable[..., object] = pmapped(step, devices, donate)
    if compiler_options and jax.process_count() == 1:
        on_devices = _aot_cached(on_devices, compiler_options)
    everywhere, example_axis = _own_mesh(devices), getattr(step, "example_axis", 0)
    num_own = everywhere.devices.size
    rows = jax.sharding.NamedSharding(everywhere, jax.sharding.PartitionSpec(AXIS))

    def own_rows(leaf: Any) -> Any:
        is_elsewhere = _is_array(leaf) and leaf.committed and leaf.sharding != rows
        return jax.device_put(leaf, rows) if is_elsewhere else leaf

    def run(state: TrainState, batch: Tree, source: Tree = None) -> object:
        if not hasattr(state, "step"):
            raise TypeError(f"state must be a TrainState, as training.init_state gives it, got {type(state).__name__}")
        if _is_array(state.step) and state.step.is_deleted():
            raise ValueError("state must be the one that the last call returned, got one whose memory that call took")
        require_sharded(batch, num_own, "local devices", example_axis)
        sharding = getattr(state.step, "sharding", None)
        is_placed = isinstance(sharding, jax.sharding.NamedSharding) and sharding.mesh == everywhere
        if not is_placed:
            require_arrays("state", state)
            state = _replicated(state, devices)
        return on_devices(state, jax.tree.map(own_rows, batch), source)

    return run
