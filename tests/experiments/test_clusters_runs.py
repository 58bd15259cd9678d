"""The files of docs/clusters train the mixture in two processes, with stand-ins for the clusters."""

import os
import re
import signal
import sys
import time

import jax
import numpy as np
import pytest

from experiments.run import folder as run_folder
from experiments.run import lock as run_lock
from tests.experiments.test_resume import final_state
from tests.repo.test_processes import _free_port
from tests.support import clusters
from tests.support.clusters import ADDRESS, Job, bash, job_set, metadata_server, of_pod, processes_of, start_pod
from tests.support.commands import SMALL, finish

TINY = [word for word in SMALL if not word.startswith("--log-every")]
LONG = [*(word for word in TINY if not word.startswith(("--num-steps", "--save-every"))), "--save-every=20"]


@pytest.fixture
def environment(tmp_path):
    """The environment in which clusters' commands are stand-ins, and training is not."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    return clusters.install(folder) | {"PYTHON": sys.executable, "HOSTS": f"{ADDRESS} {ADDRESS}", "RESTARTS": "0"}


def _await_checkpoint(run_dir, process):
    """Waits until a checkpoint is published."""
    deadline = time.monotonic() + 300
    while not any(run_folder.checkpoints_of(run_dir).glob("[0-9]*[0-9]")):
        assert process.poll() is None, finish(process).stderr
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_slurm_stops_a_run_in_time_and_queues_it_again(environment, tmp_path):
    """JAX chooses the coordinator's port by the number of the job."""
    run_dir, port = tmp_path / "run", _free_port()
    environment["RESTARTS"] = "1"
    job = Job(environment, "mixture", "--run-dir", run_dir, *LONG, "--num-steps=100000", number=port + 1)
    job.environment["JAX_COORDINATOR_PORT"] = str(port)
    first = job.begin()
    _await_checkpoint(run_dir, first)
    job.signal(signal.SIGTERM)
    done = finish(first)
    assert done.returncode == 75, done.stderr
    assert re.search(r"stopped at step \d+ of 100000 and saved", done.stderr)
    assert job.is_requeued()
    assert processes_of(run_dir) == [2]


@pytest.mark.slow
def test_hosts_reached_by_ssh_are_stopped_by_sigusr1_to_one(environment, tmp_path):
    run_dir = tmp_path / "run"
    environment["PORT"] = str(_free_port())
    process = bash(environment, "ssh.sh", "mixture", "--run-dir", run_dir, *LONG, "--num-steps=100000")
    _await_checkpoint(run_dir, process)
    [owner] = re.findall(r"^pid=(\d+)$", (run_dir / run_lock.NAME).read_text(), re.MULTILINE)
    os.kill(int(owner), signal.SIGUSR1)
    done = finish(process)
    assert done.returncode == 75, done.stderr
    assert re.search(r"stopped at step \d+ of 100000 and saved", done.stderr)
    assert processes_of(run_dir) == [2]


@pytest.mark.slow
def test_pods_train_as_one_process_does(environment, tmp_path, trained_mixture):
    """The manifest's own arguments, but for the preset, two names and two numbers; JAX sees that it is in a cluster."""
    own = {
        "coordinator": f"{ADDRESS}:{_free_port()}", "num-processes": "2",
        "run-dir": str(tmp_path / "run"), "data-dir": str(tmp_path),
    }  # fmt: skip
    options = [word.partition("=")[::2] for word in job_set().container["args"][1:]]
    words = ["mixture", *(f"{name}={own.get(name.removeprefix('--'), value)}" for name, value in options), *SMALL]
    for pod in [start_pod(environment, index, words) for index in range(2)]:
        done = finish(pod)
        assert done.returncode == 0, done.stderr
    assert processes_of(tmp_path / "run") == [2]
    found, expected = (final_state(folder) for folder in (tmp_path / "run", trained_mixture))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3), found, expected)


@pytest.mark.slow
def test_a_notice_of_preemption_stops_all_workers_of_a_pod(environment, tmp_path):
    """The metadata server says FALSE, and then TRUE; a worker's number and the others' addresses are its, too."""
    run_dir = tmp_path / "run"
    with metadata_server() as server:
        pod = of_pod(tmp_path, server) | {"JAX_COORDINATOR_PORT": str(_free_port()), "RESTARTS": "0"}
        process = bash(environment | pod, "tpu.sh", "mixture", "--run-dir", run_dir, *LONG, "--num-steps=100000")
        _await_checkpoint(run_dir, process)
        assert server.asked.is_set()
        server.is_taken_back.set()
        done = finish(process)
    assert done.returncode == 75, done.stderr
    [step] = set(re.findall(r"stopped at step (\d+) of 100000 and saved", done.stderr))
    assert (run_folder.checkpoints_of(run_dir) / step).is_dir()
    assert processes_of(run_dir) == [2]
