"""Trackers: TensorBoard and Weights & Biases are told what metrics.jsonl is told, and shown the sheets of samples.

metrics.jsonl is a run's record; a tracker is a view of it that may fail. The first failure of each is said, after which
it is told nothing more until the run is started again. Only the first process has any.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from experiments import processes, runs
from experiments.command import UserError
from experiments.settings import ADAPTER, Experiment

Name = Literal["tensorboard", "wandb"]
MODULES: dict[Name, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Tracking:
    """What is shown of a run while it trains. Its results are the same with and without."""

    track: tuple[Name, ...] = ()
    """Trackers that are told what metrics.jsonl is told, in the run's folder: tensorboard (needs tensorboardX), wandb
    (offline unless the variable WANDB_MODE is online)."""
    samples_every: int | None = None
    """Steps between sheets of samples, labels by scales, drawn by the run's own settings as samples/STEP.png."""


UNTRACKED = Tracking()
"""No tracker, no sheets."""


class Tracker(Protocol):
    """What is told of a run while it trains."""

    def write(self, step: int, numbers: Numbers) -> None:
        """Takes the numbers of a step."""

    def write_picture(self, step: int, file: Path) -> None:
        """Takes the sheet of samples of a step, a PNG file."""

    def close(self) -> None:
        """Ends; nothing is told after that."""


class TensorBoard:
    """Events in the folder tensorboard/ of a run, for ``tensorboard --logdir RUN``.

    They are written at once and by this thread: the package's own writer has a thread and a queue, and where the thread
    fails, the queue fills and the trainer waits for ever.

    Args:
        run_dir: the run's folder.
        step: the run goes on from; readers drop the events of later steps that earlier starts wrote.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        event_pb2: Any = importlib.import_module("tensorboardX.proto.event_pb2")

        folder = run_dir / "tensorboard"
        folder.mkdir(exist_ok=True)
        self._proto = event_pb2
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{secrets.token_hex(4)}")
        self._add(step=step + 1, session_log=self._proto.SessionLog(status=self._proto.SessionLog.START))

    def _add(self, **content: Any) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time.time(), **content))
        self._writer.flush()

    def write(self, step: int, numbers: Numbers) -> None:
        """Writes scalars.

        Raises:
            OSError: the file cannot be written.
        """
        from tensorboardX import summary

        for name, number in numbers.items():
            self._add(step=step, summary=summary.scalar(name, number))

    def write_picture(self, step: int, file: Path) -> None:
        """Writes the picture.

        Raises:
            OSError: the file cannot be written.
        """
        from tensorboardX import summary

        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._add(step=step, summary=summary.image("samples", pixels, dataformats="HWC"))

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases in the folder wandb/ of a run; ``wandb sync`` uploads what was written offline.

    It is offline unless WANDB_MODE says otherwise: a run depends on no network and sends nothing unasked. It never asks
    for a key: where none is found it is offline, and so it is where the server does not answer. Its id is kept in the
    run's wandb.json with the last step that it was told; a resumed run, whose numbers are the same, starts after that.

    Args:
        experiment: the run.
    """

    def __init__(self, experiment: Experiment) -> None:
        import wandb

        self._wandb, self._experiment = wandb, experiment
        self._file = experiment.run_dir / "wandb.json"
        self._id, self._known = _read_identity(self._file)
        self._is_service_ours = "WANDB_SERVICE" not in os.environ
        mode = self._mode()
        try:
            self._run = self._open(mode)
        except wandb.Error as error:
            if mode == "offline" or not self._is_service_ours:
                raise
            processes.note(f"warning: wandb is offline, as its server does not answer: {_one_line(error)}")
            wandb.teardown()
            self._run = self._open("offline")

    def _mode(self) -> Any:
        mode = os.environ.get("WANDB_MODE") or "offline"
        if mode in ("offline", "dryrun", "disabled") or self._wandb.login(prompt=False, verify=False):
            return mode
        processes.note("warning: wandb is offline, as it has no key: wandb login")
        return "offline"

    def _open(self, mode: Any) -> Any:
        return self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cfgjax"),
            name=self._experiment.run_dir.resolve().name,
            id=self._id,
            dir=str(self._experiment.run_dir.resolve()),
            config=ADAPTER.dump_python(self._experiment, mode="json"),
            allow_val_change=True,
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, init_timeout=30, finish_timeout=60
            ),
        )

    def _log(self, step: int, content: Mapping[str, Any]) -> None:
        if step <= self._known:
            return
        self._run.log(dict(content), step=step)
        runs.write_atomically(self._file, json.dumps({"id": self._id, "last_step": step}) + "\n")

    def write(self, step: int, numbers: Numbers) -> None:
        """Logs the numbers."""
        self._log(step, numbers)

    def write_picture(self, step: int, file: Path) -> None:
        """Logs the picture."""
        self._log(step, {"samples": self._wandb.Image(str(file))})

    def close(self) -> None:
        """Finishes the run, and ends the process that writes it unless others use it."""
        self._run.finish()
        if self._is_service_ours:
            self._wandb.teardown()


def _read_identity(file: Path) -> tuple[str, int]:
    """The id of a run's wandb.json and the last step told; where there is none that reads, a new id and -1."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text())
        if re.fullmatch(r"[a-z0-9]{1,32}", found["id"]) and type(found["last_step"]) is int:
            return found["id"], found["last_step"]
    return secrets.token_hex(6), -1


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


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

    def _attempt(self, name: str, work: Callable[[], Any]) -> Any:
        """What the work gives; where it fails, that is said, and its tracker is given up."""
        try:
            return work()
        except Exception as error:  # whatever a tracker raises, the run goes on
            processes.note(f"warning: {name} failed and is told nothing more: {_one_line(error)}; training goes on")
            given_up = self._trackers.pop(name, None)
            with contextlib.suppress(Exception):
                if given_up is not None:
                    given_up.close()
            return None

    def write(self, row: Mapping[str, Any]) -> None:
        """Tells the numbers of a line of metrics.jsonl."""
        numbers = {name: value for name, value in row.items() if name != "step"}
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda: tracker.write(row["step"], numbers))  # noqa: B023

    def write_picture(self, step: int, file: Path) -> None:
        """Shows the sheet of samples of a step."""
        for name, tracker in list(self._trackers.items()):
            self._attempt(name, lambda: tracker.write_picture(step, file))  # noqa: B023

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
            raise UserError(f"track {name} needs {MODULES[name]}: pip install -e '.[{name}]'")


def trackers_of(tracking: Tracking, experiment: Experiment, step: int) -> Trackers:
    """The trackers of a run that goes on from a step; none where this is not the first process."""
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(experiment.run_dir, step),
        "wandb": lambda: WeightsAndBiases(experiment),
    }
    return Trackers({name: makers[name] for name in tracking.track} if processes.is_first() else {})
