"""What is compared between the processes of a command before its first step, each thing as soon as it is known."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax

from experiments.config.schema import Experiment
from experiments.run import launches
from experiments.run.folder import flat
from experiments.runtime import host_facts
from experiments.runtime.alike import Facts, require_alike
from experiments.runtime.distributed import Launch
from experiments.tasks import digests
from experiments.tasks.task import TaskFacts

_COMMAND = "start all processes by one command line, of which --process-id and folders alone may differ"
_OWN_TO_A_HOST = {"run_dir", "data_dir", "out"}
"""Folders that each process has where its host has them; what lies in them is compared."""


def _texts(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """Settings as texts, by the names by which they are given; of a path of the command line whether it is given."""
    named = {name: value for name, value in flat(settings).items() if name not in _OWN_TO_A_HOST}
    return {name: "given" if isinstance(value, Path) else repr(value) for name, value in named.items()}


def require_same_start(options: Any) -> None:
    """Compares versions, code, settings of JAX and the environment, options beside the experiment's, and devices.

    Args:
        options: the command's, a dataclass with its ``launch``.

    Raises:
        UserError: the processes differ.
    """
    if not jax.distributed.is_initialized():
        return
    launch: Launch = options.launch
    given = {name: value for name, value in asdict(options).items() if name not in ("experiment", "launch")}
    given["heartbeat_seconds"] = launch.heartbeat_seconds
    count = None if launch.num_processes is None else str(launch.num_processes)
    require_alike(
        "start",
        Facts("install the same versions on every host", host_facts.versions(launches.PACKAGES)),
        Facts("put the same code on every host", host_facts.code()),
        Facts("start all processes in the same environment", host_facts.settings(os.environ)),
        Facts(_COMMAND, {"num_processes": count, **_texts(given)}),
    )
    require_alike("devices", Facts("give every process as many devices of one kind", host_facts.devices()))


def require_same_settings(experiment: Experiment) -> None:
    """Compares all settings but the folders.

    Raises:
        UserError: the processes differ.
    """
    require_alike("settings", Facts(_COMMAND, _texts(asdict(experiment))))


def require_same_data(experiment: Experiment, task: TaskFacts) -> None:
    """Compares the settings once the data and the run's folder were read, and the digests of the data.

    Raises:
        UserError: the processes differ.
    """
    found = {called: getattr(task, name.removeprefix("data."), None) for name, called in digests.NAMES.items()}
    texts = {f"the digest of the {called} data": text for called, text in found.items()}
    mend = "put the same prepared data into data_dir of every host"
    past = "put run_dir, and what the run begins with, on a disk that all hosts share"
    require_alike("data", Facts(mend, texts), Facts(past, _texts(asdict(experiment))))
