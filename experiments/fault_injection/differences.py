"""How far two runs are from each other: losses, states, snapshots of EMAs, reports."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import checkpoints
from cfgjax.checkpoints.save import read_each
from experiments.run import ema_snapshots, metrics_log
from experiments.run import folder as run_folder

_OF_THE_PLACE = {"num_devices", "report_seconds", "examples_per_second", "host_shares", "hosts"}


def apart(found: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to the largest number of the one expected."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or np.any(np.isnan(found) != np.isnan(expected)):
        return np.inf
    largest = np.max(np.abs(expected), initial=0.0)
    difference = np.nanmax(np.abs(found - expected), initial=0.0)
    return float(difference / largest if largest else difference)


def _largest(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference among arrays by name; infinite where the names differ."""
    if found.keys() != expected.keys():
        return np.inf
    return max((apart(found[name], expected[name]) for name in expected), default=0.0)


def _numbers(tree: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of nested JSON by their places, but for those of the hosts and their speed."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        inner = (_numbers(value, f"{prefix}/{name}") for name, value in items if name not in _OF_THE_PLACE)
        return {name: value for each in inner for name, value in each.items()}
    return {prefix: float(tree)} if isinstance(tree, int | float) else {}


def _lines(run_dir: Path, step: int) -> dict[str, float]:
    rows = [json.loads(line) for line in (run_dir / metrics_log.NAME).read_text().splitlines()]
    return _numbers([row for row in rows if row["step"] <= step])


def state_at(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of a run's checkpoint, by their places in it."""
    return dict(read_each(run_folder.checkpoints_of(run_dir).absolute() / str(step) / "state"))


def _averages(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of all snapshots of further EMAs up to a step."""
    folder = ema_snapshots.folder_of(run_dir).absolute()
    steps = [each for each in checkpoints.all_steps(folder) if each <= step]
    return {f"{each}/{name}": array for each in steps for name, array in read_each(folder / str(each) / "state")}


def losses(run_dir: Path, expected: Path, step: int) -> float:
    """The largest relative difference of losses, gradient norms and held-out losses up to a step, line by line."""
    return _largest(_lines(run_dir, step), _lines(expected, step))


def states(run_dir: Path, expected: Path, step: int) -> float:
    """The largest difference of the states saved at a step: parameters, optimizer, EMA, key; by array."""
    return _largest(state_at(run_dir, step), state_at(expected, step))


def averages(run_dir: Path, expected: Path, step: int) -> float:
    """The largest difference of the snapshots of further EMAs up to a step."""
    return _largest(_averages(run_dir, step), _averages(expected, step))


def reports(run_dir: Path, expected: Path) -> float:
    """The largest relative difference of the numbers of metrics.json."""
    found, other = ((folder / "metrics.json").read_text() for folder in (run_dir, expected))
    return _largest(_numbers(json.loads(found)), _numbers(json.loads(other)))
