"""Signals to one process of several, or to all of them, at every phase of a run: all end alike, and nothing is lost."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cfgjax import checkpoints
from experiments.cli.main import UserError
from experiments.fault_injection import differences, loopback
from experiments.fault_injection.loopback import Hosts
from experiments.fault_injection.phases import Signal
from experiments.run import folder as run_folder
from experiments.runtime.signals import StoppedError

SETTINGS = (
    *("mixture", "--network.width=16", "--network.depth=1", "--network.embedding-width=8", "--num-steps=40"),
    *("--batch-size=32", "--num-microbatches=1", "--save-every=10", "--log-every=5", "--sampling.num-steps=4"),
    *("--sampling.num-per-class=4", "--sampling.scales", "2"),
)
"""A run of seconds."""


class Stop(NamedTuple):
    """A signal at a phase, and what came of it.

    Attributes:
        sent: the signal.
        codes: with which the processes ended.
        saved: the newest step that was saved then.
    """

    sent: Signal
    codes: list[int | None]
    saved: int


def in_turn(to: tuple[int, ...] | None, each_later: int = 0) -> tuple[Signal, ...]:
    """A signal at each phase of a run's life, one after another, each at a later step than the one before.

    A run of 40 steps with a save every 10: its saves begin after steps 10, 20, 30 and 40. Process 0 alone verifies.
    """
    sigterm, sigint = signal.SIGTERM, signal.SIGINT
    return (
        Signal("start", 1, to),
        Signal("join", 1, to),
        Signal("read", 1, to, sent=sigint),
        Signal("compile", 1, to),
        Signal("step", 4, to, each_later),
        Signal("save", 1, to, times=2),
        Signal("verify", 1, None if to is None else (0,)),
        Signal("restore", 1, to),
        Signal("step", 4, to, each_later, sent=sigint),
        Signal("last save", 1, to, sent=sigterm),
        Signal("report", 1, to),
        Signal("report", 1, to, sent=sigint),
    )


class Stops:
    """Runs of SETTINGS on hosts that are processes of this machine, in a folder of their own.

    Args:
        out: the folder, new or empty.
        hosts: how many processes, and devices of each.
    """

    def __init__(self, out: Path, hosts: Hosts) -> None:
        self._out, self._hosts = out, hosts
        run_folder.make_folder("out", out)
        self._unstopped = out / "unstopped"
        loopback.run(hosts, self._arguments(self._unstopped), out / "unstopped.log", 0)

    def _arguments(self, run_dir: Path) -> tuple[str, ...]:
        return *SETTINGS, "--run-dir", str(run_dir)

    def stop(self, run_dir: Path, sent: Signal) -> Stop:
        """What comes of a signal to the processes of a run's next start."""
        log = self._out / f"{run_dir.name}.log"
        found = loopback.codes(loopback.start(self._hosts, self._arguments(run_dir), log, sent))
        return Stop(sent, found, checkpoints.latest_step(run_folder.checkpoints_of(run_dir)) or 0)

    def all(self, signals: Sequence[Signal], name: str = "stopped") -> Iterator[Stop]:
        """Sends one signal after another to the starts of one run, and lets it end.

        Raises:
            UserError: processes that do not all end with the exit code of a run that was asked to stop, a saved step
                that is lost, or an end that is not, bit by bit, that of a run that was not stopped.
        """
        run_dir, before = self._out / name, 0
        for sent in signals:
            stop = self.stop(run_dir, sent)
            if set(stop.codes) != {StoppedError.exit_code} or stop.saved < before:
                raise UserError(f"{stop}, after step {before} was saved; see {self._out}")
            before = stop.saved
            yield stop
        loopback.run(self._hosts, self._arguments(run_dir), self._out / f"{name}.log", 0)
        step = checkpoints.latest_step(run_folder.checkpoints_of(self._unstopped)) or 0
        pair = run_dir, self._unstopped
        apart = differences.losses(*pair, step), differences.states(*pair, step), differences.reports(*pair)
        if any(apart):
            raise UserError(f"the end of {run_dir} is not that of a run that was not stopped: {apart}")
