"""The machine: what computes, its driver, and the versions of the libraries."""

import datetime
import os
from pathlib import Path
from typing import Any

import jax

from experiments.accelerator_check.rows import Value
from experiments.benchmark import rows as benchmark_rows
from experiments.cli import main as cli
from experiments.cli.main import UserError

_DRIVER = Path("/proc/driver/nvidia/version")
_VERSIONED = (
    "cfgjax", *benchmark_rows.VERSIONED, "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13", "libtpu",
)  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _driver() -> str | None:
    """NVIDIA's driver, where its kernel module tells."""
    try:
        return _one_line(_DRIVER.read_text().splitlines()[0])
    except (OSError, IndexError):
        return None


def describe() -> dict[str, Value]:
    """What a row tells of the machine; None for what it does not tell."""
    first = jax.local_devices()[0]
    client: Any = first.client
    memory = (first.memory_stats() or {}).get("bytes_limit")
    versions = benchmark_rows.versions(_VERSIONED)
    return {
        "device": benchmark_rows.device_kind(),
        "devices": jax.local_device_count(),
        "platform": first.platform,
        "GiB_for_JAX": memory and memory / 2**30,
        "runtime": _one_line(client.platform_version),
        "driver": _driver(),
        "versions": "; ".join(f"{name} {version}" for name, version in versions.items()),
        "date": datetime.date.today().isoformat(),
        "command": cli.line(),
    }


def require_usable(needs_accelerator: bool) -> None:
    """Finds that JAX sees a device, and an accelerator where one is needed.

    Raises:
        UserError: it sees none, or a backend does not start.
    """
    try:
        backend = jax.default_backend()
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # JAX 0.10.2 asserts where JAX_PLATFORMS names what is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX finds no device with JAX_PLATFORMS={asked!r}: {str(error) or 'none starts'}") from None
    if needs_accelerator and backend == "cpu":
        raise UserError(
            "JAX sees no accelerator, only the CPU: install cfgjax[cuda] or cfgjax[tpu]; --small runs on the CPU, too"
        )


def cpu() -> jax.Device | None:
    """A device of the CPU backend, if there is one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
