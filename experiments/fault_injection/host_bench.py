"""Runs on several hosts: disturbed, judged by how all of their processes end, started again, and compared."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any

from cfgjax import checkpoints
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.fault_injection import cluster, ends
from experiments.fault_injection.cluster import Cluster, End, Own
from experiments.fault_injection.hosts import Hosts
from experiments.run import folder as run_folder
from experiments.runtime.distributed import Launch
from experiments.runtime.peers import PeerFailedError

NUM_STEPS, SAVE_EVERY = 80, 10
SECONDS = 60.0
"""Within which all processes have ended that end because of a fault."""
LONGEST = 900.0
"""Within which a run that goes on has ended."""
_MOST_STARTS = 4
_NAMED = re.compile(r"process \d+|host-[a-d]")
_HELD = "has an owner elsewhere", "is being trained by"
"""What a start says that finds the folder's lock taken."""


def arguments_of(run_dir: Path, extra: Iterable[str] = (), preset: str = "mixture") -> list[str]:
    """A command line: a preset shrunk to seconds, with a save every SAVE_EVERY steps."""
    return [
        preset, "--run-dir", str(run_dir), "--num-steps", str(NUM_STEPS), "--save-every", str(SAVE_EVERY),
        "--batch-size", "32", "--log-every", "5", "--optimizer.warmup-steps", "5", "--network.width", "32",
        "--network.depth", "1", "--network.embedding-width", "16", "--sampling.num-steps", "4",
        "--sampling.num-per-class", "8", "--sampling.scales", "1", *extra,
    ]  # fmt: skip


@dataclass
class HostCount:
    """What came of one kind of fault on one of several hosts.

    Attributes:
        fault: what was done.
        injected: how often.
        went_on: how often all other processes ended as if there had been none.
        ended: how often all of them ended because of another, in time, each with a line that names it.
        refused: how often all of them ended with one line of error, before the first step or when nothing could be
            saved.
        unexpected: how often they ended in any other way, or too late.
        during_saves: how often a checkpoint was being written.
        lock_held: how often the run's lock held up the next start.
        steps_lost: steps that were saved whole and had to be done again.
        runs: how many runs it was done to.
        bit_equal: how many of these ended in the undisturbed state.
        longest: seconds from a fault to the end of the last process that ended because of it.
    """

    fault: str
    injected: int = 0
    went_on: int = 0
    ended: int = 0
    refused: int = 0
    unexpected: int = 0
    during_saves: int = 0
    lock_held: int = 0
    steps_lost: int = 0
    runs: int = 0
    bit_equal: int = 0
    longest: float = 0.0


def verdict(found: list[End], faulty: int | None) -> str:
    """went_on, ended or refused; or what is wrong with how the processes ended, one of which, or None, is at fault."""
    others = [end for end in found if not end.was_killed]
    codes = {end.code for end in others}
    if codes <= {0}:
        return "went_on"
    said = ", ".join(f"{end.index}: {end.code}" for end in found)
    if codes == {2}:
        unnamed = [end.index for end in others if not _NAMED.search(end.line)]
        return f"process {unnamed[0]} names nobody" if unnamed else "refused"
    if codes != {PeerFailedError.exit_code}:
        return f"exit codes {said}"
    late = [end.index for end in others if end.seconds > SECONDS]
    if late:
        return f"process {late[0]} ended after {found[late[0]].seconds:.0f} s"
    for end in others:
        wanted = _NAMED.pattern if faulty in (None, end.index) else rf"process {faulty}\b"
        if not re.search(wanted, end.line):
            return f"process {end.index} does not name the other: {end.line!r}"
    return "ended"


@dataclass(frozen=True)
class Settings:
    """Of all runs of a bench."""

    num_devices: int = 1
    heartbeat_seconds: float | None = None
    join_seconds: float | None = 45.0
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """What they add to a command line, of what the command knows."""
        known = {each.name for each in fields(Launch)}
        given = {"heartbeat_seconds": self.heartbeat_seconds, "join_seconds": self.join_seconds}
        words = [(f"--{name.replace('_', '-')}", f"{value:g}") for name, value in given.items() if value is not None]
        return [*self.extra, *(word for pair in words if pair[0][2:].replace("-", "_") in known for word in pair)]


_NO_MORE: Mapping[str, Any] = {}
Fault = Callable[[Cluster], float | None]
"""Does something to a run; gives when, on the monotonic clock, or None where the run had ended before."""


@dataclass
class Bench:
    """Disturbs runs on the same hosts.

    Attributes:
        made: the hosts.
        out: folder of the runs.
        settings: of all of them.
        rng: of all that is random.
        on_fault: called after each fault.
        failures: what did not end as it should.
    """

    made: Hosts
    out: Path
    settings: Settings
    rng: Random
    on_fault: Callable[[], object] = lambda: None
    failures: list[Mapping[str, Any]] = field(default_factory=list)
    _number: int = 0
    _undisturbed: dict[tuple[str, ...], Path] = field(default_factory=dict)

    def new(self, folder: Path | None = None) -> Path:
        """A folder for another run."""
        self._number += 1
        return (folder or self.out) / f"run-{self._number}"

    def host(self) -> int:
        """One of the hosts, at random."""
        return self.rng.randrange(len(self.made.each))

    @contextlib.contextmanager
    def started(
        self, run_dir: Path, extra: tuple[str, ...] = (), own: dict[int, Own] | None = None
    ) -> Iterator[Cluster]:
        """A run's processes on all hosts, ended when the context is left."""
        preset = "digits" if "--data-dir" in extra else "mixture"
        words = [*arguments_of(run_dir, extra, preset), *self.settings.arguments()]
        running = cluster.start(self.made, self.out / f"{run_dir.name}.logs", words, self.settings.num_devices, own)
        try:
            yield running
        finally:
            running.kill()

    def _undisturbed_by(self, extra: tuple[str, ...]) -> Path:
        """An undisturbed run with these arguments, made once."""
        if extra not in self._undisturbed:
            run_dir = self.out / f"undisturbed-{len(self._undisturbed)}"
            with self.started(run_dir, extra) as running:
                found = running.ends(time.monotonic(), LONGEST)
            bad = next((end for end in found if end.code != 0), None)
            if bad is not None:
                raise UserError(f"the undisturbed run did not end: process {bad.index}: {bad.code}: {bad.line}")
            self._undisturbed[extra] = run_dir
        return self._undisturbed[extra]

    def attempt(
        self,
        run_dir: Path,
        count: HostCount,
        fault: Fault | None = None,
        faulty: int | None = 0,
        extra: tuple[str, ...] = (),
        own: dict[int, Own] | None = None,
        may_fall_back: bool = False,
    ) -> list[End]:
        """Starts a run, lets it be disturbed, and judges how its processes end."""
        folder, began = run_folder.checkpoints_of(run_dir), time.time()
        saved = checkpoints.latest_step(folder) or 0
        with self.started(run_dir, extra, own) as running:
            at = None if fault is None else fault(running)
            found = running.ends(at or time.monotonic(), LONGEST)
        resumed = ends.resumed_at(running.text(0, 0)) if saved else 0
        if resumed is None and (checkpoints.latest_step(folder) or 0) != saved:
            resumed = 0
        if resumed is not None and not may_fall_back:
            count.steps_lost += max(0, saved - resumed)
        is_held = any(words in running.text(0, 1) for words in _HELD)
        count.lock_held += is_held
        if at is not None:
            count.during_saves += bool(ends.temporaries(folder, began))
            self._judge(count, found, faulty, run_dir, running)
        return found

    def _judge(self, count: HostCount, found: list[End], faulty: int | None, run_dir: Path, running: Cluster) -> None:
        count.injected += 1
        self.on_fault()
        result = verdict(found, faulty)
        if result in ("went_on", "ended", "refused"):
            setattr(count, result, getattr(count, result) + 1)
        else:
            phases = [running.phase(each) for each in range(len(running.processes))]
            lines = [running.text(each, 1)[-1500:] for each in range(len(running.processes))]
            more = {"host": faulty, "phases": phases, "ends": [vars(end) for end in found], "stderr": lines}
            self.fail(count, result, run_dir, more)
        caused = [end.seconds for end in found if end.code == PeerFailedError.exit_code]
        count.longest = round(max([count.longest, *caused]), 1)

    def fail(self, count: HostCount, what: str, run_dir: Path, more: Mapping[str, Any] = _NO_MORE) -> None:
        """Says, and keeps for hosts.json, what did not go as it should."""
        count.unexpected += 1
        cli.warn(f"{count.fault}, {run_dir}: {what}")
        self.failures.append({"fault": count.fault, "run": str(run_dir), "what": what, **more})

    def finish(self, run_dir: Path, count: HostCount, found: list[End], extra: tuple[str, ...] = ()) -> None:
        """Lets the run end, unless it has, and compares it."""
        for _ in range(_MOST_STARTS):
            if all(end.code == 0 for end in found):
                break
            found = self.attempt(run_dir, count, extra=extra)
            bad = next((end for end in found if end.code != 0), None)
            if bad is not None:
                what = f"a start without a fault ended with {bad.code}: process {bad.index}: {bad.line}"
                self.fail(count, what, run_dir)
        count.runs += 1
        if all(end.code == 0 for end in found):
            count.bit_equal += ends.is_equal(run_dir, self._undisturbed_by(extra))
