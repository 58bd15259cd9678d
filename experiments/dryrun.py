"""Compile a preset's training step at its true size, without data: for as many devices as are named.

Prints the network's parameters, the floating-point operations of a step, and the bytes that each device would hold
where the state is replicated on every device and where it is sharded over them. The devices are virtual CPUs:
temporary bytes are those of the program compiled for them, not of an accelerator's own compiler.
"""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import tyro

from cfgjax import training
from cfgjax.training import fsdp
from cfgjax.types import TrainState, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.schema import Experiment
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.model import Model, model_of
from experiments.run.train_setup import state_of, train_setup_of
from experiments.runtime import progress
from experiments.tasks.registry import task_of
from experiments.tasks.task import Task


@dataclass(frozen=True)
class Options:
    """What to compile."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """Name of the preset; python -m experiments.presets lists them."""
    devices: int = 8
    """Number of devices."""
    batch_size: Annotated[int | None, optional("INT", "the preset's own")] = None
    """Examples in a step, over all devices."""
    sharding: Literal["replicated", "sharded", "both"] = "both"
    """Whether the state lies whole on every device, is sharded over them, or one after the other."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON line."""


WAYS = {"replicated": ("replicated",), "sharded": ("sharded",), "both": ("replicated", "sharded")}

OPTIONS = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
"""Compiler options: no fast code, as none is run, and the order of operations that accelerators have, of least memory.

A CPU's own order starts all that can start: it gathers the weights of all layers before the first.
"""


def num_bytes(tree: Tree) -> int:
    """The bytes of a tree of arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def forward_flops(model: Model, task: Task, params: Tree) -> float:
    """Floating-point operations of the network on one example, as lowered."""
    network: Any = model.network
    lowered = jax.jit(network.apply).lower(params, *task.inputs)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def _lowered(way: str, step: training.Step, devices: list[jax.Device], *args: Tree) -> Any:
    """The step's program for abstract arguments (state, sharded batch, source)."""
    if way == "replicated":
        return training.pmapped(step, devices).lower(*args)
    return fsdp.program(step, *args, mesh=fsdp.mesh_of(devices)).lower(*args)


def _state_bytes(way: str, state: TrainState, devices: list[jax.Device]) -> int:
    if way == "replicated":
        return num_bytes(state)
    return fsdp.bytes_per_device(state, fsdp.shardings(state, fsdp.mesh_of(devices)))


def compiled_sizes(way: str, step: training.Step, devices: list[jax.Device], state: TrainState, *rest: Tree) -> Tree:
    """What a device holds of the state, and beside it while the compiled step runs; the seconds that compiling took.

    Args:
        way: "replicated" or "sharded".
        step: the pure step.
        devices: the devices.
        state: its shapes.
        rest: those of the batch, sharded, and of the source.
    """
    start = time.perf_counter()
    lowered = _lowered(way, step, devices, state, *rest)
    traced = time.perf_counter()
    compiled = lowered.compile(compiler_options=OPTIONS)
    return {
        "state_bytes_per_device": _state_bytes(way, state, devices),
        "temporary_bytes_per_device": int(compiled.memory_analysis().temp_size_in_bytes),
        "trace_seconds": round(traced - start, 1),
        "compile_seconds": round(time.perf_counter() - traced, 1),
    }


def dryrun(experiment: Experiment, devices: list[jax.Device], ways: tuple[str, ...]) -> dict[str, Any]:
    """The sizes and counts of an experiment's step, compiled for some devices in each of the ways.

    Raises:
        UserError: a batch that the devices do not divide.
    """
    num_parts = len(devices) * experiment.num_microbatches
    if experiment.batch_size % num_parts:
        raise UserError(f"batch_size must be divisible by {num_parts}, got {experiment.batch_size}")
    task = task_of(experiment, "shapes")
    model = model_of(experiment, task)
    setup, state = train_setup_of(experiment, task, model), jax.eval_shape(lambda: state_of(experiment, model))
    step = training.make_step(
        setup.loss, setup.optimizer, setup.ema_decay, experiment.num_microbatches, average_decays=setup.average_decays
    )
    batch = jax.eval_shape(lambda tree: training.shard(tree, len(devices)), next(task.batches(range(1))))
    forward = forward_flops(model, task, state.params)
    return {
        "preset": experiment.preset,
        "num_devices": len(devices),
        "batch_size": experiment.batch_size,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "source_bytes_per_device": num_bytes(task.source),
        "forward_flops_per_example": forward,
        "model_flops_per_step": 3 * forward * experiment.batch_size,
    } | {
        way: compiled_sizes(way, step, devices, state, batch, task.source)
        for way in progress.each(ways, "programs", "compiling")
    }


def _row(name: str, values: list[str], remark: str = "") -> str:
    return f"  {name:20s}{''.join(f'{value:>12s}' for value in values)}  {remark}".rstrip()


def _text(found: dict[str, Any]) -> str:
    ways = [way for way in WAYS["both"] if way in found]

    def row(name: str, key: str, scale: float = 2**30, digits: int = 3, remark: str = "") -> str:
        values = [found[way].get(key, found.get(key)) / scale for way in ways]
        return _row(name, [f"{value:.{digits}f}" for value in values], remark)

    return "\n".join(
        [
            f"{found['preset']}: a step of {found['batch_size']} examples on {found['num_devices']} devices",
            f"  parameters  {found['num_params'] / 1e6:.1f} M",
            f"  forward     {found['forward_flops_per_example'] / 1e9:.3f} GFLOP an example",
            f"  step        {found['model_flops_per_step'] / 1e12:.3f} TFLOP (3 x forward x examples)",
            _row("GiB on each device", ways),
            row("state", "state_bytes_per_device", remark="parameters, optimizer, EMA"),
            row("data", "source_bytes_per_device"),
            row("temporary", "temporary_bytes_per_device"),
            row("seconds to trace", "trace_seconds", 1, 1),
            row("seconds to compile", "compile_seconds", 1, 1),
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
        experiment = run_folder.validate(dataclasses.replace(experiment, batch_size=options.batch_size))
    found = dryrun(experiment, _virtual_devices(options.devices), WAYS[options.sharding])
    print(json.dumps(found) if options.json else _text(found))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(_run, Options, "experiments.dryrun", __doc__, args)


if __name__ == "__main__":
    main()
