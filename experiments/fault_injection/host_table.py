"""All faults of one of several hosts, as a table and as hosts.json."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.fault_injection import host_faults, host_states
from experiments.fault_injection.host_bench import Bench, HostCount, Settings
from experiments.fault_injection.hosts import hosts
from experiments.run import folder as run_folder
from experiments.runtime import progress
from experiments.runtime.signals import StoppedError, StopRequests

PARTITIONS = 5.0, 30.0, 120.0
"""Seconds for which a host is cut off."""


def _planned(
    bench: Bench, counts: Mapping[str, int], partitions: Sequence[float]
) -> Iterator[tuple[int, Callable[[], HostCount]]]:
    """Each kind of fault that can be injected here: how often, and how."""
    wire, cuts, slow = bench.made.wire, counts["partitions"], counts["slow_wires"]
    yield counts["kills"], lambda: host_faults.kills(bench, counts["kills"])
    if wire is not None:
        for seconds in partitions:
            yield cuts, lambda seconds=seconds: host_faults.partition(bench, wire, seconds, cuts)
        yield slow, lambda: host_faults.slow_wire(bench, wire, slow)
        yield slow, lambda: host_faults.losing_wire(bench, wire, slow)
    yield counts["pauses"], lambda: host_faults.pauses(bench, counts["pauses"])
    yield counts["pauses"], lambda: host_faults.stops(bench, counts["pauses"])
    yield counts["full_disks"], lambda: host_states.full_disks(bench, counts["full_disks"])
    if wire is not None:
        yield counts["full_disks"], lambda: host_states.full_shared_disks(bench, counts["full_disks"])
        yield counts["full_disks"], lambda: host_states.read_only_disks(bench, counts["full_disks"])
        yield counts["damages"], lambda: host_states.damages(bench, counts["damages"])
    yield counts["clocks"], lambda: host_states.clocks(bench, counts["clocks"])
    yield counts["mismatches"], lambda: host_states.mismatches(bench, counts["mismatches"])


def is_fine(count: HostCount) -> bool:
    """Whether nothing was lost, and every process ended as it should."""
    return not count.unexpected and not count.steps_lost and not count.lock_held and count.bit_equal == count.runs


def _row(words: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, words))} |"


def _disturb(bench: Bench, counts: Mapping[str, int], partitions: Sequence[float], found: list[HostCount]) -> None:
    """Injects all faults, and adds what came of each kind once it is done."""
    made = bench.made
    between = made.why_loopback or f"the wire between them: {made.wire.kind if made.wire else 'none'}"
    cli.print_result(f"{len(made.each)} hosts of {bench.settings.num_devices} devices; {between}")
    heads = [name.replace("_", " ") for name in asdict(HostCount(""))]
    cli.print_result(f"{_row(heads)}\n|{'---|' * len(heads)}")
    planned = [(times, work) for times, work in _planned(bench, counts, partitions) if times]
    with progress.bar(sum(times for times, _ in planned), "faults", "disturbing hosts") as shown:
        bench.on_fault = shown.update
        for _, work in planned:
            found.append(work())
            cli.print_result(_row(asdict(found[-1]).values()))
            _write(bench, found)


def inject(
    out: Path,
    num_hosts: int,
    seed: int,
    settings: Settings,
    counts: Mapping[str, int],
    partitions: Sequence[float] = PARTITIONS,
) -> None:
    """Injects the faults, prints the table and writes it.

    Raises:
        UserError: a fault after which something was lost, or a process did not end as it should.
        StoppedError: a signal asked for it.
    """
    run_folder.make_folder("out", out)
    found: list[HostCount] = []
    try:
        with StopRequests(), hosts(num_hosts, out, seed) as made:
            _disturb(Bench(made, out, settings, random.Random(seed)), counts, partitions, found)
    except StoppedError:
        raise StoppedError(f"stopped after {len(found)} kinds of faults, which are in {out / 'hosts.json'}") from None
    bad = [count.fault for count in found if not is_fine(count)]
    if bad:
        raise UserError(f"not recovered from all of: {', '.join(bad)}; see {out / 'hosts.json'}")


def _write(bench: Bench, found: list[HostCount]) -> None:
    record = {
        "hosts": len(bench.made.each),
        "devices": bench.settings.num_devices,
        "wire": bench.made.wire.kind if bench.made.wire else bench.made.why_loopback,
        "counts": [asdict(count) for count in found],
        "failures": bench.failures,
    }
    run_folder.write_atomically(bench.out / "hosts.json", json.dumps(record, indent=2) + "\n")
