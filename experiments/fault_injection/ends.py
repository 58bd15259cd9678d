"""How a run ended, and what it left: compared bit by bit with an undisturbed one."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import checkpoints
from cfgjax.checkpoints.save import read_each
from experiments.run import folder as run_folder
from experiments.run import metrics_log


def temporaries(folder: Path, since: float) -> list[Path]:
    """The checkpoints that have been begun since a time and are not published."""
    found = []
    for temporary in folder.glob("*tmp*"):
        with contextlib.suppress(FileNotFoundError):
            found += [temporary] * (temporary.stat().st_mtime > since)
    return found


def _final(run_dir: Path) -> dict[str, np.ndarray]:
    folder = run_folder.checkpoints_of(run_dir).absolute()
    return dict(read_each(folder / str(checkpoints.latest_step(folder)) / "state"))


def _lines(run_dir: Path) -> list[tuple[Any, ...]]:
    rows = [json.loads(line) for line in (run_dir / metrics_log.NAME).read_text().splitlines()]
    return [(row["step"], row.get("loss"), row.get("held_out_loss")) for row in rows]


def is_equal(run_dir: Path, undisturbed: Path) -> bool:
    """Whether the last states and the losses of two runs are the same bits."""
    ours, its = _final(run_dir), _final(undisturbed)
    same = ours.keys() == its.keys() and all(np.array_equal(ours[name], its[name]) for name in ours)
    return same and _lines(run_dir) == _lines(undisturbed)


def resumed_at(text: str) -> int | None:
    """The step at which a process resumed, by what it said; None where it did not get so far."""
    found = re.findall(r"resuming .+ at step (\d+) of", text)
    return int(found[-1]) if found else None
