"""How far the ends of two runs are from each other: losses, states, snapshots, reports."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import checkpoints
from cfgjax.checkpoints.save import read_each
from experiments.run import ema_snapshots, metrics_log
from experiments.run import folder as run_folder

_OF_THE_PLACE = {"num_devices", "report_seconds", "examples_per_second", "hosts"}


def apart(found: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to the largest number of the one expected."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return np.inf
    largest = np.max(np.abs(expected), initial=0.0)
    apart = np.max(np.abs(found - expected), initial=0.0)
    return float(apart / largest if largest else apart)


def _largest(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference among arrays by name; infinite where the names differ."""
    if found.keys() != expected.keys():
        return np.inf
    return max((apart(found[name], expected[name]) for name in expected), default=0.0)


def _numbers(tree: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of nested JSON by their places, but for those of the place and its speed."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        inner = (_numbers(value, f"{prefix}/{name}") for name, value in items if name not in _OF_THE_PLACE)
        return {name: value for each in inner for name, value in each.items()}
    return {prefix: float(tree)} if isinstance(tree, int | float) else {}


def _losses(run_dir: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run_dir / metrics_log.NAME).read_text().splitlines()]
    return _numbers(rows)


def _state(run_dir: Path) -> dict[str, np.ndarray]:
    """The arrays of a run's newest checkpoint, with its step."""
    folder = run_folder.checkpoints_of(run_dir)
    newest = checkpoints.all_steps(folder)[0]
    return {"newest": np.asarray(newest)} | dict(read_each(folder.absolute() / str(newest) / "state"))


def _averages(run_dir: Path) -> dict[str, np.ndarray]:
    """The arrays of all snapshots of further EMAs."""
    folder = ema_snapshots.folder_of(run_dir).absolute()
    steps = checkpoints.all_steps(folder)
    return {f"{step}/{name}": array for step in steps for name, array in read_each(folder / str(step) / "state")}


def _report(run_dir: Path) -> dict[str, float]:
    return _numbers(json.loads((run_dir / "metrics.json").read_text()))


READ: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "losses": _losses, "state": _state, "averages": _averages, "report": _report,
}  # fmt: skip
"""What is compared of a run's folder, and how it is read."""


def differences(run_dir: Path, expected: Path) -> dict[str, float]:
    """The largest relative difference of two runs, for each of what is compared; 0 where they are equal, bit by bit."""
    return {name: _largest(read(run_dir), read(expected)) for name, read in READ.items()}
