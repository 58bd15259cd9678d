"""The death of process 0 while others compute: JAX's coordination client, in C++, then aborts their processes.

Python's own handlers do not run before an abort ends the process; one that is set by C does. Neither a callback nor
an option of jaxlib 0.10.2 keeps it from aborting (a callback in Python ends in std::bad_cast).
"""

import ctypes
import signal
from collections.abc import Callable

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)


class _Set:
    """The handler that is set, which must live as long as the process."""

    handler: Callable[[int], None] | None = None


def on_abort(work: Callable[[], object]) -> None:
    """Lets the work run when C or C++ aborts this process; where it returns, the abort goes on.

    It runs in the thread that aborts, once that has the lock of Python's interpreter.
    """

    @_Handler
    def handler(number: int) -> None:
        work()

    _Set.handler = handler
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


def off() -> None:
    """Lets an abort be what it is."""
    ctypes.CDLL(None).signal(signal.SIGABRT, None)
    _Set.handler = None
