"""The other processes of a command: who they are, what each does, and how all of them end when one fails.

With one process all of it costs nothing and changes nothing.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from experiments.cli.main import EndingError


class PeerFailedError(EndingError):
    """Another process of this command failed; the message names it, what it last did and what to start again.

    The exit code is EX_PROTOCOL of sysexits.h, beside EX_TEMPFAIL of a run that was asked to stop: both are mended by
    another start.
    """

    exit_code = 76


def name(index: int) -> str:
    """A process as messages name it, such as "process 2 on host-c"."""
    return f"process {index}"


def doing(what: str) -> None:
    """Says what this process does from now on, for the others' last line about it."""


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """Inside, this process does that; afterwards what it did before."""
    yield


def saved(step: int) -> None:
    """Says that a checkpoint of a step is published."""


def report(figures: Mapping[str, Any]) -> None:
    """Figures of this process, as JSON, that travel with its next heartbeat."""


def reports() -> list[Mapping[str, Any]]:
    """The newest figures of every process that this one knows of, in the order of the processes; {} where none came."""
    return []


def put(key: str, text: str) -> None:
    """Leaves a text of this process for the others."""


def texts(key: str, own: str) -> list[str]:
    """The texts that all processes leave under a key, of any length, in their order; waits for all of them.

    No collective of the devices is used. A key serves once.
    """
    return [own]


@contextlib.contextmanager
def at_end(work: Callable[[], object]) -> Iterator[None]:
    """Inside, the work is done before this process is ended because of another."""
    yield


def fail(message: str) -> NoReturn:
    """Ends this process with exit code 76, and so all others, which name it and the message."""
    raise PeerFailedError(message)
