"""Two processes of two devices do what one process does: losses, parameters on every shard, checkpoints, samples."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = "tests.support.several_processes"
ONE_SAYS = [False, True, False, False, False, False]
"""What a process asked and told at the second call; several know it two calls later, all of them at the same."""


def _start(*arguments):
    environment = os.environ | {"PJRT_NPROC": "16", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-m", PROGRAM, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _found(folder, num_devices, num_processes):
    """What each process of the program found."""
    port = _free_port()
    started = [_start(folder, num_devices, num_processes, index, port) for index in range(num_processes)]
    for process in started:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return [np.load(folder / f"{index}.npz") for index in range(num_processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process with one device found."""
    return _found(tmp_path_factory.mktemp("alone"), 1, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("num_devices", "num_processes"), [(2, 2), (2, 1), (8, 1)])
def test_processes_and_devices_change_nothing_but_rounding(num_devices, num_processes, alone, tmp_path):
    for found in _found(tmp_path, num_devices, num_processes):
        assert found.files == alone.files
        assert found["said"].tolist() == ([False] * 3 + [True] + [False] * 2 if num_processes > 1 else ONE_SAYS)
        np.testing.assert_allclose(found["rows"], alone["rows"], rtol=1e-5)
        np.testing.assert_allclose(found["samples"], alone["samples"], rtol=1e-5, atol=1e-5)
        assert found["most_parts"] == num_devices * num_processes
        np.testing.assert_allclose(found["cut_rows"], alone["rows"], rtol=1e-5)
        for name in (name for name in alone.files if name.startswith("shards")):
            assert len(found[name]) == num_devices
            np.testing.assert_allclose(found[name], np.repeat(alone[name], num_devices, axis=0), rtol=1e-5, atol=1e-6)
        for name in (name for name in alone.files if name.startswith(("read_back", "cut_"))):
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_process_knows_at_once(alone):
    assert alone["said"].tolist() == ONE_SAYS
