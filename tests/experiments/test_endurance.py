"""The tools that disturb runs and that watch them for hours: what they count, on made-up logs and samples."""

import json
import random
import subprocess
import sys

import numpy as np
import psutil
import pytest

from experiments import endurance
from experiments.cli.main import UserError
from experiments.endurance import Sample, summary
from experiments.fault_injection import __main__ as fault_injection
from experiments.fault_injection import disks, harness
from experiments.run import metrics_log
from experiments.runtime import progress
from tests.support.commands import assert_one_line, command

NOTHING = ["--kills", "0", "--signals", "0", "--damages", "0", "--full-disks", "0"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (NOTHING, "kills, signals, damages, full_disks: one of them must be above 0"),
        (["--kills", "-1"], "kills must be at least 0, got -1"),
        ([], "out must be a folder that is new or empty"),
    ],
)
def test_nothing_is_removed_where_the_harness_cannot_begin(arguments, expected, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert_one_line(command("fault_injection.__main__", "--out", tmp_path, *arguments), expected)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_harness_that_may_not_mount_is_refused_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(disks.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 32, b"", b"no right"))
    with pytest.raises(SystemExit) as ended:
        fault_injection.main(["--out", str(tmp_path / "out"), "--kills", "0", "--full-disks", "1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: full_disks needs the right to mount (no right); give 0\n"
    assert not (tmp_path / "out").exists()


def test_a_process_resumed_where_its_own_part_of_the_log_says_last(tmp_path):
    log = tmp_path / "log"
    log.write_text("resuming runs/a at step 20 of 400\n")
    start = log.stat().st_size
    assert harness._resumed_at(log, 0) == 20
    assert harness._resumed_at(log, start) is None
    with log.open("a") as stream:
        stream.write("warning: corrupt\nresuming runs/a at step 60 of 400\n")
    assert harness._resumed_at(log, start) == 60


def test_a_damage_is_one_file_less_a_shorter_one_or_one_bit(tmp_path):
    content, file, kinds = bytes(range(64)), tmp_path / "array", set()
    for seed in range(40):
        file.write_bytes(content)
        harness.damage(file, random.Random(seed))
        found = file.read_bytes() if file.exists() else None
        assert found != content
        if found is None:
            kinds.add("removed")
        elif len(found) < len(content):
            assert content.startswith(found)
            kinds.add("cut")
        else:
            changed = np.bitwise_xor(np.frombuffer(found, np.uint8), np.frombuffer(content, np.uint8))
            assert np.unpackbits(changed).sum() == 1
            kinds.add("flipped")
    assert kinds == {"removed", "cut", "flipped"}


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"fell_back": 1, "during_saves": 2}, True),
        ({"recovered": 2}, False),
        ({"bit_equal": 0}, False),
        ({"steps_lost": 20}, False),
        ({"unexpected": 1}, False),
    ],
)
def test_a_fault_is_recovered_from_if_nothing_of_its_runs_differs(change, fine):
    counts = {"injected": 3, "recovered": 3, "runs": 1, "bit_equal": 1, "steps_lost": 0, "unexpected": 0}
    assert fault_injection._is_fine(counts | change) == fine


@pytest.mark.slow
def test_a_short_injection_recovers_from_kills_signals_and_damages(tmp_path):
    arguments = ["--kills", "1", "--signals", "1", "--damages", "1", "--full-disks", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.fault_injection", "--out", tmp_path / "injection", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "injection" / "faults.json").read_text())
    assert [(each["fault"], each["injected"]) for each in counts] == [
        ("SIGKILL", 1), ("SIGTERM", 1), ("SIGINT", 1), ("newest checkpoint corrupt", 1),
    ]  # fmt: skip
    assert all(fault_injection._is_fine(each) for each in counts)
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) == 2 + 4


def _samples(num_looks=101, an_hour=36.0):
    """Two hours in which memory grows by so many MiB an hour after a start that is left out, at 20 steps a second."""
    samples = []
    for seconds in np.linspace(0, 7200, num_looks):
        memory = 900 + an_hour * seconds / 3600 - 500 * (seconds < 700)
        samples.append(Sample(float(seconds), float(memory), 4, 94, float(2 * seconds), int(20 * seconds)))
    return samples


def test_slopes_and_rates_of_an_endurance_run_are_those_of_its_samples():
    found = summary(_samples())
    assert found["hours"] == 2
    assert found["steps"] == 144_000
    assert found["memory"]["an_hour"] == pytest.approx(36)
    assert found["memory"]["last"] == pytest.approx(972)
    assert found["memory"]["first"] == pytest.approx(907.2)
    assert found["open_files"] == {"first": 4, "last": 4, "most": 4, "an_hour": pytest.approx(0, abs=1e-9)}
    assert found["steps_per_second"] == {"first_third": pytest.approx(20), "last_third": pytest.approx(20)}
    assert found["steps_per_processor_second"]["last_third"] == pytest.approx(10)


def test_too_few_samples_give_no_slope():
    with pytest.raises(UserError, match="minutes must be long enough for 10 samples, got 9"):
        summary(_samples(9))


@pytest.mark.parametrize(
    ("content", "step"),
    [(None, 0), ("", 0), ('{"step": 5}\n', 5), ('{"step": 5}\n{"step": 10, "lo', 5), ('{"step": 5}\n' * 2000, 5)],
)
def test_the_last_step_is_that_of_the_last_whole_line(content, step, tmp_path):
    if content is not None:
        (tmp_path / metrics_log.NAME).write_text(content)
    assert endurance._last_step(tmp_path) == step


@pytest.mark.parametrize(
    ("name", "value"), [("minutes", "nan"), ("minutes", "inf"), ("every", "0"), ("save_every", "0")]
)
def test_an_endurance_run_that_cannot_be_watched_is_refused(name, value, tmp_path):
    done = command("endurance", "--out", tmp_path / "endurance", f"--{name.replace('_', '-')}", value)
    assert_one_line(done, f"{name} must be ")
    assert not (tmp_path / "endurance").exists()


def test_an_endurance_run_shows_its_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / metrics_log.NAME).write_text('{"step": 5}\n')
    trainer = subprocess.Popen(["sleep", "60"])
    try:
        samples = endurance._watch(endurance.Options(tmp_path, minutes=1 / 60, every=0.2), trainer)
    finally:
        trainer.kill()
        trainer.wait()
    assert len(samples) >= 3
    assert "watching: 1 of 1 seconds" in capsys.readouterr().err


def test_a_sample_is_of_the_process_itself(tmp_path):
    (tmp_path / metrics_log.NAME).write_text('{"step": 5, "loss": 1.0}\n')
    found = endurance.sample(psutil.Process(), tmp_path, 0.0)
    assert (found.step, found.threads) == (5, psutil.Process().num_threads())
    assert found.memory > 10
    assert found.processor_seconds > 0


@pytest.mark.parametrize("corrupt", [b'{"st}\n', b"\xff\xfe\n", b"{\xff}\n", b'{"loss": 2.0}\n', b'{"step": 20, "lo'])
def test_a_corrupt_line_is_passed_over(corrupt, tmp_path):
    (tmp_path / metrics_log.NAME).write_bytes(b'{"step": 10, "loss": 2.5}\n' + corrupt)
    assert endurance._last_step(tmp_path) == 10


def test_a_rate_that_falls_shows_between_the_thirds():
    seconds = 36.0 * np.arange(101)
    rates = endurance._rates(seconds, np.where(seconds < 1800, 10 * seconds, 18_000 + 5 * (seconds - 1800)))
    np.testing.assert_allclose(rates[:33], 10)
    np.testing.assert_allclose(rates[-33:], 5)
