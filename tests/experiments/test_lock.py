"""The lease of a run's folder among containers, whose names and numbers of processes repeat."""

import subprocess
import sys
import time

import pytest

from experiments.run import lock as run_lock

CONTAINER = ["unshare", "--pid", "--fork", "--uts", "--mount-proc", "--kill-child"]
LEASE_SECONDS = 6.0
OWNER = f"""
import os, socket, sys, time
from pathlib import Path
from experiments.cli.main import UserError
from experiments.run import lock
lock.LEASE_SECONDS = {LEASE_SECONDS}
socket.sethostname("job-0")
start = time.monotonic()
if os.getpid() == 1 and sys.argv[2] == "twice" and os.fork() == 0:
    sys.stdin.readline()
try:
    with lock.owned(Path(sys.argv[1])):
        print("owned", os.getpid(), time.monotonic() - start, flush=True)
        sys.stdin.readline() if sys.argv[2] != "once" else None
        time.sleep(60) if sys.argv[2] == "twice" else None
except UserError as error:
    print("refused", os.getpid(), time.monotonic() - start, error, flush=True)
"""


def _contained(folder, how):
    """Process 1 of a container of the name job-0, which owns the folder."""
    return subprocess.Popen(
        [*CONTAINER, sys.executable, "-c", OWNER, str(folder), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _said(process):
    what, number, seconds, *rest = process.stdout.readline().split(maxsplit=3)
    return what, int(number), float(seconds), "".join(rest)


@pytest.fixture(autouse=True)
def _containers():
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make namespaces")


@pytest.mark.slow
def test_a_killed_container_s_lease_is_taken_over_by_the_next_of_its_name(tmp_path):
    first = _contained(tmp_path, "until told")
    assert _said(first)[:2] == ("owned", 1)
    first.kill()
    first.communicate(timeout=60)
    assert (tmp_path / run_lock.NAME).exists()
    second = _contained(tmp_path, "once")
    what, number, seconds, _ = _said(second)
    second.communicate(timeout=60)
    assert (what, number) == ("owned", 1)
    assert seconds < LEASE_SECONDS + 5


@pytest.mark.slow
def test_a_second_trainer_in_a_container_is_refused_at_once(tmp_path):
    first = _contained(tmp_path, "twice")
    assert _said(first)[:2] == ("owned", 1)
    start = time.monotonic()
    first.stdin.write("\n")
    first.stdin.flush()
    what, number, _, message = _said(first)
    first.kill()
    first.communicate(timeout=60)
    assert (what, number > 1) == ("refused", True)
    assert "is being trained by process 1 on job-0;" in message
    assert time.monotonic() - start < LEASE_SECONDS
