"""Signals, locks, full disks and losses that are not finite: one line, an exit code, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from cfgjax import checkpoints
from experiments.cli.main import UserError
from experiments.run import checkpointing, metrics_log, nonfinite
from experiments.run import folder as run_folder
from experiments.run import lock as run_lock
from tests.experiments.test_resume import _loss_lines, final_state
from tests.support.commands import SMALL, assert_one_line, command, finish, start

LONG = [word.replace("--num-steps=40", "--num-steps=200") for word in SMALL]
ENDLESS = [word.replace("--num-steps=40", "--num-steps=1000000") for word in SMALL]


def _await(is_there, process, seconds=120):
    for _ in range(20 * seconds):
        if is_there() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise TimeoutError


def _start_training(run_dir, *arguments):
    """A trainer that has saved at least once."""
    process = start("train", "mixture", "--run-dir", run_dir, *arguments)
    _await(lambda: checkpoints.latest_step(run_folder.checkpoints_of(run_dir)), process)
    return process


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = finish(start("train", "mixture", "--run-dir", run_dir, *LONG))
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bits(number, tmp_path, uninterrupted):
    process = _start_training(tmp_path / "run", *LONG)
    process.send_signal(number)
    stopped = finish(process)
    assert stopped.returncode == 75, stopped.stderr
    step = checkpoints.latest_step(run_folder.checkpoints_of(tmp_path / "run"))
    assert f"stopped at step {step} of 200 and saved" in stopped.stderr
    assert not (tmp_path / "run" / run_lock.NAME).exists()
    done = finish(start("train", "mixture", "--run-dir", tmp_path / "run", *LONG))
    assert f"at step {step} of 200" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(uninterrupted), final_state(tmp_path / "run"))
    assert _loss_lines(uninterrupted) == _loss_lines(tmp_path / "run")


@pytest.mark.slow
def test_one_trainer_for_a_folder_and_a_second_signal_ends_it_at_once(tmp_path):
    """While one trains a second is refused, naming the first; two signals end the first; a third trainer goes on."""
    run_dir = tmp_path / "run"
    process = _start_training(run_dir, *ENDLESS)
    assert_one_line(command("train", "mixture", "--run-dir", run_dir, *ENDLESS), f"trained by process {process.pid} on")
    assert process.poll() is None
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    assert finish(process).returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert (run_dir / run_lock.NAME).exists()
    with run_lock.owned(run_dir) as lease:
        assert lease.owner.pid == os.getpid()


_HOLDER = """
import sys, time
from pathlib import Path
from experiments.run import lock
lock.LEASE_SECONDS = 1.0
with lock.owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def _hold(folder):
    """A process that owns the folder, seeming to run on another host."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "owned\n"
    lock = folder / run_lock.NAME
    lines = lock.read_text().splitlines()
    with lock.open("r+") as file:
        text = "".join(f"host=elsewhere\n" if line.startswith("host=") else f"{line}\n" for line in lines)  # noqa: F541
        file.write(text)
        file.truncate()
    return holder


def test_a_lease_of_another_host_is_taken_over_once_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "LEASE_SECONDS", 1.0)
    holder = _hold(tmp_path)
    os.kill(holder.pid, signal.SIGSTOP)
    with run_lock.owned(tmp_path) as lease:
        assert lease.owner.pid == os.getpid()
    holder.kill()
    holder.communicate()


def test_a_lease_that_is_lost_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "LEASE_SECONDS", 0.5)
    with run_lock.owned(tmp_path) as lease:
        run_lock.require_owned(lease)
        (tmp_path / run_lock.NAME).unlink()
        for _ in range(100):
            if lease.compromise is not None:
                break
            time.sleep(0.05)
        with pytest.raises(UserError, match="was lost"):
            run_lock.require_owned(lease)


def _rows(run_dir):
    return [json.loads(line) for line in (run_dir / metrics_log.NAME).read_text().splitlines()]


@pytest.fixture
def _absurd_updates(monkeypatch):
    """Updates 10^30 times too large: after the first one no loss is finite."""
    skipping = nonfinite.skipping
    monkeypatch.setattr(nonfinite, "skipping", lambda optimizer: skipping(optax.chain(optimizer, optax.scale(1e30))))


@pytest.mark.slow
@pytest.mark.usefixtures("_absurd_updates")
def test_a_run_whose_losses_are_not_finite_ends_and_says_where(tmp_path):
    """One finite step, then ten that are left out: parameters stay finite."""
    arguments = ["--run-dir", tmp_path / "run", *SMALL, "--optimizer.warmup-steps=0"]
    done = command("train", "mixture", *arguments)
    assert done.returncode == 3
    assert "not finite at 10 steps in a row, from step 1 on" in done.stderr
    assert "the last good one is of step 10" in done.stderr
    record = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert (record["step"], record["last_checkpoint"]) == (1, 10)
    assert {"loss", "params/Dense_0/kernel"} <= record["norms"].keys()
    restored = checkpoints.all_steps(run_folder.checkpoints_of(tmp_path / "run"))
    assert restored == [10]
    counts = {row["step"]: (row["loss"], row["not_finite"]) for row in _rows(tmp_path / "run") if "loss" in row}
    assert counts[5] == (None, 4)


@pytest.mark.slow
@pytest.mark.usefixtures("_absurd_updates")
def test_debug_nans_names_the_first_operation(tmp_path):
    done = command(
        "train", "mixture", "--run-dir", tmp_path / "run", *SMALL, "--optimizer.warmup-steps=0", "--debug-nans"
    )
    assert done.returncode == 3
    assert "not finite at 1 steps in a row, from step 1 on" in done.stderr
    assert "the first operation is" in done.stderr


_LIMITED = """
import resource, runpy, sys
most_bytes = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def _limited(run_dir, most_bytes, *arguments):
    """A trainer none of whose files may grow beyond a size, as on a full disk."""
    return subprocess.run(
        [sys.executable, "-c", _LIMITED, str(most_bytes), "mixture", "--run-dir", str(run_dir), *map(str, arguments)],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PJRT_NPROC": "16", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_that_cannot_write_trains_on_and_loses_nothing_older(tmp_path, uninterrupted):
    run_dir = tmp_path / "run"
    process = _start_training(run_dir, *LONG)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 75
    before = checkpoints.all_steps(run_folder.checkpoints_of(run_dir))
    done = _limited(run_dir, 3000, *LONG)
    assert done.returncode == 2, done.stderr
    assert "was not written: File too large; training goes on" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"error: {run_dir / metrics_log.NAME}: File too large"
    assert "Traceback" not in done.stderr
    assert checkpoints.all_steps(run_folder.checkpoints_of(run_dir)) == before
    done = finish(start("train", "mixture", "--run-dir", run_dir, *LONG))
    assert done.returncode == 0, done.stderr
    jax.tree.map(np.testing.assert_array_equal, final_state(uninterrupted), final_state(run_dir))
    assert _loss_lines(uninterrupted) == _loss_lines(run_dir)


def test_lines_that_cannot_be_written_are_kept(tmp_path, monkeypatch, capsys):
    lines = metrics_log.MetricsLog(tmp_path)
    lines.append({"step": 1, "loss": 0.5})
    write = metrics_log._write_all

    def half(stream, content):
        write(stream, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics_log, "_write_all", half)
    lines.append({"step": 2, "loss": float("nan")})
    lines.append({"step": 3, "loss": 0.25})
    assert capsys.readouterr().err.count("No space left on device") == 1
    assert [row["step"] for row in _rows(tmp_path)] == [1]
    monkeypatch.undo()
    lines.append({"step": 4, "loss": 0.125})
    assert _rows(tmp_path) == [
        {"step": step, "loss": loss} for step, loss in [(1, 0.5), (2, None), (3, 0.25), (4, 0.125)]
    ]


def test_a_damaged_line_is_left_out_when_a_run_goes_on(tmp_path):
    (tmp_path / metrics_log.NAME).write_bytes(
        b'{"step": 1, "loss": 2.0}\n\xff\xfe{"st\n12\n{"loss": 3}\n{"step": 9, "loss": 1.0}\n{"st'
    )
    metrics_log.rewind(tmp_path, 5)
    assert _rows(tmp_path) == [{"step": 1, "loss": 2.0}]


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_moved_away_and_the_run_goes_on(trained_mixture, tmp_path):
    """The run goes on from the one before, to the same end; ``sample`` says what it reads and moves nothing."""
    run_dir = tmp_path / "run"
    shutil.copytree(trained_mixture, run_dir)
    folder = run_folder.checkpoints_of(run_dir)
    before = final_state(run_dir)
    (folder / "40" / "state" / "manifest.ocdbt").write_bytes(b"")
    sampled = command("sample", run_dir, "--out", tmp_path / "picture.png")
    assert sampled.returncode == 0, sampled.stderr
    assert "step 30 is read instead" in sampled.stderr
    assert checkpoints.all_steps(folder) == [40, 30]
    done = command("train", "mixture", "--run-dir", run_dir, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"is moved to {run_dir / 'corrupt'}" in done.stderr
    assert "at step 30 of 40" in done.stdout
    assert (run_dir / "corrupt" / "40-0").is_dir()
    jax.tree.map(np.testing.assert_array_equal, before, final_state(run_dir))


def test_settings_that_differ_from_the_checkpoints_are_refused(trained_mixture, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(trained_mixture, run_dir)
    config = run_dir / "config.json"
    config.write_text(config.read_text().replace('"label_drop_rate": 0.4', '"label_drop_rate": 0.5'))
    assert_one_line(command("sample", run_dir), "says label_drop_rate = 0.5, its checkpoint 0.4")


@pytest.mark.slow
def test_snapshots_give_an_average_of_another_width(tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["mixture", "--run-dir", run_dir, *SMALL, "--optimizer.average-widths", "0.05", "0.1"]
    done = command("train", *arguments, "--keep.snapshot-saves", "2")
    assert done.returncode == 0, done.stderr
    assert checkpoints.all_steps(run_dir / "snapshots") == [40, 20]
    for name, options in (("own", []), ("kept", ["--ema-width", 0.1]), ("made", ["--ema-width", 0.08])):
        done = command("sample", run_dir, "--out", tmp_path / f"{name}.npz", *options)
        assert done.returncode == 0, done.stderr
    own, kept, made = (np.load(tmp_path / f"{name}.npz")["x"] for name in ("own", "kept", "made"))
    assert len(np.unique([own, kept, made], axis=0)) == 3
    assert_one_line(command("sample", run_dir, "--ema-width", 0.5), "ema_width: relative_std must be above 0")


def test_an_average_of_another_width_needs_snapshots(trained_mixture):
    assert_one_line(command("sample", trained_mixture, "--ema-width", 0.1), "ema_width needs a run with snapshots")


def test_a_full_disk_is_one_line_wherever_it_is_met(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL)
    assert_one_line(done, f"{tmp_path / 'run' / 'config.json'}: No space left on device")


@pytest.mark.slow
def test_a_checkpoint_waits_for_the_lines_before_it(tmp_path, monkeypatch):
    """Lines that are kept back are never behind a published checkpoint, from which they would not be written again."""
    run_dir, write, calls = tmp_path / "run", metrics_log._write_all, []

    def full_at_first(stream, content):
        calls.append(content)
        if len(calls) < 5:
            raise OSError(28, "No space left on device")
        write(stream, content)

    monkeypatch.setattr(metrics_log, "_write_all", full_at_first)
    published = []
    monkeypatch.setattr(checkpointing.Saver, "save", lambda self, state, loss=None: published.append(int(state.step)))
    done = command("train", "mixture", "--run-dir", run_dir, *SMALL)
    assert done.returncode == 0, done.stderr
    assert published == [20, 30, 40]
    assert [row["step"] for row in _rows(run_dir) if "loss" in row] == list(range(5, 41, 5))


@pytest.mark.slow
def test_a_snapshot_that_fails_costs_neither_the_next_nor_the_run(tmp_path, monkeypatch):
    failing = iter([True, False, False, True])
    verify = checkpoints.Writer._verify

    def sometimes(self):
        if self._folder.name == "snapshots" and next(failing):
            raise checkpoints.CheckpointError("it does not read back")
        verify(self)

    monkeypatch.setattr(checkpoints.Writer, "_verify", sometimes)
    arguments = ["--run-dir", tmp_path / "run", *SMALL, "--optimizer.average-widths", "0.05", "0.1"]
    done = command("train", "mixture", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training goes on") == 2
    assert checkpoints.all_steps(tmp_path / "run" / "snapshots") == [30, 20]
    assert checkpoints.latest_step(run_folder.checkpoints_of(tmp_path / "run")) == 40
