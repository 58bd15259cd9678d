"""Trackers: TensorBoard and Weights & Biases receive what metrics.jsonl receives, and the sample grids.

metrics.jsonl is a run's record; a tracker is a view of it that may fail. The first failure of each is a warning, after
which it receives nothing more until the run is started again. Only the first process has any.
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
    """Trackers that receive what metrics.jsonl receives; wandb stays offline unless WANDB_MODE is online."""
    samples_every: Annotated[int | None, optional("STEPS", "none")] = None
    """Steps between sample grids, labels by scales, drawn by the run's own settings as samples/STEP.png."""


UNTRACKED = Tracking()
"""No tracker, no sample grids."""


class Tracker(Protocol):
    """What receives a run's numbers while it trains.

    Attributes:
        last_logged_step: the last step that is logged in full from earlier starts.
    """

    last_logged_step: int

    def write(self, step: int, numbers: Numbers) -> None:
        """Takes the numbers of a step."""

    def write_picture(self, step: int, file: Path) -> None:
        """Takes the sample grid of a step, a PNG file."""

    def close(self) -> None:
        """Ends; nothing is logged after that."""


def _log(tracker: Tracker, content: Mapping[str, Any] | Path) -> None:
    """Logs the numbers of a line of metrics.jsonl, or the sample grid in a file."""
    if isinstance(content, Path):
        tracker.write_picture(int(content.stem), content)
        return
    found = {name: nan if value is None else value for name, value in content.items() if name != "step"}
    tracker.write(content["step"], {name: value for name, value in found.items() if isinstance(value, (int, float))})


def _catch_up(tracker: Tracker, run_dir: Path, step: int) -> None:
    """Logs what the tracker lacks of the steps up to this one."""
    rows = [(row["step"], row) for row in metrics_log.read(run_dir)]
    contents = sorted([*rows, *sample_grids.files(run_dir).items()], key=lambda each: each[0])
    for at, content in contents:
        if tracker.last_logged_step < at <= step:
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
        """Logs to each what it lacks of the steps up to this one, from metrics.jsonl and samples/."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda: _catch_up(tracker, run_dir, step))  # noqa: B023

    def _attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """What the work gives; where it fails, a warning, and its tracker is dropped."""
        try:
            return work()
        except Exception as error:  # whatever a tracker raises, the run goes on
            distributed.warn(f"warning: {name} failed and receives nothing more: {plain(error)}; training goes on")
            dropped = self._trackers.pop(name, None)
            with contextlib.suppress(Exception):
                if dropped is not None:
                    dropped.close()
            return None

    def write(self, row: Mapping[str, Any]) -> None:
        """Logs the numbers of a line of metrics.jsonl."""
        self._log_all(row)

    def write_picture(self, file: Path) -> None:
        """Logs a sample grid."""
        self._log_all(file)

    def _log_all(self, content: Mapping[str, Any] | Path) -> None:
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
    """The trackers of a run that continues from a step, up to which all is logged; on the first process alone."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(experiment.run_dir, step),
        "wandb": lambda: WeightsAndBiases(experiment),
    }
    if not distributed.is_process_0():
        return Trackers({})
    trackers = Trackers({name: makers[name] for name in tracking.track})
    trackers.catch_up(experiment.run_dir, step)
    return trackers
