"""A run's starts.jsonl: what started it, each time, and on what."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from experiments.runtime import distributed

NAME = "starts.jsonl"
PACKAGES = ("cfgjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """The installed versions of what a run's numbers come from."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def devices() -> dict[str, Any]:
    """What all processes compute on."""
    return {
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def write(run_dir: Path, command: str | None, step: int) -> None:
    """Appends a line about this start. That it cannot be written is said, and no reason not to train.

    Args:
        run_dir: the run's folder.
        command: the command line, or None where no command started the run.
        step: the run goes on from.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"time": at, "step": step, "command": command, **devices(), "versions": versions()}
    try:
        with (run_dir / NAME).open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        distributed.warn(f"warning: {run_dir / NAME}: {error.strerror}; this start is not written down")
