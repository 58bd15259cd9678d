"""The processes of one command on this machine, as if each were a host: started together, joined by the loopback."""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import jax

from experiments.cli.main import UserError

SECONDS = 600.0
"""Within which all processes of a command must have ended."""

Disturb = Callable[[int], object]
"""What is done in each process, told its index, before its command begins."""


class Hosts(NamedTuple):
    """So many processes, and how many devices each of them has."""

    num_processes: int
    num_devices: int

    def __str__(self) -> str:
        return f"{self.num_processes} x {self.num_devices}"


def free_port() -> int:
    """A port on the loopback at which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Command(NamedTuple):
    """What one process does."""

    index: int
    hosts: Hosts
    port: int
    arguments: tuple[str, ...]
    log: Path
    disturb: Disturb | None

    def __call__(self) -> None:
        """Runs the command in this process."""
        sys.stdout = sys.stderr = self.log.open("a", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        os.environ["PJRT_NPROC"] = "16"
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", self.hosts.num_devices)
        if self.disturb is not None:
            self.disturb(self.index)
        launch = ["--coordinator", f"127.0.0.1:{self.port}", "--num-processes", str(self.hosts.num_processes)]
        together = [*launch, "--process-id", str(self.index)] if self.hosts.num_processes > 1 else []
        try:
            importlib.import_module("experiments.train").main([*self.arguments, *together])
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None
        finally:
            atexit._run_exitfuncs()  # which a forked process would leave out, JAX's farewell to the others among them


def start(hosts: Hosts, arguments: Sequence[str], log: Path, disturb: Disturb | None = None) -> list[BaseProcess]:
    """The processes of ``experiments.train`` with these arguments; each appends what it says to LOG.INDEX."""
    context, port = multiprocessing.get_context("forkserver"), free_port()
    context.set_forkserver_preload([__name__, "experiments.train"])
    started: list[BaseProcess] = []
    for index in range(hosts.num_processes):
        its_log = log.with_name(f"{log.name}.{index}")
        command = _Command(index, hosts, port, tuple(map(str, arguments)), its_log, disturb)
        process = context.Process(target=command)
        process.start()
        started.append(process)
    return started


def codes(processes: Sequence[BaseProcess], seconds: float = SECONDS) -> list[int | None]:
    """The exit codes of all processes, once all have ended; None of those that had not in time, and are killed."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    found = [process.exitcode for process in processes]
    for process in processes:
        with contextlib.suppress(ValueError):
            process.kill()
        process.join()
    return found


def run(hosts: Hosts, arguments: Sequence[str], log: Path, expected: int, disturb: Disturb | None = None) -> None:
    """Lets the processes of a command end.

    Raises:
        UserError: one of them does not end with the exit code that is expected.
    """
    found = codes(start(hosts, arguments, log, disturb))
    if set(found) != {expected}:
        raise UserError(f"{hosts}: exit codes {found}, expected {expected} of all; see {log}.*")
