"""A run's starts.jsonl: what started it, each time, and on what."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from cfgjax.data import DataError, read_bounded, require_inside
from experiments.cli.main import plain
from experiments.config.schema import Experiment
from experiments.run import metrics_log
from experiments.runtime import distributed
from experiments.runtime.matmul_precision import matmul_precision_of
from experiments.runtime.versions import with_python

NAME = "starts.jsonl"
_MOST_BYTES, _LONGEST = 2**26, 1024
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


def write(experiment: Experiment, command: str | None, step: int, autoencoder: Path | None = None) -> None:
    """Appends a line about this start. That it cannot be written is said, and no reason not to train.

    Args:
        experiment: the run.
        command: the command line, or None where no command started the run.
        step: the run goes on from.
        autoencoder: that shows its latents as pictures; None where there is none.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    on = {**devices(), "matmul_precision": matmul_precision_of(experiment)}
    row = {"time": at, "step": step, "command": command, **on, "versions": versions()}
    row |= {} if autoencoder is None else {"autoencoder": str(autoencoder)}
    file = experiment.run_dir / NAME
    try:
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        distributed.warn(f"warning: {file}: {error.strerror}; this start is not written down")


def last_autoencoder(run_dir: Path) -> str | None:
    """The autoencoder of a run's newest start with one, as it was named; None where there is none."""
    file = run_dir / NAME
    try:
        lines = read_bounded(require_inside(file, run_dir), _MOST_BYTES).decode(errors="replace").splitlines()
    except (DataError, OSError):
        return None
    named = [row.get("autoencoder") for row in map(metrics_log.row_of, lines) if row is not None]
    texts = [name for name in named if isinstance(name, str)]
    return plain(texts[-1])[:_LONGEST] if texts else None


def autoencoder_hint(run_dir: Path) -> str:
    """What to add to a command on a run of latents that is to give pictures."""
    name = last_autoencoder(run_dir)
    if name is None:
        return "add --autoencoder PATH, the weights or the run that encoded them, to see and measure them as pictures"
    return f"add --autoencoder {name}, as the run was started before, to see and measure them as pictures"
