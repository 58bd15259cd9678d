"""Drawing many samples: one compiled program for all conditions, scales and keys, on all devices of all processes."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from cfgjax.analysis.sweep import sweep
from cfgjax.types import Array, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.samplers import Draw
from experiments.runtime import distributed, progress
from experiments.runtime.batching import compiled, plan_batching
from experiments.tasks.conditions import count_of, take

_DEVICES = "devices"
MOST_CALLS = 50
"""Calls of a program between which progress is shown."""


def keys_at(seed: int, indices: Array) -> Array:
    """The keys of the samples of these indices, [n]: sample i's is fold_in(seed's key, i), whatever the batch."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(indices)


def sample_keys(seed: int, num_samples: int) -> Array:
    """The keys of samples 0..n-1, [n], as ``keys_at``."""
    return keys_at(seed, jnp.arange(num_samples))


def _on_own_devices(one_device: Callable[[Any, Tree], Array]) -> Callable[[Any, Tree], Array]:
    """The function over this process's devices: each takes its share of the second argument's rows."""
    if jax.local_device_count() == 1:
        return one_device
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (_DEVICES,))
    rows, whole = PartitionSpec(_DEVICES), PartitionSpec()
    return jax.shard_map(
        one_device, mesh=mesh, in_specs=(whole, rows), out_specs=PartitionSpec(None, _DEVICES), check_vma=False
    )


def _own_rows(num_samples: int) -> np.ndarray:
    """The indices of the samples that this process draws, a multiple of its devices; the last are drawn repeatedly."""
    num_devices = jax.local_device_count()
    count = -(-num_samples // (jax.process_count() * num_devices)) * num_devices
    return np.minimum(jax.process_index() * count + np.arange(count), num_samples - 1)


def equal_parts(num_rows: int, num_devices: int, least: int) -> list[np.ndarray]:
    """The rows in parts of one size, one program's, that the devices divide: at most MOST_CALLS, the last filled up.

    >>> [part.tolist() for part in equal_parts(5, 1, 2)]
    [[0, 1], [2, 3], [4, 4]]
    """
    own = -(-num_rows // num_devices)
    size = num_devices * -(-own // min(MOST_CALLS, -(-own // max(1, least))))
    return [np.minimum(np.arange(start, start + size), num_rows - 1) for start in range(0, num_rows, size)]


def own_sweep(
    draw_of: Callable[[Tree], Draw],
    params: Tree,
    keys: Array,
    conditions: Tree,
    scales: tuple[float, ...],
    chunk: int | None = None,
    what: str | None = None,
) -> Callable[[Tree], np.ndarray]:
    """The function of parameters that computes this process's share of the samples, [its n, scales, *D].

    It is compiled once for all parameters of the shapes of ``params``, and waits for no other process. Sample i has key
    i and condition i at every scale; all devices of this process take their share of its samples, ``chunk`` at a time,
    by default as many as they are quick with. To show progress on ``what`` is done, it is called several times.
    """
    num_samples = count_of(conditions)
    rows = _own_rows(num_samples)
    own_keys, asked = keys[rows], jax.tree.map(jnp.asarray, take(conditions, rows))
    at = lambda part: (own_keys[part], jax.tree.map(lambda leaf: leaf[part], asked))  # noqa: E731
    draw_one = lambda params, *one: draw_of(params)(*one)  # noqa: E731
    plan = plan_batching(draw_one, params, *at(0), jnp.float32(scales[0]), shared=1)
    size = chunk or plan.chunk
    least = len(rows) if what is None else size // len(scales)
    parts = equal_parts(len(rows), jax.local_device_count(), least)
    cli.debug(f"samples x scales: {num_samples} x {len(scales)}; at most {size} together; calls: {len(parts)}")

    def draw_part(whole: tuple[Tree, Array], each: tuple[Array, Tree]) -> Array:
        draw, scales = draw_of(whole[0]), whole[1]
        return sweep(lambda scale, one: draw(one[0], one[1], scale), scales, each, chunk=size)

    example = (params, jnp.asarray(scales)), at(parts[0])
    program = compiled(_on_own_devices(draw_part), example, plan.compiler_options)

    def run(params: Tree) -> np.ndarray:
        whole, drawn = (params, jnp.asarray(scales)), []
        shown = None if what is None else progress.bar(num_samples * len(scales), "samples", what)
        with shown or contextlib.nullcontext():
            for part in parts:
                drawn.append(np.asarray(program(whole, at(part))))
                if shown is not None:
                    shown.update(min(len(part) * len(scales) * jax.process_count(), shown.total - shown.n))
        return np.moveaxis(np.concatenate(drawn, axis=1)[:, : len(rows)], 1, 0)

    return run


def gather(own: np.ndarray, num_samples: int, scales: tuple[float, ...]) -> np.ndarray:
    """The samples [scales, n, *D] of all processes, on every one of them, of what ``own_sweep`` gave each.

    Raises:
        UserError: samples that are not finite, with the scale.
    """
    samples = np.moveaxis(distributed.gathered(own)[:num_samples], 0, 1)
    for scale, its_samples in zip(scales, samples, strict=True):
        if not np.all(np.isfinite(its_samples)):
            raise UserError(f"samples at scale {scale:g} are not finite; choose a smaller scale or more steps")
    return samples


def draw_all(
    draw: Draw,
    seed: int,
    conditions: Tree,
    scales: tuple[float, ...],
    chunk: int | None = None,
    what: str = "sampling",
) -> np.ndarray:
    """Samples [scales, n, *D] by one compiled program; sample i has its condition and its noise at every scale.

    All devices of all processes take their share, and every process is given all samples. A device computes ``chunk``
    at a time, by default as many as it is quick with. Its progress is shown as that on ``what`` is done.

    Raises:
        UserError: samples that are not finite, with the scale.
    """
    num_samples = count_of(conditions)
    sweep = own_sweep(lambda _: draw, None, sample_keys(seed, num_samples), conditions, scales, chunk, what)
    return gather(sweep(None), num_samples, scales)
