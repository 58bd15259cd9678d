"""The accelerators to compile for, of which none need be there: libtpu and XLA's CUDA plugin compile on a CPU."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from experiments.cli.main import UserError
from experiments.dryrun.compiler_log import warnings_of_compiler
from experiments.dryrun.scaling import Network


class Chip(NamedTuple):
    """What is known of a device.

    Attributes:
        memory: bytes that a program may take of it.
        peak: FLOP/s of dense products in bfloat16.
        clock: cycles/s, by which estimated cycles become seconds; None where nothing estimates any.
        network: its links.
        topology: how many devices are named, as an example.
    """

    memory: float
    peak: float
    clock: float | None
    network: Network
    topology: str


TPUS = {
    "v4": Chip(15.25 * 2**30, 137.5e12, 1.05e9, Network(150e9, 3), "2x2x1"),
    "v5e": Chip(15.75 * 2**30, 197e12, 1.5e9, Network(200e9, 4), "2x4"),
    "v5p": Chip(95.74 * 2**30, 459e12, 1.75e9, Network(600e9, 6), "2x2x1"),
    "v6e": Chip(31.25 * 2**30, 918e12, 1.75e9, Network(400e9, 4), "4x4"),
    "tpu7x": Chip(94.75 * 2**30, 1153.5e12, 2.2e9, Network(300e9, 3), "2x2x1"),
}
"""Memory: the limit at which libtpu 0.0.42 refuses a program. Peak and links: by the maker, for a device (v4 and tpu7x
have two in a chip), links one way, half of what it says both ways. Clock: that at which the peak is a power of two of
FLOPs a cycle, 2^17 to 2^19.

Source of the links: docs.cloud.google.com/tpu/docs/{v5e, v5p, v6e, tpu7x}, for v4 Jouppi et al., arXiv 2304.01433."""

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""The card in the words of XLA's GpuTargetConfig."""

GPUS = {"h100": (Chip(84942979072, 989e12, None, Network(450e9, slow=50e9, island=8), "8"), H100)}
"""Source of the links: NVIDIA's DGX H100, where 8 cards have 900 GB/s of NVLink both ways and 400 Gb/s of network."""

CPU = Chip(float("inf"), float("nan"), None, Network(float("inf")), "8")

_CHIPS = {
    **{f"tpu:{name}": chip for name, chip in TPUS.items()},
    **{f"gpu:{name}": chip for name, (chip, _) in GPUS.items()},
}

NEEDED = {
    "tpu": ("libtpu", "tpu-compile"),
    "gpu": ("jax_plugins.xla_cuda13", "gpu-compile"),
}
"""A kind of device -> (the module that compiles for it, the extra that installs it)."""

GPU_OPTIONS = {"xla_gpu_autotune_level": "0"}
"""Compiler options: no trial runs, as no device is there."""

KNOWN = ", ".join(["cpu", *(f"tpu:{name}:{chip.topology}" for name, chip in TPUS.items()), "gpu:h100", "gpu:h100:8"])


class Target(NamedTuple):
    """What is compiled for.

    Attributes:
        name: as it was asked for.
        platform: for which programs are lowered.
        chip: what is known of a device.
        devices: of JAX.
        compiler_options: of XLA.
    """

    name: str
    platform: str
    chip: Chip
    devices: list[jax.Device]
    compiler_options: dict[str, str]


def chip_of(on: str) -> Chip:
    """What is known of the devices of an accelerator's name.

    Raises:
        KeyError: a name that is not known.
    """
    return _CHIPS[":".join(on.split(":")[:2])]


def _require_compiler(kind: str) -> None:
    module, extra = NEEDED[kind]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UserError(
            f"on {kind}:.. needs {module}, which is not installed: pip install 'cfgjax[{extra}]' and try again"
        )


def _described(platform: str, name: str, **settings: Any) -> list[jax.Device]:
    """The devices of a topology that need not be there."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    with warnings_of_compiler():
        return list(topologies.get_topology_desc(platform=platform, topology_name=name, **settings).devices)


def _tpu(on: str, name: str, topology: str) -> Target:
    if name not in TPUS or not topology:
        raise UserError(f"on must be one of {KNOWN} (or another slice of these), got {on!r}")
    _require_compiler("tpu")
    try:
        devices = _described("tpu", f"{name}:{topology}")
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"on must name a slice such as tpu:{name}:{TPUS[name].topology}, got {on!r}: {reason}"
        ) from error
    return Target(on, "tpu", TPUS[name], devices, {})


def _gpu(on: str, name: str, count: str) -> Target:
    if name not in GPUS or not (count or "1").isdecimal() or int(count or "1") < 1:
        raise UserError(f"on must be one of {KNOWN} (or another number of these), got {on!r}")
    _require_compiler("gpu")
    chip, card = GPUS[name]
    devices = _described("cuda", name, target_config=card, topology=f"1x1x{count or 1}")
    return Target(on, "cuda", chip, devices, GPU_OPTIONS)


def target_of(on: str) -> Target:
    """The accelerator of a name such as tpu:v6e:4x4 or gpu:h100:8.

    Raises:
        UserError: a name that is not known, or whose compiler is not installed.
    """
    kind, name, rest = (*on.split(":"), "", "", "")[:3]
    if kind not in NEEDED or on.count(":") > 2:
        raise UserError(f"on must be one of {KNOWN}, got {on!r}")
    return {"tpu": _tpu, "gpu": _gpu}[kind](on, name, rest)
