"""Where a training run is: a place in its code for each phase, at which this process can be disturbed.

A disturbance comes with the event itself, whatever the speed of the machine.
"""

import functools
import importlib
import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from cfgjax import checkpoints
from experiments.run import fit, loop
from experiments.run.checkpointing import Saver


def _command() -> Any:
    """The command, which no part of another one imports as it is imported itself."""
    return importlib.import_module("experiments.train")


PHASES: dict[str, tuple[Callable[[], Any], str]] = {
    "start": (lambda: _command().distributed, "start"),
    "join": (lambda: jax.distributed, "initialize"),
    "read": (lambda: fit, "task_of"),
    "restore": (lambda: checkpoints, "restore"),
    "compile": (lambda: loop, "_programs_of"),
    "step": (lambda: loop._Logger, "log"),
    "save": (lambda: Saver, "save"),
    "verify": (lambda: checkpoints.Writer, "_verify"),
    "last save": (lambda: Saver, "finish"),
    "report": (_command, "report"),
}
"""Phase to what is called as it begins: module or class, and name. A checkpoint is verified in the background."""


def before(phase: str, work: Callable[[], object], number: int = 1) -> None:
    """Lets work be done in this process just before the phase begins for the ``number``-th time."""
    owner_of, name = PHASES[phase]
    owner = owner_of()
    called, calls = getattr(owner, name), []

    @functools.wraps(called)
    def disturbed(*args: Any, **named: Any) -> Any:
        calls.append(phase)
        if len(calls) == number:
            work()
        return called(*args, **named)

    setattr(owner, name, disturbed)


class Signal(NamedTuple):
    """A signal that a process sends to itself, as of a cluster that takes its machine back."""

    phase: str
    number: int = 1
    to: tuple[int, ...] | None = None
    each_later: int = 0
    sent: signal.Signals = signal.SIGTERM
    times: int = 1

    def __call__(self, index: int) -> None:
        """Prepares the signal in the process of an index, if it is one of those ``to`` which it is sent, None for all.

        Process i gets it at the phase's beginning of that number, and ``each_later`` more for each of the i before it.
        """
        if self.to is None or index in self.to:
            before(self.phase, self._send, self.number + index * self.each_later)

    def _send(self) -> None:
        for _ in range(self.times):
            os.kill(os.getpid(), self.sent)
