"""One command on several hosts: started together, watched, and waited for within a bound."""

import atexit
import contextlib
import functools
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from jax._src import compilation_cache, compiler

from cfgjax import checkpoints
from experiments.evaluation import mixture
from experiments.fault_injection import forkserver, namespaces
from experiments.fault_injection.hosts import Host, Hosts
from experiments.fault_injection.loopback import free_port
from experiments.run import fit, loop
from experiments.runtime import distributed

PHASES = "start", "join", "restore", "compile", "step", "save", "report"
"""What a process of a run does, in turn; it steps and saves often."""
_SHORT_REPORT = {"NUM_STATES": 64, "NUM_DENSITY_SAMPLES": 64, "TIMES": (0.5,)}
_LONGEST = 400
"""Characters of a last line."""


@dataclass(frozen=True)
class Own:
    """What is another's on one host alone.

    Attributes:
        arguments: added to its command line.
        first_on_path: a folder of packages before all others.
        wall_shift: seconds by which its time of day is ahead.
        bound: (file or folder, the one over which it lies).
        read_only: folders that it cannot write to.
        monotonic_shift: seconds by which its monotonic clock is ahead.
    """

    arguments: tuple[str, ...] = ()
    first_on_path: Path | None = None
    wall_shift: float = 0.0
    bound: tuple[tuple[Path, Path], ...] = ()
    read_only: tuple[Path, ...] = ()
    monotonic_shift: int = 0


NOTHING = Own()


def _marked(work: Callable[..., Any], mark: Callable[[str], None], phase: str) -> Callable[..., Any]:
    @functools.wraps(work)
    def marked(*args: Any, **settings: Any) -> Any:
        mark(phase)
        return work(*args, **settings)

    return marked


def _mark_phases(train: ModuleType, file: Path) -> None:
    """Lets this process leave in a file what it begins to do, a line each."""
    stream = file.open("ab", buffering=0)
    last = ""

    def mark(phase: str) -> None:
        nonlocal last
        if phase != last:
            stream.write(f"{phase}\n".encode())
        last = phase

    marks: list[tuple[Any, str, str]] = [
        (distributed, "start", "join"), (fit, "_resumed", "restore"), (fit, "advance", "compile"),
        (loop._Logger, "log", "step"), (checkpoints.Writer, "save", "save"), (train, "report", "report"),
    ]  # fmt: skip
    for owner, name, phase in marks:
        setattr(owner, name, _marked(getattr(owner, name), mark, phase))
    mark("start")


def _keep_programs() -> None:
    """Lets this process keep what it compiles: of several JAX lets the first alone, and all others compile anew."""

    def write(
        cache_key: str,
        compile_time_secs: float,
        module_name: str,
        backend: Any,
        executable: Any,
        host_callbacks: Sequence[Any],
    ) -> None:
        if not host_callbacks:
            compilation_cache.put_executable_and_time(
                cache_key, module_name, executable, backend, int(compile_time_secs)
            )

    compiler._cache_write = write


def _train(host: Host, own: Own, arguments: list[str], num_devices: int, files: tuple[Path, Path, Path]) -> None:
    """Runs the command as on its host, in a process that was forked for it, and ends as the command does."""
    namespaces.end_with_parent()
    os.setsid()  # Ctrl-C is for the bench, which ends it
    out, err, phases = files
    sys.stdout, sys.stderr = out.open("a", buffering=1), err.open("a", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    if host.place is not None:
        place = replace(host.place, bound=(*host.place.bound, *own.bound), read_only=own.read_only)
        namespaces.enter(replace(place, monotonic_shift=own.monotonic_shift))
    namespaces.shift_wall_clock(own.wall_shift)
    if own.first_on_path is not None:
        sys.path.insert(0, str(own.first_on_path))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", num_devices)
    for name, value in _SHORT_REPORT.items():
        setattr(mixture, name, value)
    _keep_programs()
    train = importlib.import_module("experiments.train")
    _mark_phases(train, phases)
    try:
        train.main([*arguments, *own.arguments])
    finally:
        atexit._run_exitfuncs()  # as at the end of a command, which a forked process leaves out


@dataclass
class End:
    """How a process ended.

    Attributes:
        index: of its host.
        code: its exit code; None where it did not end within the bound, and was killed.
        seconds: from the fault to its end.
        line: the last of what it wrote to standard error.
        was_killed: whether that was the fault.
    """

    index: int
    code: int | None
    seconds: float
    line: str
    was_killed: bool = False


def last_line(text: str) -> str:
    """The last line that says anything.

    >>> last_line("warning: slow\\nerror: gone\\n\\n")
    'error: gone'
    """
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")[:_LONGEST]


@dataclass
class Cluster:
    """The processes of one command, one for each host."""

    logs: tuple[tuple[Path, Path, Path], ...]
    processes: list[BaseProcess] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    woken: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    def phase(self, index: int) -> str:
        """What the process of a host does."""
        with contextlib.suppress(OSError):
            return last_line(self.logs[index][2].read_text()) or PHASES[0]
        return PHASES[0]

    def others(self, index: int) -> list[int]:
        """All hosts but one."""
        return [each for each in range(len(self.processes)) if each != index]

    def is_alive(self) -> bool:
        """Whether all of its processes run."""
        return all(process.is_alive() for process in self.processes)

    def count(self, index: int, phase: str) -> int:
        """How often the process of a host has begun a phase."""
        with contextlib.suppress(OSError):
            return self.logs[index][2].read_text().splitlines().count(phase)
        return 0

    def wait(self, event: Callable[[], bool], seconds: float) -> bool:
        """Waits for an event while all processes run; whether it came."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.is_alive():
            if event():
                return True
            time.sleep(0.005)
        return False

    def send(self, index: int, number: signal.Signals) -> bool:
        """Sends a signal to a host's process; False where it has ended."""
        process = self.processes[index]
        if not process.is_alive() or process.pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if number == signal.SIGKILL:
            self.killed.add(index)
        if number == signal.SIGCONT:
            self.woken[index] = time.monotonic()
        return True

    def limit_files(self, index: int, size: int) -> None:
        """Lets a host's process write no file beyond a size, as on a full disk."""
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self.processes[index].pid or 0, resource.RLIMIT_FSIZE, (size, size))

    def await_ends(self, only: Sequence[int], seconds: float) -> bool:
        """Waits until the processes of some hosts have ended, for so many seconds at most; whether they have."""
        until = time.monotonic() + seconds
        while True:
            for index in only:
                if not self.processes[index].is_alive():
                    self.ended.setdefault(index, time.monotonic())
            if self.ended.keys() >= set(only) or time.monotonic() >= until:
                return self.ended.keys() >= set(only)
            time.sleep(0.01)

    def ends(self, since: float, seconds: float) -> list[End]:
        """How all processes end; those that do not within so many seconds from now are killed.

        Args:
            since: the fault, on the monotonic clock; of a process that was woken after it, that.
            seconds: for all of them.
        """
        everyone = range(len(self.processes))
        self.await_ends(everyone, seconds)
        self.kill()
        return [self._end(index, since) for index in everyone]

    def _end(self, index: int, since: float) -> End:
        has_ended = index in self.ended
        after = self.ended.get(index, time.monotonic()) - max(since, self.woken.get(index, since))
        code = self.processes[index].exitcode if has_ended else None
        return End(index, code, round(after, 1), self.stderr(index), index in self.killed)

    def stderr(self, index: int) -> str:
        """The last line that a host's process wrote to standard error."""
        return last_line(self.text(index, 1))

    def text(self, index: int, stream: int) -> str:
        """What a host's process wrote, to standard output (0) or error (1)."""
        with contextlib.suppress(OSError):
            return self.logs[index][stream].read_bytes().decode(errors="replace")
        return ""

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(30)


def start(
    made: Hosts, folder: Path, arguments: Sequence[str], num_devices: int = 1, own: dict[int, Own] | None = None
) -> Cluster:
    """The training command started on all hosts.

    Args:
        made: the hosts.
        folder: for what their processes say, made if need be; what is there already is removed.
        arguments: of the command, beside those by which its processes find each other.
        num_devices: of each process.
        own: what is another's on some hosts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [[folder / f"{host.name}.{kind}" for kind in ("out", "err", "phases")] for host in made.each]
    for file in (file for each in names for file in each):
        file.unlink(missing_ok=True)
    cluster = Cluster(tuple((out, err, phases) for out, err, phases in names))
    context = forkserver.context()
    address = f"{made.each[0].address}:{free_port()}"
    launch = ["--coordinator", address, "--num-processes", str(len(made.each))]
    for host, files in zip(made.each, cluster.logs, strict=True):
        its = [*arguments, *launch, "--process-id", str(host.index)]
        process = context.Process(
            target=_train, args=(host, (own or {}).get(host.index, NOTHING), its, num_devices, files), daemon=True
        )
        process.start()
        cluster.processes.append(process)
    return cluster
