"""The other processes of a command: who they are, what each does, and how all of them end when one fails.

With one process all of it costs nothing and changes nothing.
"""

import contextlib
import json
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from cfgjax.checkpoints import CheckpointError
from cfgjax.checkpoints.errors import is_of_system
from cfgjax.data import DataError
from experiments.cli import broken_pipe
from experiments.cli import main as cli
from experiments.cli.main import EndingError
from experiments.runtime import coordination, heartbeats
from experiments.runtime.watch import Watch

_OF_OTHERS = "gloo", "nccl", "coordination", "barrier", "unavailable", "deadline_exceeded", "connection", "socket"
_MOST_LETTERS = 300
_POLL = 0.05


class PeerFailedError(EndingError):
    """Another process of this command failed; the message names it, what it last did and what to start again.

    The exit code is EX_PROTOCOL of sysexits.h, beside EX_TEMPFAIL of a run that was asked to stop: both are mended by
    another start.
    """

    exit_code = heartbeats.FAILED


class _Command:
    """This process's part in its command."""

    watch: Watch | None = None
    hosts: Sequence[str] = ()


def begin(limit: float, stuck: float) -> None:
    """Begins to watch the others, once this process has joined them.

    Args:
        limit: seconds of silence after which a process is held to be dead, or cut off.
        stuck: seconds for which one may do the same while others do something else.

    Raises:
        TimeoutError: process 0 is not heard at all.
    """
    index, number = coordination.place()[0], coordination.number_of_processes(limit)
    if number == 1:
        cli.join(cli.Alone())
        return
    _Command.watch = Watch(index, number, socket.gethostname(), limit, stuck)
    cli.join(_Company(_Command.watch))
    _Command.hosts = texts("hosts", socket.gethostname())


def is_first() -> bool:
    """Whether this process is process 0; no device is started for it."""
    return _Command.watch is None or _Command.watch.index == 0


def name(index: int) -> str:
    """A process as messages name it, such as "process 2 on host-c"."""
    return heartbeats.name(index, _Command.hosts[index] if _Command.hosts else "")


def doing(what: str) -> None:
    """Says what this process does from now on, for the others' last line about it."""
    if _Command.watch is not None:
        _Command.watch.own.doing = what


def saved(step: int) -> None:
    """Says that a checkpoint of a step is published."""
    if _Command.watch is not None:
        _Command.watch.own.saved = step


def report(figures: Mapping[str, Any]) -> None:
    """Figures of this process, as JSON, that travel with its next heartbeat."""
    if _Command.watch is not None:
        _Command.watch.own.figures = dict(figures)


def reports() -> list[Mapping[str, Any]]:
    """The newest figures of every process that this one knows of, in the order of the processes; {} where none came.

    Process 0 knows of all, the others of process 0.
    """
    watch = _Command.watch
    return [] if watch is None else [heard.beat.figures for heard in watch.heard()]


def texts(key: str, own: str) -> list[str]:
    """The texts that all processes leave under a key, of any length, in their order; waits for all of them.

    No collective of the devices is used. A key serves once.
    """
    watch = _Command.watch
    if watch is None:
        return [own]
    coordination.put(f"texts/{key}/{watch.index}", own)
    if watch.index == 0:
        while len(found := coordination.all_of(f"texts/{key}")) < watch.number:
            time.sleep(_POLL)
        different = sorted(set(found.values()))
        which = [different.index(found[str(index)]) for index in range(len(found))]
        coordination.put(f"all/{key}", json.dumps([different, which]))
    while (text := coordination.get(f"all/{key}")) is None:
        time.sleep(_POLL)
    different, which = json.loads(text)
    return [different[each] for each in which]


@contextlib.contextmanager
def at_end(work: Callable[[], object]) -> Iterator[None]:
    """Inside, the work is done before this process is ended because of another."""
    watch = _Command.watch
    remove = None if watch is None else watch.at_end(work)
    try:
        yield
    finally:
        if remove is not None:
            remove()


def failure(index: int, what: str) -> PeerFailedError:
    """The end of all processes because of what one of them met: which one, and what to start again."""
    beats = [] if _Command.watch is None else _Command.watch.beats()
    return PeerFailedError(f"{name(index)} failed: {what}; {heartbeats.advice(beats)}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it, each once: one that was raised again may have led to itself."""
    met: list[BaseException] = []
    while error is not None and not any(error is each for each in met):
        met.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _has_status(error: BaseException) -> bool:
    return isinstance(error, ValueError) and str(error).startswith("UNKNOWN: ")


def is_of_others(error: BaseException) -> bool:
    """Whether an error is, or comes from, what a collective ends with when another process is gone.

    jaxlib 0.10.2 raises a JaxRuntimeError, or where the program is dispatched as it is compiled a ValueError.
    """
    lost = (each for each in _chain(error) if isinstance(each, jax.errors.JaxRuntimeError) or _has_status(each))
    return any(word in str(each).lower() for each in lost for word in _OF_OTHERS)


def notice(error: BaseException | None) -> None:
    """Tells the others at once of an error that is of their making, before what waits for them on the way out."""
    if _Command.watch is not None and error is not None and is_of_others(error):
        _Command.watch.tell_broken(_short(error))


def is_of_host(error: BaseException) -> bool:
    """Whether an error is what the system of this host refuses, such as a full disk: no mistake of the user."""
    if isinstance(error, OSError):
        return error.errno is not None
    return isinstance(error, CheckpointError) and is_of_system(error)


class _Company:
    """The company of one process of several."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def blame(self, error: BaseException) -> None:
        """Ends this process as another one, or its own host, makes it; returns where the error is of another kind."""
        if not isinstance(error, Exception):
            return
        short = _short(error)
        if isinstance(error, BrokenPipeError) and broken_pipe.is_unread():
            self.leave(broken_pipe.UNREAD, "nobody reads what it prints any more")
        if is_of_others(error):
            self._watch.breaks(short)
        if is_of_host(error):
            raise failure(self._watch.index, short) from None
        if not isinstance(error, cli.UserError | CheckpointError | DataError):
            traceback.print_exception(error)
            self.leave(1, short)

    def leave(self, code: int, message: str) -> None:
        """Ends this process, and so the others."""
        self._watch.leave(code, message)

    def close(self) -> None:
        """Waits for the others to have done their work."""
        self._watch.close()


def _short(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:_MOST_LETTERS]
