"""The harness of faults counts: made-up processes of runs, logs and folders."""

import json
import os
import random
import signal

import numpy as np
import pytest

from experiments.cli.main import UserError
from experiments.fault_injection import ends, harness
from experiments.fault_injection.subprocesses import NUM_STEPS
from experiments.run import folder as run_folder
from experiments.run import metrics_log


class _Ended:
    """A process that has ended, and has left what it should."""

    pid = None

    def __init__(self, exitcode):
        self.exitcode = exitcode

    def join(self):
        """It has ended."""

    def is_alive(self):
        """It is not."""
        return False


def _publish(run_dir, step):
    folder = run_folder.checkpoints_of(run_dir) / str(step)
    folder.mkdir(parents=True)
    (folder / "_CHECKPOINT_METADATA").write_text("{}")
    (folder / "array").write_bytes(b"content")


@pytest.fixture
def processes(monkeypatch):
    """What the next processes of runs do, in turn: (where they resume, what they publish, their exit code)."""
    coming = []

    def start(experiment, log):
        resumed, published, exitcode = coming.pop(0)
        with log.open("a") as stream:
            if resumed is not None:
                stream.write(f"resuming {experiment.run_dir} at step {resumed} of {NUM_STEPS}\n")
        for step in published:
            _publish(experiment.run_dir, step)
        return _Ended(exitcode)

    monkeypatch.setattr(harness.subprocesses, "start", start)
    monkeypatch.setattr(ends, "is_equal", lambda run_dir, undisturbed: "different" not in run_dir.parts)
    return coming


UNDISTURBED = (None, [400], 0)


def test_the_harness_needs_an_undisturbed_end(processes, tmp_path):
    processes[:] = [(None, [20], 2)]
    with pytest.raises(UserError, match=r"the undisturbed run did not end: exit code 2, see .*undisturbed\.log"):
        harness.Harness(tmp_path / "out", 0)


def test_a_run_to_be_damaged_must_have_saved_twice(processes, tmp_path):
    processes[:] = [UNDISTURBED, (None, [20], 1)]
    with pytest.raises(UserError, match=r"a run did not save twice: exit code 1, see"):
        harness.Harness(tmp_path / "out", 0).damages(1)


def test_each_fault_is_reported(processes, tmp_path):
    processes[:] = [UNDISTURBED, (None, [20], -9), (20, [40], -9), (40, [400], 0)]
    reported = []
    harness.Harness(tmp_path / "out", 0, lambda: reported.append(len(processes))).signals(signal.SIGKILL, 2)
    assert reported == [2, 1]


@pytest.mark.parametrize(
    ("number", "times", "coming", "expected"),
    [
        (signal.SIGKILL, 1, [(None, [20, 40], -9), (40, [400], 0)], {"recovered": 1}),
        (signal.SIGKILL, 1, [(None, [20, 40], -9), (20, [400], 0)], {"steps_lost": 20}),
        (signal.SIGKILL, 1, [(None, [20, 40], -9), (None, [400], 0)], {"steps_lost": 40}),
        (signal.SIGKILL, 1, [(None, [], -9), (None, [400], 0)], {"recovered": 1}),
        (signal.SIGKILL, 2, [(None, [20], -9), (None, [], -9), (20, [400], 0)], {"recovered": 2}),
        (signal.SIGKILL, 2, [(None, [20], -9), (20, [40], -9), (20, [400], 0)], {"recovered": 1, "steps_lost": 20}),
        (signal.SIGKILL, 1, [(None, [400], 0), (None, [20], -9), (20, [400], 0)], {"recovered": 1, "runs": 2}),
        (signal.SIGKILL, 1, [(None, [20], 1), (20, [400], 0)], {"recovered": 1, "unexpected": 1}),
        (signal.SIGTERM, 1, [(None, [20], 75), (20, [400], 0)], {"recovered": 1}),
        (signal.SIGTERM, 1, [(None, [20], 143), (20, [400], 0)], {"recovered": 1, "unexpected": 1}),
    ],
)
def test_signals_are_counted_by_where_the_next_process_resumes(number, times, coming, expected, processes, tmp_path):
    processes[:] = [UNDISTURBED, *coming]
    count = harness.Harness(tmp_path / "out", 0).signals(number, times)
    runs_done = expected.get("runs", 1)
    assert processes == []
    assert count == harness.Count(number.name, times, **({"runs": runs_done, "bit_equal": runs_done} | expected))


def test_a_run_that_ends_elsewhere_is_not_bit_equal(processes, tmp_path):
    processes[:] = [UNDISTURBED, (None, [20], -9), (20, [400], 0)]
    count = harness.Harness(tmp_path / "different", 0).signals(signal.SIGKILL, 1)
    assert (count.runs, count.bit_equal) == (1, 0)


def test_a_run_that_does_not_end_is_an_error(processes, tmp_path):
    processes[:] = [UNDISTURBED, (None, [20], -9), (20, [], 2)]
    with pytest.raises(UserError, match="a run did not end: exit code 2, see"):
        harness.Harness(tmp_path / "out", 0).signals(signal.SIGKILL, 1)


@pytest.mark.parametrize(
    ("resumed", "expected"),
    [
        (40, {"recovered": 1}),
        (20, {"recovered": 1, "fell_back": 1}),
        (None, {"steps_lost": 40}),
    ],
)
def test_a_damaged_checkpoint_costs_nothing_but_the_way_back_to_the_one_before(
    resumed, expected, processes, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        harness.Harness, "_partial", lambda self, run_dir: [_publish(run_dir, step) for step in (20, 40)]
    )
    processes[:] = [UNDISTURBED, (resumed, [400], 0)]
    count = harness.Harness(tmp_path / "out", 0).damages(1)
    assert count == harness.Count("newest checkpoint corrupt", 1, runs=1, bit_equal=1, **expected)


def test_checkpoints_that_are_being_written_are_those_begun_since(tmp_path):
    for name, moment in (("20", 200), ("40.orbax-checkpoint-tmp", 100), ("60.orbax-checkpoint-tmp", 200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (moment, moment))
    assert ends.temporaries(tmp_path, 150) == [tmp_path / "60.orbax-checkpoint-tmp"]


def test_runs_are_equal_where_all_bits_and_losses_are(tmp_path, monkeypatch):
    states = {"a": {"w": np.float32([1, 2])}, "b": {"w": np.float32([1, 2])}, "c": {"w": np.float32([1, 2 + 2e-7])}}
    states |= {"d": states["a"] | {"v": np.float32([0])}, "e": states["a"]}
    for name in states:
        (tmp_path / name).mkdir()
        loss = 0.25 if name == "e" else 0.5
        line = {"step": 10, "loss": loss, "examples_per_second": random.random()}
        (tmp_path / name / metrics_log.NAME).write_text(json.dumps(line) + "\n")
    monkeypatch.setattr(ends, "_final", lambda run_dir: states[run_dir.name])
    assert [ends.is_equal(tmp_path / name, tmp_path / "a") for name in "abcde"] == [True, True, False, False, False]


@pytest.mark.parametrize("run_dir", ["runs/faults/run-1", "/my runs/run-1", "runs at step 7 of 9/run-1"])
def test_the_step_of_resuming_is_found_for_folders_of_any_name(run_dir, tmp_path):
    (tmp_path / "log").write_text(f"resuming {run_dir} at step 40 of 400\nwarning: slow\n")
    assert harness._resumed_at(tmp_path / "log", 0) == 40
