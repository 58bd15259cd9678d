"""Stand-ins for what clusters have: commands that start local processes with the variables that each cluster sets."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.commands import finish

ROOT = Path(__file__).parent.parent.parent
FILES = ROOT / "docs" / "clusters"
ADDRESS = "127.0.0.1"

SRUN = """
import os, subprocess, sys
from itertools import takewhile
options = list(takewhile(lambda word: word.startswith("--"), sys.argv[1:]))
assert options == ["--cpus-per-task=" + os.environ["SLURM_CPUS_PER_TASK"], "--kill-on-bad-exit=0"], options
count = int(os.environ["SLURM_NTASKS"])
shared = {
    "SLURM_STEP_NODELIST": ",".join(["127.0.0.1"] * count), "SLURM_STEP_NUM_TASKS": str(count),
    "SLURM_STEP_NUM_NODES": str(count),
}
tasks = [
    subprocess.Popen(
        sys.argv[1 + len(options):],
        env=os.environ | shared | {"SLURM_PROCID": str(index), "SLURM_LOCALID": "0"}, start_new_session=True,
    )
    for index in range(count)
]
with open(os.environ["STAND_IN"] + "/tasks", "a") as stream:
    stream.write("".join(f"{task.pid}\\n" for task in tasks))
codes = [task.wait() for task in tasks]
sys.exit(max(128 - code if code < 0 else code for code in codes))
"""
"""A step's tasks, each in a session of its own, which gets signals as SLURM's containers do."""

SCONTROL = """
import os, sys
assert sys.argv[1:] == ["requeue", os.environ["SLURM_JOB_ID"]], sys.argv
open(os.environ["STAND_IN"] + "/requeued", "x").close()
"""

SSH = """
import os, sys
words = sys.argv[1:]
assert words[0] == "-o" and "=" in words[1], words
host, command = words[2:]
assert host == "127.0.0.1", words
os.chdir("/")
os.execvp("sh", ["sh", "-c", command])
"""
"""A host's login shell, which begins elsewhere and takes the command as text."""

GCLOUD = """
import os, subprocess, sys
words = sys.argv[1:]
assert words[:6] == ["compute", "tpus", "tpu-vm", "ssh", os.environ["TPU"], "--zone=" + os.environ["ZONE"]], words
assert words[6] == "--worker=all" and words[7].startswith("--command=") and len(words) == 8, words
server = os.environ.get("METADATA", "")
workers = [
    subprocess.Popen(
        ["sh", "-c", words[7].removeprefix("--command=")], stdin=subprocess.DEVNULL,
        env=os.environ | {"GCE_METADATA_IP": f"{server}/{index}", "WORKER": str(index)},
    )
    for index in range(2)
]
codes = [worker.wait() for worker in workers]
sys.exit(next((128 - code if code < 0 else code for code in codes if code), 0))
"""
"""A pod of two workers; ends with the first of their exit codes that is not 0, as gcloud does."""

TRAINING = """
import os, signal, sys, time
from pathlib import Path
received = []
signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
words, folder = sys.argv[1:], Path(os.environ["STAND_IN"])
names = "SLURM_PROCID", "WORKER", "JOB_COMPLETION_INDEX"
index = next((os.environ[name] for name in names if name in os.environ), None) or words[words.index("--process-id") + 1]
codes = (folder / f"codes-{index}").read_text().split()
(folder / f"codes-{index}").write_text(" ".join(codes[1:]))
with (folder / "started").open("a") as stream:
    stream.write(f"{index} {' '.join(words)}\\n")
deadline = time.monotonic() + 60
def wait(is_over):
    while not is_over() and time.monotonic() < deadline:
        time.sleep(0.01)
def starts():
    indices = [line[0] for line in (folder / "started").read_text().splitlines()]
    return [indices.count(each) for each in "01"]
own = starts()[int(index)]
wait(lambda: min(starts()) >= own)
if codes[0] == "wait":
    (folder / f"waits-{index}").touch()
    wait(lambda: received)
    time.sleep(0.2)
    codes = [str(75 if received == [signal.SIGTERM] else 99)]
if int(codes[0]) < 0:
    os.kill(os.getpid(), -int(codes[0]))
sys.exit(int(codes[0]))
"""
"""In the place of Python: once both are there, ends with the codes that stand in a file; or waits for one SIGTERM."""


def install(folder: Path) -> dict[str, str]:
    """Writes the stand-ins into a folder; the environment in which they are found."""
    scripts = {"srun": SRUN, "scontrol": SCONTROL, "ssh": SSH, "gcloud": GCLOUD, "training": TRAINING}
    for name, text in scripts.items():
        (folder / name).write_text(f"#!{sys.executable} -S\n{text}")
        (folder / name).chmod(0o755)
    of_jax = {"TPU_SKIP_MDS_QUERY"}  # set by JAX in this process, which has no TPU
    return {name: value for name, value in os.environ.items() if name not in of_jax} | {
        "PATH": f"{folder}:{os.environ['PATH']}", "STAND_IN": str(folder), "PYTHON": str(folder / "training"),
        "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PJRT_NPROC": "16", "PAUSE": "0",
    }  # fmt: skip


def started(folder: Path) -> list[str]:
    """The processes that were started in the place of training, each with its arguments."""
    return sorted((folder / "started").read_text().splitlines())


def bash(environment: dict[str, str], script: str, *arguments: object) -> subprocess.Popen[str]:
    """A script of the documentation, begun in the checkout; Ctrl-C reaches it where it is ignored here, too."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", "bash", str(FILES / script), *map(str, arguments)],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def directives() -> dict[str, str]:
    """What slurm.sh asks SLURM for."""
    lines = re.findall(r"^#SBATCH +(.*)$", (FILES / "slurm.sh").read_text(), re.MULTILINE)
    found = dict(line.removeprefix("--").partition("=")[::2] for line in lines)
    assert len(found) == len(lines), lines
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", line) for line in lines), lines
    return found


class Job:
    """A job of two tasks on one node each, started again wherever it asked to be."""

    def __init__(self, environment: dict[str, str], *arguments: object, number: int = 4242) -> None:
        asked = directives()
        self._folder, self._arguments = Path(environment["STAND_IN"]), arguments
        self.environment = environment | {
            "SLURM_JOB_ID": str(number), "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": asked["cpus-per-task"],
        }  # fmt: skip
        self.restarts = int(environment.get("SLURM_RESTART_COUNT", "0"))

    def run(self) -> int:
        """The last exit code, once no other start is asked for."""
        while True:
            done = finish(self.begin())
            if not self.is_requeued():
                print(done.stderr, file=sys.stderr)
                return done.returncode

    def begin(self) -> subprocess.Popen[str]:
        """The next start."""
        return bash(self.environment | {"SLURM_RESTART_COUNT": str(self.restarts)}, "slurm.sh", *self._arguments)

    def is_requeued(self) -> bool:
        """Whether the last start asked for another one; counts it."""
        marker = self._folder / "requeued"
        if not marker.exists():
            return False
        marker.unlink()
        self.restarts += 1
        return True

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all processes of the last step, as --signal does."""
        for pid in (self._folder / "tasks").read_text().split()[-2:]:
            os.killpg(int(pid), number)


class JobSet(NamedTuple):
    """What kubernetes.yaml asks for."""

    claim: dict
    whole: dict
    job: dict
    pod: dict
    container: dict


def job_set() -> JobSet:
    """The manifest, taken apart."""
    claim, whole = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    [replicated] = whole["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    return JobSet(claim, whole, job, pod, container)


def start_pod(environment: dict[str, str], index: int, arguments: list[str]) -> subprocess.Popen[str]:
    """A pod of the set: the container's command with its references expanded, which no shell does."""
    container = job_set().container
    variables = {"JOB_COMPLETION_INDEX": str(index), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    variables |= {each["name"]: each["value"] for each in container.get("env", [])}
    words = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word) for word in arguments]
    assert container["command"][0] == ".venv/bin/python"
    return subprocess.Popen(
        [environment["PYTHON"], *container["command"][1:], *words],
        env=environment | variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_job_set(environment: dict[str, str], arguments: list[str], most: int) -> tuple[bool, int]:
    """Whether the set of two pods succeeds, and how often it was started again, by the manifest's policies but one."""
    asked = job_set()
    [rule], [of_set] = asked.job["podFailurePolicy"]["rules"], asked.whole["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"], asked.job["backoffLimit"]) == ("FailJob", "In", 0)
    assert (of_set["action"], of_set["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    for restarts in range(most + 1):
        codes = [finish(pod).returncode for pod in [start_pod(environment, i, arguments) for i in range(2)]]
        if set(codes) & set(rule["onExitCodes"]["values"]) or not any(codes):
            return not any(codes), restarts
    return False, most


class _Metadata(BaseHTTPRequestHandler):
    """What Google's machines tell themselves; a worker's own path begins with its number."""

    def do_GET(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        server: Any = self.server
        facts = {"agent-worker-number": self.path.split("/")[1], "worker-network-endpoints": f"{ADDRESS},{ADDRESS}"}
        answer = facts.get(self.path.split("/")[-1], "")
        if self.path.startswith("/instance/preempted?wait_for_change=true&timeout_sec="):
            server.asked.set()
            answer = "TRUE" if server.is_taken_back.wait(timeout=1) else "FALSE"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, format: str, *words: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def metadata_server() -> Iterator[Any]:
    """A metadata server of this machine, which is taken back once ``is_taken_back`` is set."""
    server: Any = ThreadingHTTPServer((ADDRESS, 0), _Metadata)
    server.is_taken_back, server.asked, server.daemon_threads = threading.Event(), threading.Event(), True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of_pod(folder: Path, server: Any) -> dict[str, str]:
    """The variables of a TPU pod's workers, whose chips JAX finds among the devices on the bus."""
    address, chip = f"{ADDRESS}:{server.server_address[1]}", folder / "chip"
    chip.mkdir()
    (chip / "vendor").write_text("0x1ae0\n")
    (chip / "device").write_text("0x0062\n")
    (folder / "sitecustomize.py").write_text(
        f"import glob\nfound, chip = glob.glob, {str(chip / 'vendor')!r}\n"
        "glob.glob = lambda at, **more: [chip] if at.startswith('/sys/bus/pci/') else found(at, **more)\n"
    )
    return {
        "TPU": "pod", "ZONE": "zone", "CLONE": str(ROOT), "JAX_FORCE_TPU_INIT": "1", "METADATA": address,
        "NOTICE": f"http://{address}/instance/preempted", "PYTHONPATH": f"{folder}:{ROOT}", "no_proxy": ADDRESS,
    }  # fmt: skip


def processes_of(run_dir: Path) -> list[int]:
    """Of how many processes each start of a run was."""
    lines = (run_dir / "starts.jsonl").read_text().splitlines()
    return [json.loads(line)["num_processes"] for line in lines]
