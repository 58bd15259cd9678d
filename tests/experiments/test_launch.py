"""One command in several processes: how they find each other, stop together, and end together."""

import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.runtime import distributed
from tests.experiments.test_resume import _loss_lines, _wait_for_checkpoint, final_state
from tests.repo.test_processes import _free_port
from tests.support.commands import SHORT, SMALL, assert_one_line, command, finish, start

LONG = [
    *(word for word in SMALL if not word.startswith(("--num-steps", "--save-every", "--log-every"))),
    "--num-steps=300", "--save-every=20", "--log-every=20",
]  # fmt: skip
JOINED = """
import os, signal, sys, time
from experiments.runtime import distributed
distributed.start(distributed.Launch(sys.argv[1], 1, 0))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""


def _launch(coordinator, num_processes=2, process_id=0):
    return ["--coordinator", coordinator, "--num-processes", num_processes, "--process-id", process_id]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_NTASKS": "4"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "two"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "host-0", "TPU_PROCESS_ADDRESSES": "host-0:8476,host-1:8476"}, True),
        ({"TPU_WORKER_HOSTNAMES": "host-0", "MEGASCALE_NUM_SLICES": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host-0", "MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)
def test_a_cluster_s_processes_are_known_by_its_environment(environment, expected):
    """SLURM_NTASKS stands in a batch script's own process, too, which srun did not start."""
    assert distributed.is_one_of_several(environment) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--coordinator", "host:1"], "num_processes must be given, too"),
        (["--num-processes", "2", "--process-id", "0"], "coordinator must be given, too"),
        (_launch("host"), "coordinator must be host:port, got 'host'"),
        (_launch("h:0"), "coordinator must be host:port, got 'h:0'"),
        (_launch(":1234"), "coordinator must be host:port, got ':1234'"),
        (_launch("host:http"), "coordinator must be host:port, got 'host:http'"),
        (_launch("http://host:1234"), "coordinator must be host:port, got 'http://host:1234'"),
        (_launch("host:65536"), "coordinator must be host:port, got 'host:65536'"),
        (_launch("h:1", process_id=2), "process_id must be in 0..1"),
        (_launch("host:1234", process_id=-1), "process_id must be in 0..1, of num_processes, got -1"),
        (_launch("host:1234", num_processes=0), "num_processes must be at least 1, got 0"),
        (_launch("host:1234", num_processes=-2), "num_processes must be at least 1, got -2"),
        (["--join-seconds", "0"], "join_seconds must be in 1..86400, got 0"),
        (["--join-seconds", 2**31], "join_seconds must be in 1..86400, got 2147483648"),
        (["--heartbeat-seconds", "5"], "heartbeat_seconds must be above 5, and at most 86400, got 5.0"),
        (["--heartbeat-seconds", "1e10"], "heartbeat_seconds must be above 5, and at most 86400, got 10000000000.0"),
        (["--heartbeat-seconds", "nan"], "heartbeat_seconds must be above 5, and at most 86400, got nan"),
        (["--stuck-seconds", "0"], "stuck_seconds must be above 0, got 0.0"),
    ],
)
def test_a_wrong_launch_is_one_line_before_anything_is_written(arguments, expected, tmp_path):
    assert_one_line(command("train", "mixture", "--run-dir", tmp_path / "run", *arguments), expected)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_has_joined_others_is_ended_by_a_signal_to_which_nobody_listens():
    """JAX would otherwise catch SIGTERM and go on, as evaluate did."""
    done = subprocess.run([sys.executable, "-c", JOINED, f"127.0.0.1:{_free_port()}"], timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM


def _start_two(*arguments, each=((), ())):
    """Two processes of one command, with arguments of their own."""
    launch = ["--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", 2]
    return [start("train", *arguments, *launch, "--process-id", index, *own) for index, own in enumerate(each)]


@pytest.mark.slow
def test_a_signal_to_one_of_two_stops_both_and_they_go_on_to_the_same_end(tmp_path):
    """Both save the same step and end with exit code 75; the end is, bit by bit, that of two who were not stopped."""
    whole, stopped = ((*("mixture", "--run-dir", tmp_path / name), *LONG) for name in ("whole", "stopped"))
    for done in map(finish, _start_two(*whole)):
        assert done.returncode == 0, done.stderr
    started = _start_two(*stopped)
    _wait_for_checkpoint(tmp_path / "stopped", started[0])
    started[1].send_signal(signal.SIGTERM)
    for done in map(finish, started):
        assert done.returncode == 75, done.stderr
    first, _ = resumed = [finish(process) for process in _start_two(*stopped)]
    assert [done.returncode for done in resumed] == [0, 0], resumed
    assert "resuming" in first.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    assert _loss_lines(tmp_path / "whole") == _loss_lines(tmp_path / "stopped")


@pytest.mark.slow
def test_a_mistake_on_one_of_two_ends_both_with_a_line_that_names_it(tmp_path, data_dir):
    own = (("--data-dir", data_dir), ("--data-dir", tmp_path / "nowhere"))
    for process in _start_two("digits", "--run-dir", tmp_path / "run", *SHORT, each=own):
        done = finish(process)
        assert done.returncode == 2
        assert "process 1 on " in done.stderr
        assert "not prepared" in done.stderr


def test_samples_are_the_same_where_the_environment_asks_for_other_keys(trained_mixture, tmp_path, monkeypatch):
    """JAX_DEFAULT_PRNG_IMPL=rbg, usual on TPUs, would draw a batch by its first key; two devices here, eight there."""
    options = ["--labels", 0, 1, "--num-samples", 4, "--num-steps", 4]
    done = command("sample", trained_mixture, *options, "--out", tmp_path / "eight.npz")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("JAX_DEFAULT_PRNG_IMPL", "rbg")
    done = finish(start("sample", trained_mixture, *options, "--out", tmp_path / "two.npz", num_devices=2))
    assert done.returncode == 0, done.stderr
    two, eight = (np.load(tmp_path / name)["x"] for name in ("two.npz", "eight.npz"))
    np.testing.assert_allclose(two, eight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_training_is_the_same_where_the_environment_asks_for_other_keys(trained_mixture, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DEFAULT_PRNG_IMPL", "rbg")
    done = finish(start("train", "mixture", "--run-dir", tmp_path / "two", *SMALL, num_devices=2))
    assert done.returncode == 0, done.stderr
    two, eight = (np.array(_loss_lines(folder), float) for folder in (tmp_path / "two", trained_mixture))
    np.testing.assert_allclose(two, eight, rtol=1e-3)
