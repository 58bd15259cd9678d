"""The faults of one of several hosts: one function for each kind, which gives its counts."""

import signal
import time
from collections.abc import Callable

from experiments.fault_injection.cluster import PHASES, Cluster
from experiments.fault_injection.host_bench import LONGEST, SECONDS, Bench, Fault, HostCount
from experiments.fault_injection.wire import Weather, Wire

_LENGTHS = {"start": 1.0, "join": 1.5, "restore": 0.5, "compile": 2.0, "step": 0.5, "save": 0.3, "report": 2.0}
"""Seconds after a phase's beginning within which a fault falls."""


def _moment(bench: Bench, running: Cluster, phase: str, index: int) -> float | None:
    """Waits for a random moment of a phase; of the saves, and the steps between them, for one of the next three."""
    if phase in ("step", "save"):
        nth = bench.rng.randrange(1, 4)
        found = running.wait(lambda: running.count(index, phase) >= nth, LONGEST)
    else:
        found = running.wait(lambda: running.count(index, phase) > 0, LONGEST)
    if found:
        time.sleep(bench.rng.uniform(0, _LENGTHS[phase]))
    return time.monotonic() if found and running.is_alive() else None


def at_moment(bench: Bench, phase: str, index: int, work: Callable[[Cluster], object]) -> Fault:
    """The work done at a random moment of a phase."""

    def fault(running: Cluster) -> float | None:
        moment = _moment(bench, running, phase, index)
        if moment is not None:
            work(running)
        return moment

    return fault


def kills(bench: Bench, times: int) -> HostCount:
    """SIGKILLs of one host's process, in every phase in turn; a run is done once its report was disturbed."""
    count, run_dir = HostCount("SIGKILL"), bench.new()
    for number in range(10 * times):
        phase, index = PHASES[number % len(PHASES)], bench.host()
        fault = at_moment(bench, phase, index, lambda running, index=index: running.send(index, signal.SIGKILL))
        found = bench.attempt(run_dir, count, fault, index)
        is_done = phase == PHASES[-1] or all(end.code == 0 for end in found)
        if is_done or count.injected == times:
            bench.finish(run_dir, count, found)
            run_dir = bench.new()
        if count.injected == times:
            break
    return count


def _under(weather: Weather, wire: Wire, seconds: float) -> Callable[[Cluster], None]:
    """The weather until so many seconds are over, or all processes have ended."""

    def work(running: Cluster) -> None:
        with wire.under(weather):
            running.await_ends(range(len(running.processes)), seconds)

    return work


def _on_wire(bench: Bench, count: HostCount, wire: Wire, seconds: float, weather_of: Callable[[int], Weather]) -> None:
    phase, index, run_dir = bench.rng.choice(PHASES[1:]), bench.host(), bench.new()
    found = bench.attempt(
        run_dir, count, at_moment(bench, phase, index, _under(weather_of(index), wire, seconds)), index
    )
    bench.finish(run_dir, count, found)


def partition(bench: Bench, wire: Wire, seconds: float, times: int) -> HostCount:
    """One host cut off for a while, then back."""
    count = HostCount(f"partition, {seconds:g} s")
    for _ in range(times):
        _on_wire(bench, count, wire, seconds, lambda index: Weather(cut=(index,)))
    return count


def slow_wire(bench: Bench, wire: Wire, times: int) -> HostCount:
    """200 ms on the way between any two hosts, for 20 s."""
    count = HostCount("delay 200 ms")
    for _ in range(times):
        _on_wire(bench, count, wire, 20.0, lambda index: Weather(delay=0.2))
    return count


def losing_wire(bench: Bench, wire: Wire, times: int) -> HostCount:
    """Every twentieth frame lost, for 20 s."""
    count = HostCount("loss 5 %")
    for _ in range(times):
        _on_wire(bench, count, wire, 20.0, lambda index: Weather(loss=0.05))
    return count


def pauses(bench: Bench, times: int) -> HostCount:
    """One host's process stopped for 10 s."""
    return _stopped(bench, times, HostCount("SIGSTOP, 10 s"), 10.0)


def stops(bench: Bench, times: int) -> HostCount:
    """One host's process stopped until all others have ended, then woken: it must find that out, and end as well."""
    return _stopped(bench, times, HostCount("SIGSTOP, for ever"), SECONDS)


def _stopped(bench: Bench, times: int, count: HostCount, seconds: float) -> HostCount:
    """One host's process stopped for so many seconds, or until all others have ended."""
    for _ in range(times):
        phase, index, run_dir = bench.rng.choice(PHASES), bench.host(), bench.new()

        def stop(running: Cluster, index: int = index) -> None:
            running.send(index, signal.SIGSTOP)
            running.await_ends(running.others(index), seconds)
            running.send(index, signal.SIGCONT)

        found = bench.attempt(run_dir, count, at_moment(bench, phase, index, stop), index)
        bench.finish(run_dir, count, found)
    return count
