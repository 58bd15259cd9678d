"""All faults of one of several hosts, as a table and as hosts.json."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.fault_injection import host_faults, host_states
from experiments.fault_injection.host_bench import Bench, HostCount, Settings
from experiments.fault_injection.hosts import hosts
from experiments.run import folder as run_folder
from experiments.runtime import progress
from experiments.runtime.signals import StopRequests

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
    """
    run_folder.make_folder("out", out)
    found: list[HostCount] = []
    with StopRequests(), hosts(num_hosts, out, seed) as made:
        bench = Bench(made, out, settings, random.Random(seed))
        between = made.why_loopback or f"the wire between them: {made.wire.kind if made.wire else 'none'}"
        cli.print_result(f"{num_hosts} hosts of {settings.num_devices} devices; {between}")
        planned = [(times, work) for times, work in _planned(bench, counts, partitions) if times]
        heads = [name.replace("_", " ") for name in asdict(HostCount(""))]
        cli.print_result(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        with progress.bar(sum(times for times, _ in planned), "faults", "disturbing hosts") as shown:
            bench.on_fault = shown.update
            for _, work in planned:
                found.append(work())
                cli.print_result("| " + " | ".join(str(value) for value in asdict(found[-1]).values()) + " |")
                _write(out, bench, found)
    bad = [count.fault for count in found if not is_fine(count)]
    if bad:
        raise UserError(f"not recovered from all of: {', '.join(bad)}; see {out / 'hosts.json'}")


def _write(out: Path, bench: Bench, found: list[HostCount]) -> None:
    record = {
        "hosts": len(bench.made.each),
        "devices": bench.settings.num_devices,
        "wire": bench.made.wire.kind if bench.made.wire else bench.made.why_loopback,
        "counts": [asdict(count) for count in found],
        "failures": bench.failures,
    }
    run_folder.write_atomically(out / "hosts.json", json.dumps(record, indent=2) + "\n")
