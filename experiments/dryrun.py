"""Trace, lower and compile a preset's training step at its true size, for as many devices as are named, without data.

Prints the network's parameters, the bytes that each device would hold, and the floating-point operations of a step.
The devices are virtual CPUs: bytes are those of the program compiled for them, not of an accelerator's own compiler.
"""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from cfgjax import training
from cfgjax.types import Tree
from experiments import command, runs
from experiments.command import UserError
from experiments.model import Model, model_of, state_of
from experiments.presets import PRESETS
from experiments.problems import Problem, abstract_problem_of
from experiments.settings import Experiment


@dataclass(frozen=True)
class Options:
    """What to compile."""

    preset: Annotated[str, tyro.conf.Positional]
    """Name of the preset."""
    devices: int = 8
    """How many devices."""
    batch_size: int | None = None
    """Examples in a step, over all devices; by default the preset's own."""
    json: bool = False
    """Print one JSON line."""


def _plain(dtype: Any) -> Any:
    """The type in which a leaf is stored: a key is two words."""
    return jnp.uint32 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype


def num_bytes(tree: Tree) -> int:
    """The bytes of a tree of arrays or of their shapes."""
    return sum(leaf.size * jnp.dtype(_plain(leaf.dtype)).itemsize for leaf in jax.tree.leaves(tree))


def forward_flops(experiment: Experiment, model: Model, problem: Problem, params: Tree) -> float:
    """Floating-point operations of the network on one example, as lowered."""
    label = () if experiment.objective == "classifier" else (jax.ShapeDtypeStruct((), jnp.int32),)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    network: Any = model.network
    lowered = jax.jit(network.apply).lower(params, jax.ShapeDtypeStruct(problem.shape, jnp.float32), number, *label)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def dryrun(experiment: Experiment, devices: list[jax.Device]) -> dict[str, Any]:
    """The sizes and counts of an experiment's step, compiled for some devices.

    Raises:
        UserError: a batch that the devices do not divide, or data of unknown shape.
    """
    num_parts = len(devices) * experiment.num_chunks
    if experiment.batch_size % num_parts:
        raise UserError(f"batch_size must be divisible by {num_parts}, got {experiment.batch_size}")
    problem = abstract_problem_of(experiment)
    model = model_of(experiment, problem)
    state = jax.eval_shape(lambda: state_of(experiment, problem.shape, model.network, model.optimizer))
    step = training.make_step(model.loss, model.optimizer, model.ema_decay, experiment.num_chunks)
    batch = jax.eval_shape(lambda tree: training.shard(tree, len(devices)), problem.held_out)
    start = time.perf_counter()
    lowered = training.mapped(step, devices).lower(state, batch, problem.source)
    traced = time.perf_counter()
    compiled = lowered.compile()
    compiled_at = time.perf_counter()
    memory, forward = compiled.memory_analysis(), forward_flops(experiment, model, problem, state.params)
    return {
        "preset": experiment.preset,
        "num_devices": len(devices),
        "batch_size": experiment.batch_size,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "state_bytes_per_device": num_bytes(state),
        "source_bytes_per_device": num_bytes(problem.source),
        "temporary_bytes_per_device": int(memory.temp_size_in_bytes),
        "forward_flops_per_example": forward,
        "model_flops_per_step": 3 * forward * experiment.batch_size,
        "trace_seconds": round(traced - start, 1),
        "compile_seconds": round(compiled_at - traced, 1),
    }


def _text(found: dict[str, Any]) -> str:
    gigabyte = 2**30
    state = found["state_bytes_per_device"] / gigabyte
    return "\n".join(
        [
            f"{found['preset']}: a step of {found['batch_size']} examples on {found['num_devices']} devices",
            f"  parameters            {found['num_params'] / 1e6:.1f} M",
            f"  state per device      {state:.3f} GiB: parameters, optimizer, EMA",
            f"  data per device       {found['source_bytes_per_device'] / gigabyte:.3f} GiB",
            f"  temporary per device  {found['temporary_bytes_per_device'] / gigabyte:.3f} GiB",
            f"  forward               {found['forward_flops_per_example'] / 1e9:.3f} GFLOP an example",
            f"  step                  {found['model_flops_per_step'] / 1e12:.3f} TFLOP (3 x forward x examples)",
            f"  traced in {found['trace_seconds']} s, compiled in {found['compile_seconds']} s",
        ]
    )


def _virtual_devices(count: int) -> list[jax.Device]:
    """So many virtual CPU devices, made where none are made yet."""
    if count < 1:
        raise UserError(f"devices must be at least 1, got {count}")
    os.environ.setdefault("PJRT_NPROC", str(2 * count))
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass
    if count > jax.device_count():
        raise UserError(f"devices must be at most {jax.device_count()} in this process, got {count}")
    return jax.devices()[:count]


def _run(options: Options) -> None:
    if options.preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, got {options.preset!r}")
    experiment = PRESETS[options.preset][1]
    if options.batch_size is not None:
        experiment = runs.validate(dataclasses.replace(experiment, batch_size=options.batch_size))
    found = dryrun(experiment, _virtual_devices(options.devices))
    print(json.dumps(found) if options.json else _text(found))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.run(lambda: tyro.cli(Options, prog="python -m experiments.dryrun", description=__doc__, args=args), _run)


if __name__ == "__main__":
    main()
