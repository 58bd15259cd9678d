"""The bench of several hosts: its judgement by made-up processes, and two hosts that are disturbed."""

import json
import random
import signal

import pytest

from experiments.cli.main import UserError
from experiments.fault_injection import __main__ as fault_injection
from experiments.fault_injection import cluster, ends, host_faults, host_table, hosts
from experiments.fault_injection.cluster import Cluster, End
from experiments.fault_injection.host_bench import Bench, HostCount, Settings, verdict
from experiments.run import folder as run_folder
from tests.support.commands import assert_one_line, command

GONE = "process 1 on host-b has not been heard for 30 s; start the same command again"


def _ends(*codes, line=GONE, seconds=7.0, killed=None):
    return [End(index, code, seconds, line, index == killed) for index, code in enumerate(codes)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (_ends(0, 0, 0), "went_on"),
        (_ends(0, -9, 0, killed=1), "went_on"),
        (_ends(76, -9, 76, killed=1), "ended"),
        (_ends(76, 76, 76), "ended"),
        (_ends(2, 2, 2, line="error: process 1: it differs"), "refused"),
        (_ends(2, 2, 2, line="error: it differs"), "process 0 names nobody"),
        (_ends(76, -9, 0, killed=1), "exit codes 0: 76, 1: -9, 2: 0"),
        (_ends(76, 0, None), "exit codes 0: 76, 1: 0, 2: None"),
        (_ends(-6, -9, -6, killed=1), "exit codes 0: -6, 1: -9, 2: -6"),
        (_ends(76, -9, 76, killed=1, seconds=61.0), "process 0 ended after 61 s"),
        (_ends(76, -9, 76, killed=1, line="process 2 is gone"), "process 0 does not name the other"),
        (_ends(76, -9, 76, killed=1, line="process 12 is gone"), "process 0 does not name the other"),
    ],
)
def test_how_processes_end_is_judged(found, expected):
    assert verdict(found, 1).startswith(expected)


def test_of_what_the_command_does_not_know_nothing_is_passed():
    words = Settings(heartbeat_seconds=8.0, join_seconds=20.0, extra=("--quiet",)).arguments()
    assert words == ["--quiet", "--heartbeat-seconds", "8", "--join-seconds", "20"]


class _Process:
    """A made-up process that has ended."""

    pid = None

    def __init__(self, exitcode):
        self.exitcode = exitcode

    def is_alive(self):
        """It is not."""
        return False

    def kill(self):
        """It has ended."""

    def join(self, seconds):
        """It has ended."""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench of two hosts, and what its next starts do: (where they resume, what they publish, exit codes)."""
    coming = []

    def start(made, folder, words, num_devices, own):
        resumed, published, codes = coming.pop(0)
        run_dir = tmp_path / folder.name.removesuffix(".logs")
        folder.mkdir(exist_ok=True)
        logs = [tuple(folder / f"{index}.{kind}" for kind in ("out", "err", "phases")) for index in range(2)]
        for index, (out, err, _) in enumerate(logs):
            out.write_text("" if resumed is None or index else f"resuming {run_dir} at step {resumed} of 80\n")
            err.write_text(f"{GONE}\n")
        for step in published:
            checkpoint = run_folder.checkpoints_of(run_dir) / str(step)
            checkpoint.mkdir(parents=True)
            (checkpoint / "_CHECKPOINT_METADATA").write_text("{}")
        killed = {index for index, code in enumerate(codes) if code == -signal.SIGKILL}
        return Cluster(tuple(logs), [_Process(code) for code in codes], killed)

    monkeypatch.setattr(cluster, "start", start)
    monkeypatch.setattr(ends, "is_equal", lambda run_dir, undisturbed: True)
    with hosts.loopback(2, "") as made:
        yield Bench(made, tmp_path, Settings(), random.Random(0)), coming


UNDISTURBED = (None, [80], (0, 0))


@pytest.mark.parametrize(
    ("coming", "expected"),
    [
        ([(None, [10, 20], (76, -9)), (20, [80], (0, 0))], {"ended": 1}),
        ([(None, [10, 20], (76, -9)), (10, [80], (0, 0))], {"ended": 1, "steps_lost": 10}),
        ([(None, [10, 20], (76, -9)), (None, [80], (0, 0))], {"ended": 1, "steps_lost": 20}),
        ([(None, [], (-6, -9)), (None, [80], (0, 0))], {"unexpected": 1}),
        ([(None, [10], (76, -9)), (10, [], (76, 76)), (10, [80], (0, 0))], {"ended": 1, "unexpected": 1}),
        ([(None, [80], (0, 0))], {"went_on": 1}),
    ],
)
def test_a_fault_is_counted_by_how_its_run_goes_on(coming, expected, bench, tmp_path):
    made, starts = bench
    starts[:] = [*coming, UNDISTURBED]
    count, run_dir = HostCount("fault"), made.new()
    found = made.attempt(run_dir, count, lambda running: 0.0, 1)
    count.longest = 0.0
    made.finish(run_dir, count, found)
    assert starts == []
    assert count == HostCount("fault", 1, runs=1, bit_equal=1, **expected)
    assert host_table.is_fine(count) == (expected.keys() <= {"ended", "went_on"})


def test_a_fault_that_comes_too_late_is_not_counted(bench):
    made, starts = bench
    starts[:] = [UNDISTURBED]
    count = HostCount("fault")
    made.attempt(made.new(), count, lambda running: None, 1)
    assert count == HostCount("fault")


def test_an_undisturbed_run_must_end(bench):
    made, starts = bench
    starts[:] = [(None, [80], (0, 0)), (None, [], (0, 76))]
    with pytest.raises(UserError, match=r"the undisturbed run did not end: process 1: 76: process 1 on host-b"):
        made.finish(made.new(), HostCount("fault"), made.attempt(made.new(), HostCount("fault")))


def test_each_kind_of_moment_has_a_length():
    assert host_faults._LENGTHS.keys() == set(cluster.PHASES)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hosts", "2", "--partitions", "-1"], "partitions must be at least 0, got -1"),
        (
            [word for name in fault_injection._OF_HOSTS for word in (f"--{name.replace('_', '-')}", "0")]
            + ["--hosts", "2"],
            "mismatches: one of them must be above 0",
        ),
    ],
)
def test_counts_of_nothing_are_refused(arguments, expected, tmp_path):
    assert_one_line(command("fault_injection", "--out", tmp_path / "out", *arguments), expected)


@pytest.mark.slow
def test_two_hosts_survive_a_kill_a_partition_and_a_mismatch(tmp_path):
    why = hosts.why_not()
    if why:
        pytest.skip(why)
    counts = dict.fromkeys(fault_injection._OF_HOSTS, 0) | {"kills": 1, "partitions": 1, "mismatches": 1}
    host_table.inject(tmp_path, 2, 0, Settings(heartbeat_seconds=15.0), counts, partitions=(5.0,))
    found = json.loads((tmp_path / "hosts.json").read_text())
    assert [each["injected"] for each in found["counts"]] == [1, 1, 1]
    assert found["failures"] == []
