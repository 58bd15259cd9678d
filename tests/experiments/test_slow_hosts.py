"""Two and four processes of a command, one of which is made slow: whoever holds the others up is named."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from experiments.run import metrics_log
from tests.repo.test_processes import _free_port

RUN = [
    "--network.width=16", "--network.depth=1", "--network.embedding-width=8", "--num-steps=1000000",
    "--batch-size=16", "--num-microbatches=1", "--save-every=1000000", "--log-every=5",
]  # fmt: skip
MOST_SECONDS = 600


class Hosts:
    """Processes of a command on this machine, each with its file that slows its data down."""

    def __init__(self, folder, number, cores):
        self.folder, self._read = folder, 0
        launch = ["--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", str(number), "--process-id"]
        run = ["mixture", "--run-dir", str(folder / "run"), *RUN, *launch]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
        self.processes = []
        for index in range(number):
            own = [str(cores[index]) if cores else "-1", str(self.slow_data(index)), *run, str(index)]
            with (folder / f"messages_{index}").open("w") as stream:
                program = [sys.executable, "-m", "tests.support.slow_host", *own]
                self.processes.append(subprocess.Popen(program, stderr=stream, env=environment))

    def slow_data(self, index):
        return self.folder / f"slow_{index}"

    def _new_rows(self):
        file = self.folder / "run" / metrics_log.NAME
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [row for row in map(metrics_log.row_of, lines[self._read :]) if row is not None]
        self._read = len(lines)
        return rows

    def wait_for(self, named):
        """Waits for a line from now on that names this process, or none."""
        self._new_rows()
        until = time.monotonic() + MOST_SECONDS
        while time.monotonic() < until:
            assert all(process.poll() is None for process in self.processes), self.messages()
            names = [row.get("slowest_host") for row in self._new_rows() if "host_shares" in row]
            if any(name is None if named is None else (name or "").startswith(f"process {named}") for name in names):
                return
            time.sleep(0.1)
        raise TimeoutError(self.messages())

    def messages(self):
        return (self.folder / "messages_0").read_text()

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            return [process.wait(MOST_SECONDS) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


@contextlib.contextmanager
def _slow_data(hosts, index, seconds):
    file = hosts.slow_data(index)
    file.write_text(str(seconds))
    yield
    file.unlink()


@contextlib.contextmanager
def _stopped_half_of_the_time(process, seconds):
    ended = threading.Event()

    def work():
        while not ended.is_set():
            process.send_signal(signal.SIGSTOP)
            ended.wait(seconds)
            process.send_signal(signal.SIGCONT)
            ended.wait(seconds)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextlib.contextmanager
def _busy(core):
    """Inside, another program wants the core."""
    program = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", program])
    yield
    process.kill()
    process.wait()


TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


@pytest.mark.slow
@TWO_CORES
def test_of_two_processes_the_slow_one_is_named_whatever_makes_it_slow(tmp_path):
    cores = sorted(os.sched_getaffinity(0))[:2]
    hosts = Hosts(tmp_path, 2, cores)
    try:
        hosts.wait_for(None)
        with _slow_data(hosts, 1, 0.3):
            hosts.wait_for(1)
        with _stopped_half_of_the_time(hosts.processes[0], 0.25):
            hosts.wait_for(0)
        with _busy(cores[1]):
            hosts.wait_for(1)
        hosts.wait_for(None)
    finally:
        codes = hosts.end()
    assert codes == [75, 75], hosts.messages()


@pytest.mark.slow
def test_of_four_processes_the_one_with_slow_data_is_named_on_the_line_of_progress(tmp_path):
    hosts = Hosts(tmp_path, 4, None)
    try:
        with _slow_data(hosts, 2, 0.5):
            hosts.wait_for(2)
            until = time.monotonic() + MOST_SECONDS
            while "waiting for process 2" not in hosts.messages() and time.monotonic() < until:
                time.sleep(0.1)
    finally:
        codes = hosts.end()
    assert "waiting for process 2" in hosts.messages()
    assert codes == [75] * 4, hosts.messages()


@pytest.mark.slow
@TWO_CORES
def test_watching_takes_little_of_a_step():
    """Of the processor's time, which other programs change less than the wall's."""
    port = str(_free_port())
    program = [sys.executable, "-m", "tests.support.time_of_shares"]
    started = [
        subprocess.Popen([*program, str(index), port, "5", "20"], stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    for _, out in [process.communicate(timeout=MOST_SECONDS) for process in started]:
        found = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
        seconds = {name: np.median(blocks, axis=0)[1] for name, blocks in found.items()}
        assert seconds["with"] < 1.25 * seconds["without"]
