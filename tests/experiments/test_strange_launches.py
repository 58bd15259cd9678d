"""Numbers of processes and addresses that are none end a command; one that has joined others can be ended, too."""

import signal
import subprocess
import sys

import pytest

from tests.experiments.running import SMALL, assert_one_line, command
from tests.test_processes import _free_port

_JOINED = """
import os, signal, sys, time
from experiments import processes
processes.start(processes.Launch(sys.argv[1], 1, 0))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""


@pytest.mark.parametrize(
    ("coordinator", "num_processes", "process_id", "expected"),
    [
        (":1234", 2, 0, "coordinator must be host:port, got ':1234'"),
        ("host:http", 2, 0, "coordinator must be host:port, got 'host:http'"),
        ("host:65536", 2, 0, "coordinator must be host:port, got 'host:65536'"),
        ("host:1234", 2, -1, "process_id must be in 0..1, of num_processes, got -1"),
        ("host:1234", 0, 0, "num_processes must be at least 1, got 0"),
        ("host:1234", -2, 0, "num_processes must be at least 1, got -2"),
    ],
)
def test_a_launch_out_of_range_is_one_line(coordinator, num_processes, process_id, expected, tmp_path):
    launch = ["--coordinator", coordinator, "--num-processes", num_processes, "--process-id", process_id]
    assert_one_line(command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL, *launch), expected)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_has_joined_others_is_ended_by_a_signal_to_which_nobody_listens():
    """JAX would otherwise catch SIGTERM and go on, as evaluate did."""
    done = subprocess.run([sys.executable, "-c", _JOINED, f"127.0.0.1:{_free_port()}"], timeout=120, check=False)
    assert done.returncode == -signal.SIGTERM
