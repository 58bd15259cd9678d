"""Trackers: TensorBoard and Weights & Biases are told what metrics.jsonl is told, and shown the sheets of samples.

metrics.jsonl is a run's record; a tracker is a view of it that may fail. The first failure of each is said, after which
it is told nothing more until the run is started again. Only the first process has any.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.config.schema import Experiment
from experiments.run import metrics_log, sample_grids
from experiments.run.tensorboard import TensorBoard
from experiments.run.wandb import WeightsAndBiases, plain
from experiments.runtime import distributed

Name = Literal["tensorboard", "wandb"]
MODULES: dict[Name, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Tracking:
    """What is shown of a run while it trains. Its results are the same with and without."""

    track: Annotated[tuple[Name, ...], optional("[{tensorboard,wandb} ...]", "none")] = ()
    """Trackers that are told what metrics.jsonl is told; wandb stays offline unless WANDB_MODE is online."""
    samples_every: Annotated[int | None, optional("STEPS", "none")] = None
    """Steps between sheets of samples, labels by scales, drawn by the run's own settings as samples/STEP.png."""


UNTRACKED = Tracking()
"""No tracker, no sheets."""


class Tracker(Protocol):
    """What is told of a run while it trains.

    Attributes:
        known: the last step of which it was told before this start, and has all.
    """

    known: int

    def write(self, step: int, numbers: Numbers) -> None:
        """Takes the numbers of a step."""

    def write_picture(self, step: int, file: Path) -> None:
        """Takes the sheet of samples of a step, a PNG file."""

    def close(self) -> None:
        """Ends; nothing is told after that."""


def _log(tracker: Tracker, content: Mapping[str, Any] | Path) -> None:
    """Tells a tracker a line of metrics.jsonl, or shows it the sheet of samples in a file."""
    if isinstance(content, Path):
        tracker.write_picture(int(content.stem), content)
        return
    numbers = {name: nan if value is None else value for name, value in content.items() if name != "step"}
    tracker.write(content["step"], numbers)


def _catch_up(tracker: Tracker, run_dir: Path, step: int) -> None:
    """Tells a tracker what it does not know yet of the steps up to this one."""
    rows = [(row["step"], row) for row in metrics_log.read(run_dir)]
    told = sorted([*rows, *sample_grids.files(run_dir).items()], key=lambda each: each[0])
    for at, content in told:
        if tracker.known < at <= step:
            _log(tracker, content)


class Trackers:
    """All trackers of a run; none of them can end or change it.

    Args:
        makers: what makes each, by name.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Tracker]]) -> None:
        self._trackers: dict[str, Tracker] = {}
        for name, make in makers.items():
            made = self._attempt(name, make)
            if made is not None:
                self._trackers[name] = made

    def catch_up(self, run_dir: Path, step: int) -> None:
        """Tells each what it does not know yet of the steps up to this one, from metrics.jsonl and samples/."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda: _catch_up(tracker, run_dir, step))  # noqa: B023

    def _attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """What the work gives; where it fails, that is said, and its tracker is given up."""
        try:
            return work()
        except Exception as error:  # whatever a tracker raises, the run goes on
            distributed.warn(f"warning: {name} failed and is told nothing more: {plain(error)}; training goes on")
            given_up = self._trackers.pop(name, None)
            with contextlib.suppress(Exception):
                if given_up is not None:
                    given_up.close()
            return None

    def write(self, row: Mapping[str, Any]) -> None:
        """Tells the numbers of a line of metrics.jsonl."""
        self._tell_all(row)

    def write_picture(self, file: Path) -> None:
        """Shows a sheet of samples."""
        self._tell_all(file)

    def _tell_all(self, content: Mapping[str, Any] | Path) -> None:
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda: _log(tracker, content))  # noqa: B023

    def close(self) -> None:
        """Ends all of them."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, tracker.close)
        self._trackers = {}


def require_installed(tracking: Tracking) -> None:
    """Finds out whether the packages of all trackers are there.

    Raises:
        UserError: one is not, with the extra to install.
    """
    for name in tracking.track:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise UserError(f"track {name} needs {MODULES[name]}: python -m pip install -e '.[{name}]'")


def trackers_of(tracking: Tracking, experiment: Experiment, step: int) -> Trackers:
    """The trackers of a run that goes on from a step, up to which they know all; on the first process alone."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(experiment.run_dir, step),
        "wandb": lambda: WeightsAndBiases(experiment),
    }
    if not distributed.is_process_0():
        return Trackers({})
    trackers = Trackers({name: makers[name] for name in tracking.track})
    trackers.catch_up(experiment.run_dir, step)
    return trackers
