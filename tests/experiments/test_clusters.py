"""The files of docs/clusters: what they ask clusters for, and when they start again, with stand-ins for clusters."""

import re
import signal
import subprocess
import time

import pytest
from jax._src import clusters as jax_clusters
from jax._src.clusters import cloud_tpu_cluster

from tests.support import clusters
from tests.support.clusters import ADDRESS, FILES, Job, bash, directives, job_set, run_job_set, started
from tests.support.commands import finish

ARGUMENTS = ["mixture", "--run-dir", "a folder's name", "--source", "$HOME 'quoted'"]
AGAIN = [
    ([["0"], ["0"]], 0, 1),
    ([["75", "76", "0"], ["75", "-9", "0"]], 0, 3),
    ([["2"], ["76"]], 2, 1),
    ([["76", "76"], ["76", "3"]], 3, 2),
    ([["75"] * 3, ["75"] * 3], 75, 3),
]
"""Codes of two processes at one start after another, the last exit code, and the number of starts, of three allowed."""


@pytest.fixture
def stand_ins(tmp_path):
    """The environment in which clusters' commands, and training, are stand-ins."""
    return clusters.install(tmp_path) | {"RESTARTS": "2", "TPU": "pod", "ZONE": "zone", "HOSTS": f"{ADDRESS} {ADDRESS}"}


def _expect(folder, codes):
    for index, of_process in enumerate(codes):
        (folder / f"codes-{index}").write_text(" ".join(of_process))


def _await(file):
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.01)


def _line(index, *more):
    return " ".join([str(index), "-m experiments.train", *ARGUMENTS, *map(str, more)])


@pytest.mark.parametrize("script", sorted(path.name for path in FILES.glob("*.sh")))
def test_the_scripts_parse_and_can_be_started(script):
    subprocess.run(["bash", "-n", FILES / script], check=True)
    assert (FILES / script).read_text().startswith("#!/bin/bash\n")


def test_slurm_is_asked_for_a_task_a_gpu_a_signal_and_another_start():
    """JAX gives each task the GPU of its number on the node, so that there must be as many, all to be seen by each."""
    asked = directives()
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert "gpus-per-task" not in asked
    assert asked["signal"].startswith("TERM@")
    assert asked["requeue"] == ""
    assert asked["open-mode"] == "append"


@pytest.mark.parametrize(("codes", "code", "starts"), AGAIN)
def test_a_job_of_slurm_starts_again(codes, code, starts, stand_ins, tmp_path):
    _expect(tmp_path, codes)
    job = Job(stand_ins, *ARGUMENTS)
    assert job.run() == code
    assert job.restarts == starts - 1
    assert started(tmp_path) == [_line(index) for index in range(2) for _ in range(starts)]


def test_slurm_s_signal_stops_a_job_once(stand_ins, tmp_path):
    """The shell around a task gets it, too, and waits for the save."""
    _expect(tmp_path, [["wait", "0"]] * 2)
    job = Job(stand_ins, *ARGUMENTS)
    first = job.begin()
    for index in range(2):
        _await(tmp_path / f"waits-{index}")
    job.signal(signal.SIGTERM)
    assert finish(first).returncode == 75
    assert job.is_requeued()
    assert job.run() == 0


@pytest.mark.parametrize(("codes", "code", "starts"), AGAIN)
def test_hosts_reached_by_ssh_start_again(codes, code, starts, stand_ins, tmp_path):
    _expect(tmp_path, codes)
    done = finish(bash(stand_ins, "ssh.sh", *ARGUMENTS))
    assert done.returncode == code, done.stderr
    process = f"--coordinator {ADDRESS}:12345 --num-processes 2 --process-id"
    assert started(tmp_path) == [_line(index, process, index) for index in range(2) for _ in range(starts)]


def test_a_host_that_fails_alone_ends_the_others(stand_ins, tmp_path):
    """As where a package is missing on one: the others need not wait for it."""
    _expect(tmp_path, [["wait"], ["127"]])
    assert finish(bash(stand_ins, "ssh.sh", *ARGUMENTS)).returncode == 127
    assert (tmp_path / "waits-0").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_script_stops_all_hosts(number, stand_ins, tmp_path):
    """Each process gets one SIGTERM, by the end of its connection's input, and has ended before the script has."""
    _expect(tmp_path, [["wait"], ["wait"]])
    process = bash(stand_ins, "ssh.sh", *ARGUMENTS)
    for index in range(2):
        _await(tmp_path / f"waits-{index}")
    process.send_signal(number)
    assert finish(process).returncode == (-9 if number == signal.SIGKILL else 75)
    assert len(started(tmp_path)) == 2


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [*AGAIN[1:3], ([["75"] * 3, ["75"] * 3], 75, 3), ([["0"], ["1"]], 1, 1)],
)
def test_the_workers_of_a_pod_start_again(codes, code, starts, stand_ins, tmp_path):
    """gcloud tells the first worker's code that is not 0."""
    _expect(tmp_path, codes)
    done = finish(bash(stand_ins | {"CLONE": str(clusters.ROOT)}, "tpu.sh", *ARGUMENTS))
    assert done.returncode == code, done.stderr
    assert started(tmp_path) == [_line(index, "--distributed") for index in range(2) for _ in range(starts)]


def test_the_pods_find_each_other_and_what_they_share():
    """A pod's name is that of its set, of its job in it and of its number; its subdomain is the headless service."""
    asked = job_set()
    assert (asked.whole["apiVersion"], asked.whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    network, [replicated] = asked.whole["spec"]["network"], asked.whole["spec"]["replicatedJobs"]
    assert network["enableDNSHostnames"] is True
    options = dict(word.removeprefix("--").split("=") for word in asked.container["args"][1:])
    host, port = options["coordinator"].split(":")
    assert host == f"{asked.whole['metadata']['name']}-{replicated['name']}-0-0.{network['subdomain']}"
    assert int(port) in [each["containerPort"] for each in asked.container["ports"]]
    assert int(options["num-processes"]) == asked.job["parallelism"] == asked.job["completions"]
    assert (replicated["replicas"], asked.job["completionMode"]) == (1, "Indexed")
    [volume], [mount] = asked.pod["volumes"], asked.container["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == asked.claim["metadata"]["name"]
    assert asked.claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volume["name"] == mount["name"]
    assert all(options[name].startswith(mount["mountPath"] + "/") for name in ("run-dir", "data-dir"))


def test_a_pod_s_process_is_told_of_the_signal_and_has_time_to_save():
    """A shell between would keep it; Jobs with a policy of failures want pods that never start again by themselves."""
    asked = job_set()
    assert asked.container["command"] == [".venv/bin/python", "-m", "experiments.train"]
    assert asked.pod["terminationGracePeriodSeconds"] == 120
    assert asked.pod["restartPolicy"] == "Never"
    assert asked.job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == asked.container["name"]


@pytest.mark.parametrize(
    ("codes", "succeeds", "restarts"),
    [
        ([["75", "76", "0"], ["75", "-9", "0"]], True, 2),
        ([["2"], ["76"]], False, 0),
        ([["76", "3"], ["76", "76"]], False, 1),
        ([["75"] * 3, ["75"] * 3], False, 2),
    ],
)
def test_a_job_set_starts_again(codes, succeeds, restarts, stand_ins, tmp_path):
    _expect(tmp_path, codes)
    assert run_job_set(stand_ins, job_set().container["args"], most=2) == (succeeds, restarts)
    assert started(tmp_path)[-1].endswith("--num-processes=4 --process-id=1")


SLURM = {
    "SLURM_JOB_ID": "5000", "SLURM_STEP_NODELIST": "node[07-09],other", "SLURM_NTASKS": "8", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": f"{5000 * 4096}.0;tcp://10.0.0.7:34911", "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
SLICES = {
    "TPU_WORKER_HOSTNAMES": "localhost,other", "TPU_WORKER_ID": "1", "MEGASCALE_NUM_SLICES": "4",
    "MEGASCALE_SLICE_ID": "2", "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cluster", "variables", "coordinator", "local"),
    [
        (jax_clusters.SlurmCluster, SLURM, "node07:62344", 1),
        (jax_clusters.OmpiCluster, OPEN_MPI, "10.0.0.7:62344", 1),
        (jax_clusters.GkeTpuCluster, SLICES, "localhost:8482", None),
    ],
)
def test_jax_reads_the_variables_that_the_page_names(cluster, variables, coordinator, local, monkeypatch):
    """Process 5 of 8, with the port that JAX chooses; the process takes one GPU where it is told its own number."""
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cluster.is_env_present()
    found = cluster.get_coordinator_address(1, None), cluster.get_process_count(), cluster.get_process_id()
    assert found == (coordinator, 8, 5)
    assert cluster.get_local_process_id() == local
    page = (FILES.parent / "clusters.md").read_text()
    assert all(f"`{name}`" in page for name in variables)


def test_the_page_shows_the_files_themselves():
    page = (FILES.parent / "clusters.md").read_text()
    shown = re.findall(r"\{literalinclude\} clusters/(\S+)", page)
    assert sorted(shown) == sorted(path.name for path in FILES.iterdir())
