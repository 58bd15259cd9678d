"""Trackers and sample grids: every number once, the same bits without them, and no failure ends a run."""

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import struct

import jax
import numpy as np
import pytest
from PIL import Image

from cfgjax import checkpoints
from experiments.config.samplers import ODE, classifier_free
from experiments.evaluation.guided_samples import draw_sweep
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run import metrics_log, sample_grids, trackers, wandb
from experiments.run.restore import restore_run
from experiments.run.tensorboard import TensorBoard
from experiments.run.trackers import Trackers
from experiments.run.wandb import WeightsAndBiases
from tests.experiments.test_resume import _loss_lines, final_state
from tests.repo.test_processes import _free_port
from tests.support.commands import SMALL, assert_one_line, command, finish, start


def _records(content):
    """The records of a file of TensorFlow events, each behind its length and a checksum."""
    at = 0
    while at + 8 <= len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        if at + 16 + length <= len(content):
            yield content[at + 12 : at + 12 + length]
        at += 16 + length


def _events(folder):
    """All (step, tag) of a folder in the order of writing, without those that a later start replaces, as readers do."""
    from tensorboardX.proto.event_pb2 import Event

    kept = []
    for file in sorted((folder / "tensorboard").iterdir(), key=lambda file: file.stat().st_ctime_ns):
        for event in map(Event.FromString, _records(file.read_bytes())):
            if event.HasField("session_log"):
                kept = [each for each in kept if each[0] < event.step]
            kept += [(event.step, each.tag, each) for each in event.summary.value]
    return kept


def _scalars(folder):
    return {(step, tag): value.simple_value for step, tag, value in _events(folder) if value.HasField("simple_value")}


def _lines(folder):
    """All numbers of metrics.jsonl by (step, name)."""
    rows = [json.loads(line) for line in (folder / metrics_log.NAME).read_text().splitlines()]
    numbers = [(row["step"], name, value) for row in rows for name, value in row.items() if type(value) in (int, float)]
    return {(step, name): value for step, name, value in numbers if name != "step"}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The folder of the finished mixture of other tests, but tracked, with sample grids."""
    run_dir = tmp_path_factory.mktemp("tracked") / "mixture"
    _train(run_dir)
    return run_dir


def _train(run_dir):
    done = command("train", "mixture", "--run-dir", run_dir, *SMALL, "--track", "tensorboard", "--samples-every", "15")
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_tracked_run_ends_with_the_bits_of_one_that_is_not(tracked, trained_mixture):
    jax.tree.map(np.testing.assert_array_equal, final_state(trained_mixture), final_state(tracked))
    assert _loss_lines(trained_mixture) == _loss_lines(tracked)


def test_events_are_the_lines_of_metrics(tracked):
    scalars, lines = _scalars(tracked), _lines(tracked)
    assert {tag for _, tag in scalars} == {
        "loss", "grad_norm", "not_finite", "learning_rate", "examples_per_second", "held_out_loss",
    }  # fmt: skip
    assert scalars.keys() == lines.keys()
    assert all(scalars[place] == np.float32(lines[place]) for place in lines)
    assert len(scalars) == sum(value.HasField("simple_value") for *_, value in _events(tracked))


def test_the_learning_rate_is_that_of_the_optimizer_s_last_update(tracked):
    """Warm-up of 39 updates from 0 to the preset's 3e-3, as the run has 40 steps."""
    rates = {step: value for (step, name), value in _lines(tracked).items() if name == "learning_rate"}
    assert rates == {step: pytest.approx(3e-3 * (step - 1) / 39, rel=1e-5) for step in range(5, 41, 5)}


def test_sample_grids_are_drawn_at_intervals_and_shown_to_the_tracker(tracked):
    assert list(sample_grids.files(tracked)) == [15, 30]
    shown = {step: value.image for step, tag, value in _events(tracked) if tag == "samples"}
    assert list(shown) == [15, 30]
    with Image.open(tracked / "samples" / "30.png") as picture:
        assert (shown[30].width, shown[30].height) == picture.size
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_a_sample_grid_holds_the_first_samples_of_the_report(tracked):
    run = restore_run(tracked)
    drawn = sample_grids.SampleGrids(run.experiment, run.task, run.model, 1).samples(run.ema)
    whole = draw_sweep(run, classifier_free(run.field, 8), ODE, run.experiment.sampling.scales)
    assert drawn.shape == (2, 8, 3, 2)
    np.testing.assert_allclose(drawn, whole, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_has_every_point_once(tracked, tmp_path):
    """The newest checkpoint is lost: all that was written after the one before it is written again, and stands once."""
    run_dir, before = tmp_path / "run", _scalars(tracked)
    shutil.copytree(tracked, run_dir)
    shutil.rmtree(run_folder.checkpoints_of(run_dir) / "40")
    shutil.copyfile(run_dir / "samples" / "15.png", run_dir / "samples" / "35.png")
    assert "at step 30 of 40" in _train(run_dir).stdout
    assert list(sample_grids.files(run_dir)) == [15, 30]
    scalars, events = _scalars(run_dir), _events(run_dir)
    assert len(events) == len({(step, tag) for step, tag, _ in events}) == len(before) + 2
    speed = {place for place in before if place[1] == "examples_per_second"}
    assert {place: scalars[place] for place in before.keys() - speed} == {
        place: before[place] for place in before.keys() - speed
    }
    starts = [json.loads(line) for line in (run_dir / "starts.jsonl").read_text().splitlines()]
    assert [each["step"] for each in starts] == [0, 30]
    assert starts[1]["command"].endswith("--track tensorboard --samples-every 15")


def _wandb_records(folder):
    """All records of the offline runs in a folder, in the order of their starts: a log of blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        content, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(content):
            room = 32768 - at % 32768
            length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
            if room < 7 or kind == 0:
                at += room
                continue
            whole += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                yield Record.FromString(whole)
                whole = b""


def _history(folder):
    """(step, name) -> value of all points of the offline runs, and how many times each was written."""
    found = []
    for record in _wandb_records(folder):
        if record.HasField("history"):
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            step = json.loads(items["_step"])
            found += [((step, name), value) for name, value in items.items() if not name.startswith("_")]
    return found


def test_wandb_is_offline_has_every_point_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE", raising=False)
    environment, handlers = dict(os.environ), [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    experiment = dataclasses.replace(PRESETS["mixture"][1], run_dir=tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png")
    for steps in ((5, 10, 15), (10, 15, 20)):
        tracker = WeightsAndBiases(experiment)
        for step in steps:
            tracker.write(step, {"loss": 1 / step, "not_finite": 0})
            tracker.write(step, {"held_out_loss": 2 / step})
        tracker.write_picture(steps[-1], tmp_path / "grid.png")
        tracker.close()
    history = _history(tmp_path)
    points = dict(history)
    assert len(points) == len(history)
    for step in (5, 10, 15, 20):
        assert float(points[step, "loss"]) == 1 / step
        assert float(points[step, "held_out_loss"]) == 2 / step
    assert [step for step, name in points if name == "samples"] == [15, 20]
    assert len({record.run.run_id for record in _wandb_records(tmp_path) if record.HasField("run")}) == 1
    assert (dict(os.environ), wandb.run) == (environment, None)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_what_a_killed_start_of_wandb_lacks_is_told_again(tmp_path, monkeypatch):
    """Told up to step 5 for sure, it died; the run goes on from step 15, and metrics.jsonl knows what lies between."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    name = "offline-run-20260101_000000-abc"
    (tmp_path / "wandb" / name).mkdir(parents=True)
    (tmp_path / "wandb.json").write_text(json.dumps({"id": "abc", "last_step": 5, "underway": name}))
    lines = [{"step": step, "loss": None if step == 10 else 1 / step} for step in (5, 10, 15)]
    (tmp_path / metrics_log.NAME).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    experiment = dataclasses.replace(PRESETS["mixture"][1], run_dir=tmp_path)
    tracking = trackers.trackers_of(trackers.Tracking(("wandb",)), experiment, 15)
    tracking.write({"step": 20, "loss": 0.5})
    tracking.close()
    assert _history(tmp_path) == [((10, "loss"), "NaN"), ((15, "loss"), str(1 / 15)), ((20, "loss"), "0.5")]
    assert (tmp_path / "corrupt" / name).is_dir()
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": "abc", "last_step": 20, "underway": None}


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"id": "a", "last_step": 5, "underway": ".."}', '{"id": "../a", "last_step": 5, "underway": null}'],
)
def test_an_identity_that_is_none_is_replaced(content, tmp_path):
    (tmp_path / "wandb.json").write_text(content)
    found = wandb.read_identity(tmp_path / "wandb.json")
    assert (len(found.id), found.last_step, found.underway) == (12, -1, None)


def _append_metrics(run_dir, steps):
    with (run_dir / metrics_log.NAME).open("a") as stream:
        stream.writelines(f"{json.dumps({'step': step, 'loss': 1 / step})}\n" for step in steps)


@pytest.mark.parametrize("num_lost", [0, 7])
def test_tensorboard_is_told_what_happened_in_starts_that_did_not_track(num_lost, tmp_path):
    """Tracked up to step 10, of which a kill cut off some bytes; untracked to 20; goes back to 20 and on."""
    experiment = dataclasses.replace(PRESETS["mixture"][1], run_dir=tmp_path)
    _append_metrics(tmp_path, [5, 10])
    trackers.trackers_of(trackers.Tracking(("tensorboard",)), experiment, 10).close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size - num_lost])
    _append_metrics(tmp_path, [15, 20])
    tracking = trackers.trackers_of(trackers.Tracking(("tensorboard",)), experiment, 20)
    tracking.write({"step": 25, "loss": 1 / 25})
    tracking.close()
    assert [(step, tag) for step, tag, _ in _events(tmp_path)] == [(step, "loss") for step in (5, 10, 15, 20, 25)]


def test_a_record_that_does_not_read_ends_trackers_and_not_the_run(tmp_path, capsys):
    """On the first process alone an error would leave the others waiting."""
    experiment = dataclasses.replace(PRESETS["mixture"][1], run_dir=tmp_path)
    (tmp_path / metrics_log.NAME).mkdir()
    trackers.trackers_of(trackers.Tracking(("tensorboard",)), experiment, 10).close()
    assert "tensorboard failed and receives nothing more: IsADirectoryError" in capsys.readouterr().err


class _Failing:
    """A tracker that fails at its third number, and when it is closed."""

    def __init__(self):
        self.last_logged_step, self.logged = -1, []

    def write(self, step, numbers):
        self.logged.append(step)
        if len(self.logged) == 3:
            raise ConnectionError("the server\nis gone")

    def write_picture(self, step, file):
        raise AssertionError

    def close(self):
        raise OSError(28, "No space left on device")


def test_a_tracker_that_fails_is_told_nothing_more_and_that_is_said_once(tmp_path, capsys):
    def broken():
        raise ImportError("no such thing")

    failing = _Failing()
    tracking = Trackers({"broken": broken, "failing": lambda: failing, "tensorboard": lambda: TensorBoard(tmp_path, 0)})
    for step in range(1, 6):
        tracking.write({"step": step, "loss": 0.5})
    tracking.close()
    assert failing.logged == [1, 2, 3]
    assert [step for step, *_ in _events(tmp_path)] == [1, 2, 3, 4, 5]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "broken failed" in said[0]
    assert "ConnectionError: the server is gone; training goes on" in said[1]


@pytest.mark.slow
def test_a_full_disk_ends_neither_events_nor_sheets_nor_the_run(tmp_path, monkeypatch, trained_mixture):
    from tensorboardX.record_writer import RecordWriter

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordWriter, "flush", full)
    monkeypatch.setattr(sample_grids.SampleGrids, "_write", full)
    done = _train(tmp_path / "run")
    assert done.stderr.count("tensorboard failed") == 1
    assert done.stderr.count("no sample grid at step 15: [Errno 28] No space left") == 1
    assert "at step 30" not in done.stderr
    jax.tree.map(np.testing.assert_array_equal, final_state(trained_mixture), final_state(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--track", "comet"], "--track"),
        (["--samples-every", "0"], "samples_every must be at least 1, got 0"),
        (["--track", "tensorboard", "wandb"], "track wandb needs wandb: python -m pip install -e '.[wandb]'"),
    ],
)
def test_what_cannot_be_tracked_is_one_line_before_anything_is_written(arguments, expected, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    assert_one_line(command("train", "mixture", "--run-dir", tmp_path / "run", *arguments), expected)
    assert not (tmp_path / "run").exists()


def test_a_classifier_has_no_sheets(data_dir, tmp_path):
    arguments = ["--run-dir", tmp_path / "run", "--data-dir", data_dir, "--samples-every", "10"]
    assert_one_line(command("train", "fashion_mnist_classifier", *arguments), "samples_every must be left out")


@pytest.mark.slow
def test_of_two_processes_both_draw_and_the_first_writes(tmp_path):
    arguments = [
        "mixture", "--run-dir", tmp_path / "run", *SMALL, "--samples-every", "15", "--track", "tensorboard",
        "--coordinator", f"127.0.0.1:{_free_port()}", "--num-processes", "2",
    ]  # fmt: skip
    started = [start("train", *arguments, "--process-id", index) for index in range(2)]
    for process in started:
        done = finish(process)
        assert done.returncode == 0, done.stderr
    assert list(sample_grids.files(tmp_path / "run")) == [15, 30]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert _scalars(tmp_path / "run").keys() == _lines(tmp_path / "run").keys()
    assert checkpoints.latest_step(run_folder.checkpoints_of(tmp_path / "run")) == 40
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "starts.jsonl").read_text().splitlines()]
    assert row["num_processes"] == 2
