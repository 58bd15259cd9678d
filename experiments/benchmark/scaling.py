"""What more devices cost: measured on virtual ones, which share the cores of one CPU, and on paper for real ones.

Measured is overhead alone: a training step of the same examples per device, the same step without the mean of its
gradients over the devices, and the dispatch of an empty step that is given the same state. On paper a step of n
devices takes

    compute = 3 FLOPs B / (peak u),
    average = 2 (7/8 bytes / fast + (m - 1)/m bytes / (8 slow)) + hops latency,

FLOPs the network's on one example, B the examples per device, u the share of the peak that one device reaches, m the
number of machines; the gradients are scattered and gathered in rings, among the 8 devices of a machine by its fast
links, and among machines, each device an eighth of them, by slow ones: in 2 (8 - 1) + 2 (m - 1) hops. Efficiency is
compute over their sum, or, where the average is hidden behind the backward pass, over
compute + max(0, average - 2/3 compute).
"""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import optax
from pydantic import Field

from cfgjax import training
from cfgjax.types import Tree
from experiments.benchmark import in_cfgjax, timed_functions, timing
from experiments.benchmark.rows import forward_flops
from experiments.benchmark.workloads import WORKLOADS, WorkloadName, compiler_options, inputs_of, shapes_of
from experiments.cli import main as cli
from experiments.config.values import Count
from experiments.run import folder as run_folder

IN_MACHINE = 8
PUBLISHED: tuple[WorkloadName, ...] = ("W4-B", "W4-L", "W4-XL")


@dataclass(frozen=True)
class Options:
    """What is measured."""

    work: WorkloadName = "W0"
    """The work; each device takes the examples of its training step."""
    devices: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4, 8)
    """Numbers of virtual devices."""
    rounds: Count = 7
    """Rounds of each."""
    per_device: Count = 32
    """On paper: examples of a device in a step."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """On paper: the share of its peak that one device alone reaches."""


class Interconnect(NamedTuple):
    """The links of a cluster of machines with 8 devices each.

    Attributes:
        peak: FLOP/s of a device.
        fast: bytes/s of a device to others of its machine, one way.
        slow: bytes/s of a device to other machines, one way.
        latency: seconds of a message.
    """

    peak: float
    fast: float
    slow: float
    latency: float


H100 = Interconnect(peak=989e12, fast=450e9, slow=50e9, latency=5e-6)
"""By its maker: bfloat16 without sparsity, NVLink 4, and one 400 Gbit/s adapter for each device; latency assumed."""


def efficiency(
    links: Interconnect, num_devices: int, gradient_bytes: float, device_flops: float, share: float, overlaps: bool
) -> float:
    """Speed of a device among so many, over that of one alone, on paper.

    Args:
        links: of the cluster.
        num_devices: a multiple of 8.
        gradient_bytes: what is averaged in a step.
        device_flops: of one device in a step, forward and backward.
        share: of the peak, that one device alone reaches.
        overlaps: whether the average hides behind the backward pass, two thirds of the step.

    Raises:
        ValueError: another number of devices.
    """
    if num_devices < IN_MACHINE or num_devices % IN_MACHINE:
        raise ValueError(f"num_devices must be a positive multiple of {IN_MACHINE}, got {num_devices}")
    compute = device_flops / (links.peak * share)
    machines = num_devices // IN_MACHINE
    inside = 2 * (IN_MACHINE - 1) / IN_MACHINE * gradient_bytes / links.fast
    between = 2 * (machines - 1) / machines * gradient_bytes / IN_MACHINE / links.slow
    hops = 2 * (IN_MACHINE - 1) + 2 * (machines - 1)
    average = inside + between + hops * links.latency
    return compute / (compute + (max(0.0, average - 2 / 3 * compute) if overlaps else average))


def _alone(step: Any) -> training.Step:
    """The step without its average over the devices."""

    def run(state: Tree, batch: Tree, source: Tree = None, *, axis_name: str | None = None) -> object:
        del axis_name
        return step(state, batch, source)

    return run


def _empty(state: Tree, batch: Tree, source: Tree = None, *, axis_name: str | None = None) -> object:
    """A step that does nothing: its time is the dispatch's."""
    del batch, source, axis_name
    return state, ()


def measure(work_name: WorkloadName, num_rounds: int) -> dict[str, float]:
    """Least seconds of a step on all devices of this process: whole, without the mean, and empty."""
    count, work = jax.local_device_count(), WORKLOADS[work_name]
    work = work._replace(train_batch=count * work.train_batch)
    inputs, optimizer = inputs_of(work), optax.adamw(1e-4)
    step = in_cfgjax.train_step_of(work, optimizer, work.train_chunks)
    steps = {"whole": training.multi_step(step), "alone": training.multi_step(_alone(step)), "empty": _empty}

    def function_of(step: training.Step) -> timed_functions.TimedFunction:
        state, batches, source = in_cfgjax.train_inputs(work, inputs, optimizer, 1)
        options = compiler_options(work)
        return timed_functions.training(training.pmapped(step), state, (batches, source), work.train_batch, 1, options)

    rounds = timing.time_rounds(
        {name: function_of(each) for name, each in steps.items()}, timing.product_of("float32"), num_rounds, 0.3
    )
    return {name: float(np.min(seconds)) for name, seconds in rounds.seconds.items()}


def _on(num_devices: int, options: Options) -> dict[str, float]:
    """``measure`` in a process of its own with so many virtual devices."""
    virtual = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(num_devices), "PJRT_NPROC": str(2 * num_devices)}
    asked = f"{options.work!r}, {options.rounds}"
    program = f"import json; from experiments.benchmark import scaling; print(json.dumps(scaling.measure({asked})))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | virtual, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the measurement on {num_devices} devices failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def lines(found: dict[int, dict[str, float]]) -> list[str]:
    """The measurements as a table."""
    head = "| devices | step | without the mean | empty step | mean's share | dispatch's share |"
    rows = [head, "|---|---|---|---|---|---|"]
    for count, each in found.items():
        whole, alone, empty = (each[name] for name in ("whole", "alone", "empty"))
        times = " | ".join(f"{1e3 * value:.2f} ms" for value in (whole, alone, empty))
        rows.append(f"| {count} | {times} | {max(0.0, 1 - alone / whole):.0%} | {empty / whole:.0%} |")
    return rows


def on_paper(options: Options) -> list[str]:
    """The published transformers' efficiencies at 64 and 1,024 devices, as a table."""
    rows = [
        "| network | gradients | devices | efficiency | with the average hidden |",
        "|---|---|---|---|---|",
    ]
    for name, num_devices in itertools.product(PUBLISHED, (64, 1024)):
        work = WORKLOADS[name]
        gradient_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes_of(work)[0]))
        device_flops = 3 * forward_flops(work) * options.per_device
        plain, hidden = (
            efficiency(H100, num_devices, gradient_bytes, device_flops, options.share, overlaps)
            for overlaps in (False, True)
        )
        rows.append(f"| {name} | {gradient_bytes / 1e9:.2f} GB | {num_devices} | {plain:.0%} | {hidden:.0%} |")
    return rows


def scaling(options: Options) -> None:
    """Prints both tables.

    Raises:
        UserError: an option out of range.
    """
    run_folder.validate(options)
    print("\n".join(lines({count: _on(count, options) for count in options.devices})))
    print("", *on_paper(options), sep="\n")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(scaling, Options, "experiments.benchmark.scaling", __doc__, args)


if __name__ == "__main__":
    main()
