"""Two processes that are not alike: both refuse with the same line, before anything is written."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.presets.registry import PRESETS
from experiments.tasks.registry import task_of
from tests.experiments.test_changed_data import OTHERS, _prepared
from tests.repo.test_processes import _free_port
from tests.support.commands import SHORT, SMALL, finish

WITH_A_SHORT_WAIT = """
from experiments.run import shared_folder
shared_folder.SECONDS = 2.0
from experiments.train import main
main()
"""
TRAIN = ["-m", "experiments.train"]
HOST = socket.gethostname()
FIRST, OTHER = f"process 0 on {HOST}", f"process 1 on {HOST}"
CHECKOUT = Path(__file__).parents[2]


def _both(*arguments, others=(), environment=None, folders=(None, None), program=TRAIN):
    """What two processes of a command left, the second one with more arguments and environment, each in its folder."""
    launch = ["--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", "2"]
    usual = {"JAX_NUM_CPU_DEVICES": "1", "PJRT_NPROC": "16", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(CHECKOUT)}
    found = [
        subprocess.Popen(
            [sys.executable, *program, *map(str, (*arguments, *launch, "--process-id", index, *more))],
            env=os.environ | usual | of_its_own, cwd=folders[index],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index, (more, of_its_own) in enumerate((((), {}), (others, environment or {})))
    ]  # fmt: skip
    return [finish(process) for process in found]


def _assert_refused(both, expected):
    assert [done.returncode for done in both] == [2, 2], both
    lines = {done.stderr.strip().splitlines()[-1] for done in both}
    assert len(lines) == 1
    assert expected in lines.pop()


def _with_an_older_optax(folder):
    """The environment of a process that finds another version of Optax installed."""
    installed = folder / "optax-0.2.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.2.0\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT)])}


@pytest.mark.slow
def test_another_version_is_refused(tmp_path):
    both = _both("mixture", "--run-dir", tmp_path / "run", *SMALL, environment=_with_an_older_optax(tmp_path))
    _assert_refused(both, f" on {FIRST}, and 0.2.0 on {OTHER}; install the same versions on every host")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_setting_is_refused(tmp_path):
    both = _both("mixture", "--run-dir", tmp_path / "run", *SMALL, others=["--optimizer.clip-norm", 2])
    _assert_refused(both, f"the processes differ: optimizer.clip_norm is 1.0 on {FIRST}, and 2.0 on {OTHER}; start all")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_options_and_flags_that_would_let_others_wait_are_refused(tmp_path):
    """JAX itself takes the number of processes that process 0 is told, whatever the others are."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_enable_fast_math=true"
    others = ["--debug-nans", "--num-processes", 3]
    both = _both(
        "mixture", "--run-dir", tmp_path / "run", *SMALL, others=others, environment={"XLA_FLAGS": flags.strip()}
    )
    _assert_refused(both, f"XLA_FLAGS --xla_cpu_enable_fast_math is absent on {FIRST}, and true on {OTHER}; also in ")
    for name in ("debug_nans", "num_processes"):
        _assert_refused(both, name)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_more_devices_on_one_are_refused(tmp_path):
    both = _both("mixture", "--run-dir", tmp_path / "run", *SMALL, environment={"JAX_NUM_CPU_DEVICES": "2"})
    _assert_refused(both, f"the number of devices is 1 on {FIRST}, and 2 on {OTHER}; give every process as many")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_other_data_are_refused(tmp_path):
    usual, other = (_prepared(tmp_path / name, *OTHERS[name]) for name in ("another pixel", "another held-out pixel"))
    digests = [task_of(replace(PRESETS["fashion_mnist"][1], data_dir=each)).train_digest for each in (usual, other)]
    both = _both(
        "fashion_mnist", "--run-dir", tmp_path / "run", *SHORT, "--data-dir", usual, others=["--data-dir", other]
    )
    _assert_refused(both, f"the digest of the training data is {digests[0]} on {FIRST}, and {digests[1]} on {OTHER}")
    _assert_refused(
        both, "; also in the digest of the held-out data; put the same prepared data into data_dir of every"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_refused(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    both = _both("mixture", "--run-dir", "run", *SMALL, folders=folders, program=["-c", WITH_A_SHORT_WAIT])
    _assert_refused(both, f"run_dir on {OTHER}: run is not the folder of {FIRST}; put it on a disk that all hosts")
    assert [sorted(path.name for path in folder.rglob("*")) for folder in folders] == [["run"], []]


@pytest.mark.slow
def test_another_option_of_a_measurement_is_refused_before_the_run_is_read(tmp_path):
    program = ["-m", "experiments.evaluate"]
    both = _both(tmp_path / "nowhere", "--num-steps", 3, others=["--num-steps", 4], program=program)
    _assert_refused(both, f"the processes differ: samples.num_steps is 3 on {FIRST}, and 4 on {OTHER}; start all")
