"""Being asked to stop: a signal lets the step end and saves, and Ctrl-C beside it ends the process at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from experiments.cli.main import EndingError

_STANDARD_ERROR = 2
SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
PATIENCE = 2.0
"""Seconds for which a second signal waits for the main thread to hear it."""


class StoppedError(EndingError):
    """A run that was asked to stop, and has saved; the message says how to go on.

    The exit code is EX_TEMPFAIL of sysexits.h: a failure that another start mends.
    """

    exit_code = 75


class StopRequests:
    """Listens for the signals that ask to stop; a context manager that puts the former handlers back.

    SIGTERM is what clusters send before they take a machine back, SIGUSR1 what jobs of SLURM and Grid Engine often ask
    for in its place, and SIGINT is Ctrl-C. Where there is something to finish, inside ``deferred``, the first one only
    sets ``is_asked``; elsewhere it raises StoppedError. Clusters repeat themselves, by two ways at once or before
    SIGKILL, so a second signal ends the process at once only where one of the two is Ctrl-C.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._first, self._at = 0, 0.0
        self._is_deferred = False
        self._former: dict[int, Any] = {}
        self._former_wakeup, self._is_left = -1, threading.Event()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread listen
            self._former = {each: signal.signal(each, self._receive) for each in SIGNALS}
            heard, self._wakeup = os.pipe()
            os.set_blocking(self._wakeup, False)
            self._former_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
            threading.Thread(target=self._end_deaf_ones, args=(heard,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each, handler in self._former.items():
            signal.signal(each, handler)
        self._is_left.set()
        if self._former:
            signal.set_wakeup_fd(self._former_wakeup)
            os.close(self._wakeup)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal waits until the work looks at ``is_asked``, or is done.

        Raises:
            StoppedError: the work is done, and a signal came meanwhile.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self.is_asked:
            raise self._stopped()

    def end_overdue(self, seconds: float) -> None:
        """Ends the work, even inside ``deferred``, where a signal came more than so many seconds ago.

        Raises:
            StoppedError: it did.
        """
        if self.is_asked and time.monotonic() - self._at > seconds:
            raise self._stopped()

    def _end_deaf_ones(self, heard: int) -> None:
        """Ends the process by a second signal that its main thread does not hear, as while it compiles, in C++."""
        first = 0
        with open(heard, "rb", buffering=0) as stream:
            while found := stream.read(1):
                number = found[0]
                if first and signal.SIGINT in (first, number) and not self._is_left.wait(PATIENCE):
                    os._exit(128 + number)
                first = first or number * (number in SIGNALS)

    def _stopped(self) -> StoppedError:
        name = signal.Signals(self._first).name
        return StoppedError(f"stopped by {name} outside training; the same command goes on from the last save")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            if signal.SIGINT in (self._first, number):
                os._exit(128 + number)
            return
        self.is_asked, self._first, self._at = True, number, time.monotonic()
        if not self._is_deferred:
            raise self._stopped()
        name = signal.Signals(number).name
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, f"\n{name}: stopping after this step; Ctrl-C then ends at once\n".encode())
