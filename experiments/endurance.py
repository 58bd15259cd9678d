"""Train for hours and watch what grows: the process' memory, its open files and threads, and its rate.

Starts experiments.train in a subprocess, measures it every --every seconds, stops it by SIGTERM after --minutes, and
writes endurance.csv, endurance.json and endurance.png into --out. The rate is by the clock, and by the processor's
time, which other work on the machine disturbs less.
"""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from matplotlib.figure import Figure

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.run import folder as run_folder
from experiments.run import metrics_log
from experiments.runtime import progress
from experiments.runtime.signals import StoppedError

_MIB = 2**20
_SETTLED = 0.1
"""The share of the time in which caches fill, left out of the slopes."""


@dataclass(frozen=True)
class Options:
    """What to run, and for how long."""

    out: Path = Path("runs/endurance")
    """Folder for the run and its measurements."""
    preset: str = "digits"
    """The preset to train."""
    minutes: float = 120.0
    """Minutes to train."""
    every: float = 10.0
    """Seconds between two samples."""
    save_every: int = 500
    """Steps between checkpoints: many, as they are what is most likely to leak."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""


@dataclass(frozen=True)
class Sample:
    """The trainer at one moment.

    Attributes:
        seconds: since the first sample.
        memory: resident, in MiB.
        open_files: file descriptors.
        threads: of the process.
        processor_seconds: of all its threads together, since it started.
        step: the last one in metrics.jsonl.
    """

    seconds: float
    memory: float
    open_files: int
    threads: int
    processor_seconds: float
    step: int


def _start(options: Options) -> subprocess.Popen:
    arguments = [
        *("--run-dir", str(options.out / "run"), "--data-dir", str(options.data_dir), "--num-steps", "1000000000"),
        *("--save-every", str(options.save_every), "--log-every", "100"),
    ]
    log = (options.out / "train.log").open("w")
    return subprocess.Popen([sys.executable, "-m", "experiments.train", options.preset, *arguments], stderr=log)


def _last_step(run_dir: Path) -> int:
    """The last step in metrics.jsonl, or 0; lines that were cut off or corrupt are left out."""
    file = run_dir / metrics_log.NAME
    if not file.exists():
        return 0
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
    rows = (metrics_log.row_of(line) for line in reversed(lines))
    return next((row["step"] for row in rows if row is not None), 0)


def sample(process: psutil.Process, run_dir: Path, since: float) -> Sample:
    """The process at this moment."""
    with process.oneshot():
        times = process.cpu_times()
        return Sample(
            round(time.monotonic() - since, 1),
            round(process.memory_info().rss / _MIB, 1),
            process.num_fds(),
            process.num_threads(),
            times.user + times.system,
            _last_step(run_dir),
        )


def _watch(options: Options, trainer: subprocess.Popen) -> list[Sample]:
    process, run_dir = psutil.Process(trainer.pid), options.out / "run"
    while _last_step(run_dir) == 0 and trainer.poll() is None:
        time.sleep(0.5)
    since, samples = time.monotonic(), []
    with progress.bar(round(60 * options.minutes), "seconds", "watching") as shown:
        while time.monotonic() - since < 60 * options.minutes and trainer.poll() is None:
            samples.append(sample(process, run_dir, since))
            time.sleep(options.every)
            shown.update(min(round(time.monotonic() - since), shown.total) - shown.n)
    if trainer.poll() is not None:
        raise UserError(f"the trainer ended by itself with exit code {trainer.returncode}; see {options.out}/train.log")
    return samples


def _slope(seconds: np.ndarray, values: np.ndarray) -> float:
    """Change an hour, by least squares over the settled part."""
    settled = seconds >= _SETTLED * seconds[-1]
    return float(3600 * np.polyfit(seconds[settled], values[settled], 1)[0])


def summary(samples: list[Sample]) -> dict[str, Any]:
    """The measurements, and how they change by the hour.

    Raises:
        UserError: too few samples for a slope.
    """
    if len(samples) < 10:
        raise UserError(f"minutes must be long enough for 10 samples, got {len(samples)}")
    columns = {field.name: np.asarray([getattr(each, field.name) for each in samples]) for field in fields(Sample)}
    seconds, found = columns["seconds"], {}
    for name in ("memory", "open_files", "threads"):
        settled = columns[name][seconds >= _SETTLED * seconds[-1]]
        found[name] = {
            "first": float(settled[0]),
            "last": float(settled[-1]),
            "most": float(settled.max()),
            "an_hour": _slope(seconds, columns[name]),
        }
    for name, clock in (("steps_per_second", seconds), ("steps_per_processor_second", columns["processor_seconds"])):
        rates = _rates(clock, columns["step"])
        third = len(rates) // 3
        found[name] = {"first_third": float(np.median(rates[:third])), "last_third": float(np.median(rates[-third:]))}
    return {"hours": float(seconds[-1] / 3600), "steps": int(columns["step"][-1] - columns["step"][0]), **found}


def _rates(clock: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Steps a second over windows of a fiftieth of the time."""
    width = max(1, len(steps) // 50)
    return (steps[width:] - steps[:-width]) / np.maximum(clock[width:] - clock[:-width], 1e-9)


def draw(samples: list[Sample], file: Path) -> None:
    """Draws memory, open files, threads and the rates over time."""
    columns = {field.name: np.asarray([getattr(each, field.name) for each in samples]) for field in fields(Sample)}
    minutes = columns["seconds"] / 60
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(2, 2)
    shown = (("memory", "resident memory, MiB"), ("open_files", "open files"), ("threads", "threads"))
    for axes, (name, label) in zip(panels.flat, shown, strict=False):
        axes.plot(minutes, columns[name], linewidth=1)
        axes.set(xlabel="minutes", ylabel=label, ylim=(0, 1.25 * columns[name].max()))
    rates = panels[1, 1]
    for name, label in (("processor_seconds", "a second of processor time"), ("seconds", "a second by the clock")):
        values = _rates(columns[name], columns["step"])
        rates.plot(minutes[-len(values) :], values, linewidth=1, label=label)
    rates.set(xlabel="minutes", ylabel="steps", ylim=(0, None))
    rates.legend(loc="lower left", fontsize="small")
    figure.savefig(file, dpi=100)


def endure(options: Options) -> None:
    """Runs the endurance test and writes what was measured."""
    for name in ("minutes", "every"):
        if not 0 < getattr(options, name) < math.inf:
            raise UserError(f"{name} must be above 0 and finite, got {getattr(options, name)}")
    if options.save_every < 1:
        raise UserError(f"save_every must be at least 1, got {options.save_every}")
    run_folder.make_folder("out", options.out)
    trainer = _start(options)
    try:
        samples = _watch(options, trainer)
    finally:
        trainer.send_signal(signal.SIGTERM)
        code = trainer.wait(timeout=300)
    found = summary(samples) | {"preset": options.preset, "save_every": options.save_every, "exit_code": code}
    if code != StoppedError.exit_code:
        raise UserError(f"the trainer did not stop on SIGTERM: exit code {code}; see {options.out}/train.log")
    with (options.out / "endurance.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(map(asdict, samples))
    run_folder.write_atomically(options.out / "endurance.json", json.dumps(found, indent=2) + "\n")
    draw(samples, options.out / "endurance.png")
    print(json.dumps(found, indent=2))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(endure, Options, "experiments.endurance", __doc__, args)


if __name__ == "__main__":
    main()
