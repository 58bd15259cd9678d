"""What a process itself does of a step, measured while it trains, and what follows of the figures of all of them.

Figures travel with the heartbeat, by no collective; with one process nothing is measured.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import jax
import jax.numpy as jnp

from experiments.runtime import distributed, peers
from experiments.runtime.shares import Figures, Slowest, cause_of, shares_of, slowest_of

PAUSE = 1.0
"""Seconds between two reports at least: those of a heartbeat."""

WINDOW = 10.0
"""Seconds of steps over which figures are means before a host is named: in less, the scheduler's whims would be."""

LASTING = 30.0
"""Seconds after which it is a warning that the same host holds the others up."""

PROBING = 0.0025
"""The part of all time, at most, in which devices are probed."""

MOST_PROBES = 8
"""Probes whose mean is reported, and the most in a row."""

_TICK, _LATE = 0.05, 0.01
"""Seconds between two looks at the clock, and by how much one may be late in a process that runs."""


class StallClock:
    """How long the process as a whole stood still: a thread that sleeps for a tick finds out how late it wakes."""

    def __init__(self) -> None:
        self._late_and_due = 0.0, time.perf_counter() + _TICK + _LATE
        self._is_ended = False
        self._thread = threading.Thread(target=self._tick, name="stalls", daemon=True)
        self._thread.start()

    def _tick(self) -> None:
        while not self._is_ended:
            time.sleep(_TICK)
            now = time.perf_counter()
            self._late_and_due = self.stalled(now), now + _TICK + _LATE

    def stalled(self, now: float) -> float:
        """All seconds that it stood still, up to now."""
        late, due = self._late_and_due
        return late + max(0.0, now - due)

    def close(self) -> None:
        """Ends the thread."""
        self._is_ended = True
        self._thread.join()


class Probe:
    """A fixed program on each device of this process at once, of some ms on any kind of device.

    Attributes:
        seconds: the mean of the last ones.
    """

    def __init__(self) -> None:
        size = 256 if jax.default_backend() == "cpu" else 2048
        self._program = jax.jit(lambda x: jax.lax.fori_loop(0, 8, lambda _, y: _product(y, x), x))
        matrix = jnp.full((size, size), 1 / size, jnp.float32)
        self._matrices = [jax.device_put(matrix, device) for device in jax.local_devices()]
        self._last = deque[float](maxlen=MOST_PROBES)
        self._run()
        self.seconds = self._run()

    def _run(self) -> float:
        start = time.perf_counter()
        jax.block_until_ready([self._program(matrix) for matrix in self._matrices])
        return time.perf_counter() - start

    def run(self, number: int) -> None:
        """Runs it so often, on idle devices."""
        if number:
            self._last.extend(self._run() for _ in range(number))
            self.seconds = mean(self._last)


def _product(y: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(y, x, precision=jax.lax.Precision.HIGHEST)


def num_probes(interval: int, length: float, probe: float) -> int:
    """How many probes follow an interval: the part PROBING of all time, at most.

    Where one is more than that, it follows multiples of a power of 2 of intervals: hosts of about the same figures
    then probe at the same time, and do not wait for each other's probes in turn.

    Args:
        interval: its number, from 1; after the first there is always one.
        length: of an interval, in seconds.
        probe: seconds of a probe.
    """
    allowed = PROBING * length / probe
    if interval == 1 or allowed >= 1:
        return max(1, min(MOST_PROBES, int(allowed)))
    spacing = 1
    while spacing * allowed < 1:
        spacing *= 2
    return int(interval % spacing == 0)


@dataclass
class _Sums:
    """Seconds of some steps.

    Attributes:
        num_steps: how many.
        start: of the first, or of what came before it that is not measured.
        left_out: seconds since then that are no part of a step.
        blocked: waiting for devices.
        stalled: of these, in which the process stood still.
    """

    num_steps: int
    start: float
    left_out: float = 0.0
    blocked: float = 0.0
    stalled: float = 0.0


class Judge:
    """Takes the figures of all processes one after another, and says who holds the others up.

    Attributes:
        row: what lines of metrics say of the hosts.
        told: what the bar says of them.
    """

    def __init__(self) -> None:
        self.row: Mapping[str, Any] = {}
        self.told = ""
        self._index, self._since, self._warned = -1, 0.0, set[int]()

    def take(self, figures: Sequence[Figures], now: float, names: bool) -> None:
        """Takes figures.

        Args:
            figures: of all processes.
            now: seconds, by this process' clock.
            names: whether they are means over long enough to name a host.
        """
        shares = shares_of(figures)
        self.row, self.told = {"host_shares": [round(share, 3) for share in shares]}, ""
        slowest = slowest_of(shares) if names else None
        if slowest is None:
            self._index = -1
            return
        if slowest.index != self._index:
            self._index, self._since = slowest.index, now
        name = peers.name(slowest.index)
        self.row |= {"slowest_host": name}
        self.told = f"waiting for {name}: {slowest.share:.2f}, others {slowest.others:.2f}"
        if now - self._since >= LASTING and slowest.index not in self._warned:
            self._warned.add(slowest.index)
            _warn(name, slowest, cause_of(figures, slowest.index))


def _warn(name: str, slowest: Slowest, cause: str) -> None:
    distributed.warn(
        f"warning: {name} holds the others up, for {LASTING:.0f} s now: its share of a step's time is "
        f"{slowest.share:.2f}, the others' {slowest.others:.2f}; the difference lies in {cause}"
    )


class OwnTime:
    """Measures the steps of this process and reports its figures; the first process finds the shares of all.

    With one process it does nothing.
    """

    def __init__(self) -> None:
        self._is_on, self._judge = jax.process_count() > 1, Judge()
        if self._is_on:
            self._clock, self._probe = StallClock(), Probe()
            self._count, self._reported_at, self._windows = 0, 0.0, deque[tuple[int, float, float, float]]()
            self._ended_at = time.perf_counter()
            self._sums = _Sums(0, self._ended_at)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, this process waits for its devices, and so perhaps for others."""
        if not self._is_on:
            yield
            return
        start = time.perf_counter()
        stalled = self._clock.stalled(start)
        yield
        end = time.perf_counter()
        self._sums.blocked += end - start
        self._sums.stalled += self._clock.stalled(end) - stalled

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside is what is no part of a step, such as a save."""
        start = time.perf_counter()
        yield
        if self._is_on:
            self._sums.left_out += time.perf_counter() - start

    def end_interval(self, num_steps: int) -> Mapping[str, Any]:
        """Ends an interval of so many steps, with idle devices: what its line of metrics says of the hosts.

        Nothing until figures of all of them have come. The first interval, which compiles, is not measured.
        """
        if not self._is_on:
            return {}
        now = time.perf_counter()
        length, self._ended_at, self._count = now - self._ended_at, now, self._count + 1
        if self._count == 1:
            self._sums = _Sums(0, now)
        else:
            self._sums.num_steps += num_steps
        with self.left_out():
            self._probe.run(num_probes(self._count, length, self._probe.seconds))
        if self._sums.num_steps and now - self._reported_at >= PAUSE:
            self._report()
        return self._judge.row

    def _report(self) -> None:
        sums, now = self._sums, time.perf_counter()
        host = now - sums.start - sums.left_out - sums.blocked
        self._sums, self._reported_at = _Sums(0, now), now
        self._windows.append((sums.num_steps, host, sums.blocked, sums.stalled))
        while sum(host + blocked for _, host, blocked, _ in list(self._windows)[1:]) >= WINDOW:
            self._windows.popleft()
        num_steps, host, blocked, stalled = (sum(column) for column in zip(*self._windows, strict=True))
        figures = Figures(host / num_steps, blocked / num_steps, stalled / num_steps, self._probe.seconds)
        peers.report({name: float(f"{value:.4g}") for name, value in figures._asdict().items()})
        reports = peers.reports() if distributed.is_process_0() else []
        if len(reports) == jax.process_count() and all(reports):
            self._judge.take([Figures(**each) for each in reports], now, names=host + blocked >= WINDOW)

    def told(self) -> str:
        """Who holds the others up, for the bar; empty where nobody does."""
        return self._judge.told

    def close(self) -> None:
        """Ends what it has begun."""
        if self._is_on:
            self._clock.close()
