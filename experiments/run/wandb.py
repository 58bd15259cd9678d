"""The tracker of Weights & Biases: offline unless set otherwise, complete after a kill, and nothing twice."""

import contextlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.config.schema import ADAPTER, Experiment
from experiments.run import folder as run_folder
from experiments.runtime import distributed

OFFLINE = ("offline", "dryrun")
DISABLED = "disabled"


class Identity(NamedTuple):
    """What a run's wandb.json holds.

    Attributes:
        id: of the run, for Weights & Biases.
        last_step: the last one logged by starts that ended well.
        underway: the folder, in wandb/, of an offline start that has not ended; its end may be missing.
    """

    id: str
    last_step: int
    underway: str | None


def read_identity(file: Path) -> Identity:
    """What the file holds; where it is not there or does not read, a new id."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text())
        identity = Identity(found["id"], found["last_step"], found["underway"])
        is_name = identity.underway is None or re.fullmatch(r"offline-run-[0-9a-z_-]{1,100}", identity.underway)
        if is_name and re.fullmatch(r"[a-z0-9]{1,32}", identity.id) and type(identity.last_step) is int:
            return identity
    return Identity(secrets.token_hex(6), -1, None)


def plain(error: Exception) -> str:
    """An error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class WeightsAndBiases:
    """A run of Weights & Biases in the folder wandb/ of a run; ``wandb sync`` uploads what was written offline.

    It is offline unless WANDB_MODE is online: a run depends on no network, and sends nothing unasked. It never asks for
    a key: where none is found it is offline, and so it is where the server does not answer. All starts of a run have
    one id, kept in the run's wandb.json. What a killed start wrote offline lacks its end: it is moved to corrupt/, and
    the next start logs all of it again.

    Args:
        experiment: the run.
    """

    def __init__(self, experiment: Experiment) -> None:
        import wandb

        self._wandb, self._experiment = wandb, experiment
        self._file = experiment.run_dir / "wandb.json"
        self._identity = read_identity(self._file)
        self._is_service_ours = "WANDB_SERVICE" not in os.environ
        self._mode: Any = self._wanted_mode()
        if self._mode in OFFLINE:
            self._quarantine()
        try:
            self._run = self._open()
        except wandb.Error as error:
            if self._mode in OFFLINE or not self._is_service_ours:
                raise
            distributed.warn(f"warning: wandb is offline, as its server does not answer: {plain(error)}")
            wandb.teardown()
            self._mode = "offline"
            self._run = self._open()
        folder = Path(self._run.dir).parent.name if self._mode in OFFLINE else None
        on_server = -1 if self._mode in (*OFFLINE, DISABLED) else self._run.step - 1
        self.last_logged_step = self._logged = max(self._identity.last_step, on_server)
        self._save_identity(self._identity.last_step, folder)

    def _wanted_mode(self) -> Any:
        mode = os.environ.get("WANDB_MODE") or "offline"
        if mode in (*OFFLINE, DISABLED) or self._wandb.login(prompt=False, verify=False):
            return mode
        distributed.warn("warning: wandb is offline, as it has no key: wandb login")
        return "offline"

    def _quarantine(self) -> None:
        """Moves away what a killed start wrote."""
        name = self._identity.underway
        if name is None or not (self._experiment.run_dir / "wandb" / name).is_dir():
            return
        corrupt = self._experiment.run_dir / "corrupt"
        corrupt.mkdir(exist_ok=True)
        (self._experiment.run_dir / "wandb" / name).rename(corrupt / name)

    def _open(self) -> Any:
        return self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cfgjax"),
            name=self._experiment.run_dir.resolve().name,
            id=self._identity.id,
            dir=str(self._experiment.run_dir.resolve()),
            config=ADAPTER.dump_python(self._experiment, mode="json"),
            allow_val_change=True,
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, init_timeout=30, finish_timeout=60
            ),
        )

    def _save_identity(self, last_step: int, underway: str | None) -> None:
        if self._mode != DISABLED:
            identity = Identity(self._identity.id, last_step, underway)
            run_folder.write_atomically(self._file, json.dumps(identity._asdict()) + "\n")

    def _log(self, step: int, content: Mapping[str, Any]) -> None:
        """Logs what is not yet logged of a step: a run that is resumed further back has the same numbers again."""
        if step > self.last_logged_step:
            self._run.log(dict(content), step=step)
            self._logged = step

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
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
        self._save_identity(self._logged, None)
