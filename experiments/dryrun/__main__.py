"""Compile a preset's programs at their true size: without its data, and without the devices.

Training with its state replicated on every device and sharded over them, or guided sampling of 64 images by Euler and
Heun, for a slice of TPUs (--on tpu:v6e:4x4), for GPUs (--on gpu:h100:8), whose compilers run on a CPU, or for virtual
CPU devices. Printed is what a device holds, what the devices send each other, how attention and products are computed,
and for TPUs the compiler's estimate of cycles. Nothing is run, so nothing printed is a time on a device.
"""

import dataclasses
import datetime
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from cfgjax.models import SIZES
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.networks import DiTNetwork
from experiments.config.schema import Experiment
from experiments.dryrun import programs, render, targets
from experiments.dryrun.figures import figures_of
from experiments.dryrun.targets import Target, target_of
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.runtime import progress
from experiments.runtime.versions import of_packages

SizeName = Literal["Ti", "S", "B", "L", "XL"]


COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin")
"""The packages that make the programs."""


@dataclass(frozen=True)
class Options:
    """What to compile, and for what."""

    preset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")]
    """Name of the preset; python -m experiments.presets lists them."""
    on: str = "cpu"
    """Devices: cpu, or a slice as tpu:v6e:4x4, or GPUs as gpu:h100 and gpu:h100:8."""
    devices: Annotated[int | None, optional("INT", "8")] = None
    """Number of virtual devices, on cpu."""
    program: Literal["train", "sample"] = "train"
    """The step of training, or guided sampling of 64 images by Euler and by Heun."""
    sharding: Literal["replicated", "sharded", "both"] = "both"
    """Whether the state in training lies whole on every device, is sharded over them, or one after the other."""
    batch_size: Annotated[int | None, optional("INT", "the preset's own")] = None
    """Examples in a step, over all devices."""
    size: Annotated[SizeName | None, optional("{Ti,S,B,L,XL}", "the preset's own")] = None
    """Size of the paper's, for a preset whose network is a transformer."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON line."""
    out: Annotated[Path | None, optional("FILE", "none")] = None
    """A picture (.png, .svg, .pdf) of the kinds of work as bars, for TPUs."""


CPU_OPTIONS = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
"""Compiler options: no fast code, as none is run, and the order of operations that accelerators have, of least memory.

A CPU's own order starts all that can start: it gathers the weights of all layers before the first.
"""


def cpu(count: int) -> Target:
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
    return Target("cpu", "cpu", targets.CPU, jax.devices()[:count], CPU_OPTIONS)


def _target_of(options: Options) -> Target:
    if options.on == "cpu":
        return cpu(8 if options.devices is None else options.devices)
    if options.devices is not None:
        raise UserError(f"devices must be left out with --on {options.on}, which tells their number")
    return target_of(options.on)


def _experiment_of(options: Options) -> Experiment:
    if options.preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, got {options.preset!r}")
    experiment = PRESETS[options.preset][1]
    if options.batch_size is not None:
        experiment = dataclasses.replace(experiment, batch_size=options.batch_size)
    if options.size is not None:
        network = experiment.network
        if not isinstance(network, DiTNetwork):
            raise UserError(f"size must be left out for {options.preset}, whose network is no transformer")
        network = dataclasses.replace(network, **SIZES[options.size]._asdict())
        experiment = dataclasses.replace(experiment, network=network)
    return run_folder.validate(experiment)


def _names(options: Options) -> tuple[str, ...]:
    if options.program == "sample":
        return programs.SAMPLING
    return programs.TRAINING if options.sharding == "both" else (options.sharding,)


def dryrun(experiment: Experiment, target: Target, names: tuple[str, ...]) -> dict[str, Any]:
    """The figures of an experiment's programs, compiled for some devices.

    Raises:
        UserError: a batch that the devices do not divide; a program that the compiler refuses.
    """
    preset = programs.preset_of(experiment)
    works = {name: programs.work_of(preset, name, target.devices) for name in names}
    is_training = names != programs.SAMPLING
    found: dict[str, Any] = {
        "preset": experiment.preset,
        "on": target.name,
        "size": size_of(experiment),
        "date": datetime.date.today().isoformat(),
        "versions": of_packages(COMPILERS),
        "command": cli.line(),
        "device_kind": target.devices[0].device_kind,
        "num_devices": len(target.devices),
        "memory_bytes_per_device": target.chip.memory,
        "batch_size": experiment.batch_size if is_training else programs.NUM_SAMPLES,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(preset.state.params)),
        "source_bytes_per_device": programs.num_bytes(preset.task.source) if is_training else 0,
        "forward_flops_per_example": preset.forward_flops,
    }
    if is_training:
        found["model_flops_per_step"] = works[names[0]].model_flops
    return found | {name: figures_of(works[name], target) for name in progress.each(names, "programs", "compiling")}


def size_of(experiment: Experiment) -> str:
    """The paper's name of a transformer's size and patch, such as DiT-B/2; empty for other networks."""
    network = experiment.network
    if not isinstance(network, DiTNetwork):
        return ""
    numbers = network.width, network.depth, network.num_heads
    return next((f"DiT-{name}/{network.patch}" for name, size in SIZES.items() if size == numbers), "")


def _finite(value: Any) -> Any:
    """The record with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run(options: Options) -> None:
    experiment = _experiment_of(options)
    target = _target_of(options)
    if options.out is not None:
        render.require_picture(options.out, target)
    found = dryrun(experiment, target, _names(options))
    print(json.dumps(_finite(found)) if options.json else render.text(found))
    if options.out is not None:
        render.bars(found, options.out)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(_run, Options, "experiments.dryrun", __doc__, args)


if __name__ == "__main__":
    main()
