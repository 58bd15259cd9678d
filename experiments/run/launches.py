"""A run's starts.jsonl: what started it, each time, and on what."""

import json
import platform
from datetime import UTC, datetime
from typing import Any

import jax

from experiments.config.schema import Experiment
from experiments.runtime import distributed
from experiments.runtime.matmul_precision import matmul_precision_of
from experiments.runtime.versions import with_python

NAME = "starts.jsonl"
PACKAGES = ("cfgjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """The installed versions of what a run's numbers come from."""
    return with_python(PACKAGES)


def devices() -> dict[str, Any]:
    """What all processes compute on."""
    return {
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def write(experiment: Experiment, command: str | None, step: int) -> None:
    """Appends a line about this start. That it cannot be written is said, and no reason not to train.

    Args:
        experiment: the run.
        command: the command line, or None where no command started the run.
        step: the run goes on from.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    on = {**devices(), "matmul_precision": matmul_precision_of(experiment)}
    row = {"time": at, "step": step, "command": command, **on, "versions": versions()}
    file = experiment.run_dir / NAME
    try:
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        distributed.warn(f"warning: {file}: {error.strerror}; this start is not written down")
