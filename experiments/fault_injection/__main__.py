"""Inject faults into short runs and count what they lose: kills, signals, corrupt checkpoints, full disks.

Each fault is injected into a run in a subprocess; the run is then started again until it ends, and its last state must
equal, bit by bit, that of an undisturbed run. Prints a table and writes faults.json into --out.

With --hosts 2 to 4 the run is one of several hosts on this machine, each in namespaces of its own, and the faults are
those of one of them: killed, cut off, on a slow or losing wire, paused, its disk full or read-only, its checkpoint
damaged, its clock apart, its data, packages or settings others. All of its processes must go on to the same bits, or
all end in time with a line that names the host; a signal at any phase stops all of them. It needs Linux, iproute2 and
the right to make namespaces; without it, loopback processes are used and the network's faults left out. Writes
hosts.json. For example:
python -m experiments.fault_injection --hosts 4 --kills 60 --signals 24 --partitions 9 --slow-wires 6 --pauses 8
"""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.fault_injection import host_table, walks
from experiments.fault_injection.disks import require_mountable
from experiments.fault_injection.harness import Count, Harness
from experiments.fault_injection.host_bench import Settings
from experiments.fault_injection.loopback import Hosts
from experiments.run import folder as run_folder
from experiments.runtime import progress


@dataclass(frozen=True)
class Options:
    """How often each fault is injected."""

    out: Path = Path("runs/faults")
    """Folder for the runs and faults.json, new or empty."""
    kills: int = 200
    """SIGKILLs at random moments."""
    signals: int = 20
    """SIGTERMs, and as many SIGINTs, at random moments; with hosts so many of both, at every phase in turn."""
    damages: int = 40
    """Newest checkpoints with one file removed, truncated, or with a flipped bit."""
    full_disks: int = 4
    """Disks that fill while a run goes on, and as many that turn read-only; needs the right to mount."""
    hosts: Literal[0, 2, 3, 4] = 0
    """Hosts of each run; 0 for one process. With hosts, what follows applies."""
    devices: Literal[1, 2] = 1
    """Virtual devices of each host."""
    partitions: int = 3
    """Hosts cut off for 5 s, as many for 30 s, as many for 120 s."""
    slow_wires: int = 3
    """20 s of a delay of 200 ms between all hosts, and as many of 5 % loss."""
    pauses: int = 4
    """Hosts stopped for 10 s, and as many for ever."""
    clocks: int = 2
    """Hosts whose clocks are apart."""
    mismatches: int = 10
    """Hosts with other data, packages, settings, or another number of processes."""
    moves: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Move a run between all pairs of 2 x 2, 1 x 4, 4 x 1 and 1 x 1 hosts and devices, replicated and sharded."""
    heartbeat_seconds: Annotated[float | None, optional("FLOAT", "the command's own")] = None
    """Passed to every process, so that runs are short."""
    seed: int = 0
    """Seed of all that is random."""


_OF_ONE = "kills", "signals", "damages", "full_disks"
_OF_HOSTS = "kills", "signals", "partitions", "slow_wires", "pauses", "damages", "full_disks", "clocks", "mismatches"


def _check(options: Options) -> None:
    counts = {name: getattr(options, name) for name in (_OF_HOSTS if options.hosts else _OF_ONE)}
    for name, count in counts.items():
        if count < 0:
            raise UserError(f"{name} must be at least 0, got {count}")
    if not any(counts.values()) and not (options.hosts and options.moves):
        raise UserError(f"{', '.join(counts)}: one of them must be above 0")
    if options.out.exists() and not (options.out.is_dir() and not any(options.out.iterdir())):
        raise UserError(f"out must be a folder that is new or empty, got {options.out}")
    if options.full_disks and not options.hosts:
        require_mountable()


def _all(options: Options, on_fault: Callable[[], object]) -> Iterator[Count]:
    harness = Harness(options.out, options.seed, on_fault)
    if options.kills:
        yield harness.signals(signal.SIGKILL, options.kills)
    for number in (signal.SIGTERM, signal.SIGINT):
        if options.signals:
            yield harness.signals(number, options.signals)
    if options.damages:
        yield harness.damages(options.damages)
    if options.full_disks:
        yield harness.full_disks(options.full_disks)
        yield harness.read_only_disks(options.full_disks)


def _is_fine(count: dict[str, Any]) -> bool:
    has_recovered = count["recovered"] == count["injected"] and count["bit_equal"] == count["runs"]
    return has_recovered and not count["steps_lost"] and not count["unexpected"]


def _inject_into_hosts(options: Options) -> None:
    counts = {name: getattr(options, name) for name in _OF_HOSTS}
    settings = Settings(options.devices, options.heartbeat_seconds)
    if any(count for name, count in counts.items() if name != "signals"):
        host_table.inject(options.out, options.hosts, options.seed, settings, counts)
    if options.signals:
        with progress.bar(options.signals, "signals", "stopping hosts") as shown:
            walks.signals(options.out, Hosts(options.hosts, options.devices), options.signals, shown.update)
    if options.moves:
        with progress.bar(None, "moves", "moving a run") as shown:
            walks.moves(options.out, shown.update)


def inject_faults(options: Options) -> None:
    """Injects the faults, prints the table and writes it."""
    _check(options)
    if options.hosts:
        _inject_into_hosts(options)
        return
    counts, num_faults = [], options.kills + options.damages + 2 * (options.signals + options.full_disks)
    heads = (
        *("fault", "injected", "recovered", "in a save", "refused", "other ends"),
        *("fell back by one", "steps lost", "runs", "bit-equal ends"),
    )
    cli.print_result(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with progress.bar(num_faults, "faults", "disturbing runs") as shown:
        for count in _all(options, shown.update):
            cli.print_result("| " + " | ".join(str(value) for value in asdict(count).values()) + " |")
            counts.append(asdict(count))
    run_folder.write_atomically(options.out / "faults.json", json.dumps(counts, indent=2) + "\n")
    bad = [each["fault"] for each in counts if not _is_fine(each)]
    if bad:
        raise UserError(f"not recovered from all of: {', '.join(bad)}; see {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(inject_faults, Options, "experiments.fault_injection", __doc__, args)


if __name__ == "__main__":
    main()
