"""The threads by which the processes of a command watch each other: one sends and fetches, one keeps the time.

A call to the coordination service of a process that is cut off does not return; so the thread that may end this
process makes none.
"""

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import jax

from experiments.runtime import aborts, coordination, heartbeats
from experiments.runtime.heartbeats import Beat, Heard, Verdict

_VERDICT, _BEATS, _DONE = "verdict", "beat", "done"
_TICK = 0.2
_STANDARD_ERROR = 2
_ANSWER = 2.0
_LINGER = 4 * heartbeats.INTERVAL
"""Seconds for which process 0 stays, so that the others read why all end: its own end would abort them."""


class _Listened:
    """The beats of others, with the seconds, awake, since each was new."""

    def __init__(self, number: int) -> None:
        self._heard = [Heard(Beat(""), 0.0) for _ in range(number)]

    def hear(self, index: int, beat: Beat) -> None:
        """Takes a beat that may be new."""
        self._heard[index] = self._heard[index].followed_by(beat)

    def wait(self, seconds: float) -> None:
        """Lets so much time go by."""
        self._heard = [each.later(seconds) for each in self._heard]

    def all(self) -> list[Heard]:
        """What is heard of every process."""
        return list(self._heard)


class Watch:
    """This process among the others of its command; sends its first beat when it is made.

    Args:
        index: which of the processes this one is.
        number: of processes.
        host: its name.
        limit: seconds of silence after which a process is held to be dead, or cut off.
        stuck: seconds for which one may do the same while others do something else.
    """

    def __init__(self, index: int, number: int, host: str, limit: float, stuck: float = math.inf) -> None:
        self.index, self.number, self.limit, self.own = index, number, limit, Beat(host)
        self._stuck = stuck
        self._listened = _Listened(number)
        self._verdict: Verdict | None = None
        self._work_at_end: list[Callable[[], object]] = []
        self._is_done, self._is_closed, self._is_ending = False, threading.Event(), threading.Lock()
        self._wakes, self._sent, self._answered = threading.Event(), threading.Event(), threading.Event()
        self._broken_since = 0.0
        for work in (self._send_and_fetch, self._keep_time):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        aborts.on_abort(self._aborted)

    def heard(self) -> list[Heard]:
        """What this process knows of every one: all of them on process 0, itself and process 0 on the others."""
        return self._listened.all()

    def at_end(self, work: Callable[[], object]) -> Callable[[], None]:
        """Adds work that is done before this process is ended; gives what takes it away again."""
        self._work_at_end.append(work)
        return lambda: self._work_at_end.remove(work)

    def tell_broken(self, reason: str) -> None:
        """Tells the others that a collective of this process broke: who is silent now is soon held to be dead."""
        if not self.own.broken:
            self._broken_since, self.own.broken = time.monotonic(), reason
            self._wakes.set()

    def breaks(self, reason: str) -> NoReturn:
        """Waits to be told whose end broke a collective of this process, and ends with it."""
        self.tell_broken(reason)
        time.sleep(2 * self.limit + _LINGER)
        self._end(heartbeats.failure(self.index, self.beats(), f"lost the others: {reason}"))

    def leave(self, code: int, message: str) -> NoReturn:
        """Ends this process with an exit code and tells the others; what it says itself is written already."""
        self._tell_end(code, message)
        if self.index == 0:
            self._await_others(heartbeats.GRACE + _LINGER)
        self._exit(code)

    def _await_others(self, seconds: float) -> None:
        """Stays until all others have told how they end, and a while for them to do so, or for so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(each.code for each in self.beats()):
            time.sleep(_TICK)
        time.sleep(min(_LINGER, max(0.0, end - time.monotonic())))

    def close(self) -> None:
        """Waits until all processes have done their work; a failure of one on the way ends this one, too."""
        self._tell_end(0, "done")
        while not self._is_done:
            time.sleep(_TICK)
        self._is_closed.set()

    def _tell_end(self, code: int, message: str) -> None:
        self.own.message, self.own.code = message, code
        self._sent.clear()
        self._wakes.set()
        self._sent.wait(self.limit)

    def beats(self) -> list[Beat]:
        """The newest beat that is known of every process, and this one's own."""
        return [self.own if index == self.index else each.beat for index, each in enumerate(self.heard())]

    def _send_and_fetch(self) -> None:
        """The thread that speaks to the coordination service, which may not answer."""
        while not self._is_closed.is_set():
            self.own.count += 1
            self.own.broken_for = time.monotonic() - self._broken_since if self.own.broken else 0.0
            is_told = self.own.code is not None
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                coordination.put(f"{_BEATS}/{self.index}", self.own.text())
                self._listened.hear(self.index, replace(self.own))
                if is_told:
                    self._sent.set()
                self._fetch()
                self._answered.set()
            self._wakes.wait(_TICK if is_told else heartbeats.INTERVAL)
            self._wakes.clear()

    def _fetch(self) -> None:
        if self.index == 0:
            for name, text in coordination.all_of(_BEATS).items():
                self._listened.hear(int(name), heartbeats.beat_of(text))
            self._publish()
            return
        text = coordination.get(f"{_BEATS}/0")
        if text is not None:
            self._listened.hear(0, heartbeats.beat_of(text))
        said = coordination.get(_VERDICT)
        if said is not None:
            self._verdict = Verdict(*json.loads(said))
        self._is_done = self._is_done or coordination.get(_DONE) is not None

    def _publish(self) -> None:
        """Tells the others, as process 0, what is found."""
        if self._verdict is None:
            self._verdict = heartbeats.judge(self.heard(), self.limit, self._stuck)
        if self._verdict is not None:
            coordination.put(_VERDICT, json.dumps(self._verdict))
        elif not self._is_done and heartbeats.are_all_done(self.heard()):
            coordination.put(_DONE, "")
            self._is_done = True

    def _keep_time(self) -> None:
        """The thread that ends this process: by the verdict, or as process 0 has not answered for too long."""
        since = 0.0
        while not self._is_closed.wait(_TICK):
            self._listened.wait(_TICK)
            verdict = self._verdict or self._of_process_0()
            if verdict is None:
                continue
            since += _TICK
            grace = heartbeats.GRACE * verdict.is_met_by_all + _LINGER * (self.index == 0)
            is_leaving = bool(self.own.code)
            if since >= grace + (_LINGER + heartbeats.GRACE) * is_leaving:
                self._end(verdict)

    def _of_process_0(self) -> Verdict | None:
        silence = self.heard()[0].silence
        limit = min(self.limit, heartbeats.SUSPECTED) if self.own.broken else self.limit
        if self.index == 0 or silence <= limit:
            return None
        return heartbeats.failure(0, self.beats(), heartbeats.silent_for(silence))

    def _aborted(self) -> None:
        """Ends by the exit code where the coordination is lost; an abort of this process's own making goes on."""
        if self._is_closed.is_set():
            self._exit(0)  # all have done their work, and this process was about to end
        if self._verdict is None and self._is_answered():
            return
        what = "is gone, or let another process join in the place of one"
        self._end(self._verdict or heartbeats.failure(0, self.beats(), what))

    def _is_answered(self) -> bool:
        """Whether the coordination service answers yet: it does not once JAX's client has met an error."""
        self._answered.clear()
        self._wakes.set()
        return self._answered.wait(_ANSWER)

    def _end(self, verdict: Verdict) -> NoReturn:
        """Ends this process with the line, once."""
        with self._is_ending:
            start = "\n" if sys.stderr.isatty() else ""
            with contextlib.suppress(OSError):
                os.write(_STANDARD_ERROR, f"{start}{' '.join(verdict.line.split())}\n".encode())
            self._exit(verdict.code)

    def _exit(self, code: int) -> NoReturn:
        for work in reversed(self._work_at_end):
            with contextlib.suppress(Exception):
                work()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
