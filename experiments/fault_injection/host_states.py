"""Hosts that are not as the others: a disk that fills or refuses, a damaged checkpoint, another clock, other data."""

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import checkpoints, data
from cfgjax.data import digits
from experiments.fault_injection import harness
from experiments.fault_injection.cluster import Cluster, Own
from experiments.fault_injection.disks import fill, small_disk
from experiments.fault_injection.host_bench import LONGEST, SECONDS, Bench, HostCount
from experiments.fault_injection.host_faults import at_moment
from experiments.run import folder as run_folder

SHARDED = ("--placement", "sharded", "--network.width", "128")
"""Every host writes a share of each checkpoint."""
_MOST_BYTES = 2048
"""Of a file on a host whose disk is full."""
_SECONDS = 30.0


def full_disks(bench: Bench, times: int) -> HostCount:
    """One host's process that can write no file beyond 2 KiB from a random moment on."""
    count = HostCount("disk full on one")
    for _ in range(times):
        index, run_dir = bench.host(), bench.new()
        fault = at_moment(bench, "step", index, lambda running, index=index: running.limit_files(index, _MOST_BYTES))
        found = bench.attempt(run_dir, count, fault, index, SHARDED)
        bench.finish(run_dir, count, found, SHARDED)
    return count


def full_shared_disks(bench: Bench, times: int) -> HostCount:
    """The disk that all hosts share, full from a random moment on; space is made before the next start."""
    count = HostCount("shared disk full")
    for _ in range(times):
        with small_disk(bench.out / "disk") as disk:
            index, run_dir = bench.host(), bench.new(disk)

            def spoil(running: Cluster, disk: Path = disk) -> None:
                until = time.monotonic() + SECONDS
                while time.monotonic() < until and running.is_alive():
                    fill(disk)
                    time.sleep(0.02)

            found = bench.attempt(run_dir, count, at_moment(bench, "step", index, spoil), None)
            (disk / "filler").unlink(missing_ok=True)
            bench.finish(run_dir, count, found)
    return count


def _make_read_only(running: Cluster, index: int, folder: Path) -> None:
    enter = ["nsenter", "--target", str(running.processes[index].pid), "--mount", "mount"]
    for words in (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
        subprocess.run([*enter, *words], capture_output=True, timeout=_SECONDS, check=False)


def read_only_disks(bench: Bench, times: int) -> HostCount:
    """The run's folder read-only for one host from a random moment on."""
    count = HostCount("disk read-only on one")
    for _ in range(times):
        index, run_dir = bench.host(), bench.new()
        folder = run_dir.absolute()
        fault = at_moment(
            bench,
            "step",
            index,
            lambda running, index=index, folder=folder: _make_read_only(running, index, folder),
        )
        found = bench.attempt(run_dir, count, fault, index, SHARDED)
        bench.finish(run_dir, count, found, SHARDED)
    return count


def _partial(bench: Bench) -> Path:
    """A run whose processes were all killed once it had two checkpoints."""
    run_dir = bench.new()
    folder = run_folder.checkpoints_of(run_dir)
    with bench.started(run_dir) as running:
        running.wait(lambda: len(checkpoints.all_steps(folder)) >= 2, LONGEST)
        for index in range(len(running.processes)):
            running.send(index, signal.SIGKILL)
    return run_dir


def damages(bench: Bench, times: int) -> HostCount:
    """One host that sees the newest checkpoint damaged, all others whole."""
    count, original = HostCount("checkpoint damaged for one"), _partial(bench)
    newest = checkpoints.latest_step(run_folder.checkpoints_of(original))
    for _ in range(times):
        index, run_dir = bench.host(), bench.new()
        shutil.copytree(original, run_dir)
        folder = run_folder.checkpoints_of(run_dir).absolute() / str(newest)
        file = bench.rng.choice(sorted(each for each in folder.rglob("*") if each.is_file()))
        damaged = bench.out.absolute() / f"{run_dir.name}.damaged"
        shutil.copy(file, damaged)
        harness.damage(damaged, bench.rng)
        damaged.touch()
        own = {index: Own(bound=((damaged, file),))}
        found = bench.attempt(run_dir, count, lambda _: time.monotonic(), index, own=own, may_fall_back=True)
        bench.finish(run_dir, count, found)
    return count


def clocks(bench: Bench, times: int) -> HostCount:
    """One host whose clocks, of the day and since its start, are hours from the others'."""
    count = HostCount("clock apart")
    for number in range(times):
        index, run_dir, hours = bench.host(), bench.new(), (-3, 5)[number % 2]
        own = {index: Own(wall_shift=3600.0 * hours, monotonic_shift=7200 if bench.made.wire else 0)}
        found = bench.attempt(run_dir, count, lambda _: time.monotonic(), index, own=own)
        bench.finish(run_dir, count, found)
    return count


@contextlib.contextmanager
def _inverted() -> Any:
    """Inside, digits are white on black."""
    gray = digits._gray
    digits._gray = lambda digit: (255 - gray(np.asarray(digit))).astype(np.uint8)
    try:
        yield
    finally:
        digits._gray = gray


def _package(folder: Path) -> Path:
    """A folder that claims to hold an old version of a package."""
    place = folder / "flax-0.0.1.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: flax\nVersion: 0.0.1\n")
    return folder


def _ways(bench: Bench) -> dict[str, tuple[tuple[str, ...], Own]]:
    """What is other on one host: what is added to all command lines, and what is its own."""
    out, number = bench.out.absolute(), len(bench.made.each)
    with_data = ("--data-dir", str(out / "data"))
    return {
        "package": ((), Own(first_on_path=_package(out / "packages"))),
        "setting": ((), Own(("--optimizer.learning-rate", "0.5"))),
        "number of processes": ((), Own(("--num-processes", str(number + 1)))),
        "data missing": (with_data, Own(("--data-dir", str(out / "no-data")))),
        "data": (with_data, Own(("--data-dir", str(out / "other-data")))),
    }


def _prepare(bench: Bench) -> None:
    data.prepare("digits", bench.out / "data")
    with _inverted():
        data.prepare("digits", bench.out / "other-data")


def mismatches(bench: Bench, times: int) -> HostCount:
    """One host with another package, setting, number of processes, or data: all are refused before the first step."""
    _prepare(bench)
    count, ways = HostCount("mismatch"), list(_ways(bench).items())
    for number in range(times):
        kind, (extra, own) = ways[number % len(ways)]
        index, run_dir, refused = bench.rng.randrange(1, len(bench.made.each)), bench.new(), count.refused
        seen: list[Cluster] = []

        def watch(running: Cluster, seen: list[Cluster] = seen) -> float:
            seen.append(running)
            return time.monotonic()

        bench.attempt(run_dir, count, watch, index, extra, {index: own})
        has_begun = any(seen[0].count(each, "step") for each in range(len(bench.made.each)))
        if count.refused == refused or has_begun:
            bench.fail(count, f"{kind} of process {index} was not refused before the first step", run_dir)
    return count
