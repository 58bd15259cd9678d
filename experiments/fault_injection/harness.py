"""Subprocess harness for fault injection: runs are disturbed, started again, and compared with an undisturbed one."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cfgjax import checkpoints
from experiments.cli.main import UserError
from experiments.fault_injection import ends, subprocesses
from experiments.fault_injection.disks import fill, remount, small_disk
from experiments.run import folder as run_folder
from experiments.runtime.signals import SIGNALS, StoppedError

STARTING = 0.25
"""The share of the signals sent in a process' first 1.5 s; the others are sent within 1.5 s of its first save."""

EXPECTED = {signal.SIGKILL: -signal.SIGKILL, **dict.fromkeys(SIGNALS, StoppedError.exit_code)}
"""The exit code that answers a signal."""


@dataclass
class Count:
    """What came of one kind of fault.

    Attributes:
        fault: what was done.
        injected: how often.
        recovered: how often the run then continued from its newest whole checkpoint.
        during_saves: how often a checkpoint was being written.
        refused: how often a process ended in one line of error instead of losing anything.
        unexpected: how often a process ended in another way than it should.
        fell_back: how often the newest checkpoint was corrupt so that the run continued from the one before.
        steps_lost: steps that were saved whole and had to be done again.
        runs: how many runs it was done to.
        bit_equal: how many of these ended in the undisturbed state.
    """

    fault: str
    injected: int = 0
    recovered: int = 0
    during_saves: int = 0
    refused: int = 0
    unexpected: int = 0
    fell_back: int = 0
    steps_lost: int = 0
    runs: int = 0
    bit_equal: int = 0


def _await_save(folder: Path, process: BaseProcess, since: float) -> None:
    """Waits until the process, which began at a time, begins to write a checkpoint."""
    while process.is_alive() and not ends.temporaries(folder, since):
        time.sleep(0.002)


def _resumed_at(log: Path, start: int) -> int | None:
    """The step at which a process resumed, whose log begins at ``start``."""
    with log.open("rb") as stream:
        stream.seek(start)
        return ends.resumed_at(stream.read().decode(errors="replace"))


class Harness:
    """Injects faults into runs in one folder, new or empty, and compares their ends with an undisturbed run's."""

    def __init__(self, out: Path, seed: int, on_fault: Callable[[], object] = lambda: None) -> None:
        """Lets the undisturbed run end; ``on_fault`` is called after each fault.

        Raises:
            UserError: an undisturbed run that does not end.
        """
        self._out, self._random, self._number, self._on_fault = out, random.Random(seed), 0, on_fault
        self._unjudged, self._resumed = 0, 0
        self._undisturbed = out / "undisturbed"
        run_folder.make_folder("out", out)
        process = subprocesses.start(subprocesses.experiment_of(self._undisturbed), self._log(self._undisturbed))
        process.join()
        if process.exitcode != 0:
            raise self._error("the undisturbed run did not end", self._undisturbed, process.exitcode)

    def _log(self, run_dir: Path) -> Path:
        return self._out / f"{run_dir.name}.log"

    def _error(self, what: str, run_dir: Path, code: int | None) -> UserError:
        return UserError(f"{what}: exit code {code}, see {self._log(run_dir)}")

    def _new(self, folder: Path | None = None) -> Path:
        self._number += 1
        return (folder or self._out) / f"run-{self._number}"

    def _run_once(self, run_dir: Path, count: Count, disturb: Callable[[BaseProcess], Any] | None = None) -> int:
        """The exit code of a run's next process, whose beginning shows whether it recovered from earlier faults."""
        log, folder = self._log(run_dir), run_folder.checkpoints_of(run_dir)
        saved, start = checkpoints.latest_step(folder) or 0, log.stat().st_size if log.exists() else 0
        process = subprocesses.start(subprocesses.experiment_of(run_dir), log)
        if disturb is not None:
            disturb(process)
        process.join()
        resumed = _resumed_at(log, start) if saved else 0
        if resumed is None and (process.exitcode == 0 or (checkpoints.latest_step(folder) or 0) != saved):
            resumed = 0  # it went on, and not from what was saved
        if resumed is not None:
            self._resumed = resumed
            count.recovered += self._unjudged * (resumed == saved)
            count.steps_lost += max(0, saved - resumed)
            self._unjudged = 0
        return process.exitcode or 0

    def _finish(self, run_dir: Path, count: Count) -> None:
        """Lets the run end, and compares it."""
        code = self._run_once(run_dir, count)
        if code != 0:
            raise self._error("a run did not end", run_dir, code)
        count.runs += 1
        count.bit_equal += ends.is_equal(run_dir, self._undisturbed)

    def _inject(self, count: Count) -> None:
        count.injected += 1
        self._unjudged += 1
        self._on_fault()

    def signals(self, number: signal.Signals, times: int) -> Count:
        """Signals at random moments, until so many are done and the last run has ended."""
        count, run_dir = Count(number.name), self._new()
        folder = run_folder.checkpoints_of(run_dir)

        def send(process: BaseProcess) -> None:
            subprocesses.await_owner(run_dir, process)
            if self._random.random() > STARTING:
                _await_save(folder, process, began)
            time.sleep(self._random.uniform(0, 1.5))
            subprocesses.send(process, number)

        while count.injected < times:
            began = time.time()
            code = self._run_once(run_dir, count, send)
            if code != 0:
                self._inject(count)
                count.unexpected += code != EXPECTED[number]
                count.during_saves += bool(ends.temporaries(folder, began))
                continue
            count.runs += 1
            count.bit_equal += ends.is_equal(run_dir, self._undisturbed)
            run_dir = self._new()
            folder = run_folder.checkpoints_of(run_dir)
        self._finish(run_dir, count)
        return count

    def _partial(self, run_dir: Path) -> None:
        """A run that was stopped on its way, at least two checkpoints old."""
        process, folder = (
            subprocesses.start(subprocesses.experiment_of(run_dir), self._log(run_dir)),
            run_folder.checkpoints_of(run_dir),
        )
        while process.is_alive() and len(checkpoints.all_steps(folder)) < 2:
            time.sleep(0.02)
        subprocesses.send(process, signal.SIGTERM)
        process.join()
        if len(checkpoints.all_steps(folder)) < 2:
            raise self._error("a run did not save twice", run_dir, process.exitcode)

    def damages(self, times: int) -> Count:
        """Damages of one file of the newest checkpoint; the run goes on from it where it reads, else from the next."""
        count, original = Count("newest checkpoint corrupt"), self._new()
        self._partial(original)
        newest, before = checkpoints.all_steps(run_folder.checkpoints_of(original))[:2]
        for _ in range(times):
            run_dir = self._new()
            shutil.copytree(original, run_dir)
            folder = run_folder.checkpoints_of(run_dir) / str(newest)
            damage(self._random.choice(sorted(file for file in folder.rglob("*") if file.is_file())), self._random)
            self._finish(run_dir, count)
            count.injected += 1
            self._on_fault()
            count.recovered += self._resumed in (newest, before)
            if self._resumed == before:
                count.fell_back += 1
                count.steps_lost -= newest - before
            shutil.rmtree(run_dir)
        return count

    def full_disks(self, times: int) -> Count:
        """Disks that fill under a run while it goes on; space is made before it is started again."""
        count = Count("disk full")
        for _ in range(times):
            with small_disk(self._out / "disk") as disk:
                run_dir = self._new(disk)

                def spoil(process: BaseProcess, disk: Path = disk, run_dir: Path = run_dir) -> None:
                    while process.is_alive() and checkpoints.latest_step(run_folder.checkpoints_of(run_dir)) is None:
                        time.sleep(0.02)
                    time.sleep(self._random.uniform(0, 0.5))
                    while process.is_alive():
                        fill(disk)
                        time.sleep(0.01)

                count.refused += self._run_once(run_dir, count, spoil) == 2
                self._inject(count)
                (disk / "filler").unlink()
                self._finish(run_dir, count)
        return count

    def read_only_disks(self, times: int) -> Count:
        """Disks that are read-only when a run is started again."""
        count = Count("disk read-only")
        for _ in range(times):
            with small_disk(self._out / "disk") as disk:
                run_dir = self._new(disk)
                self._partial(run_dir)
                remount(disk, "ro")
                self._inject(count)
                count.refused += self._run_once(run_dir, count) == 2
                remount(disk, "rw")
                self._finish(run_dir, count)
        return count


def damage(file: Path, rng: random.Random) -> None:
    """Removes the file, cuts it, or flips one of its bits."""
    content = file.read_bytes()
    kind = rng.choice(("remove", "cut", "flip", "flip"))
    if kind == "remove" or not content:
        file.unlink()
        return
    place = rng.randrange(len(content))
    flipped = content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    file.write_bytes(content[:place] if kind == "cut" else flipped)
