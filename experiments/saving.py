"""Saving a run on its way: a save that fails is said and tried again at the next; the last one must succeed."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from cfgjax import checkpoints
from cfgjax.checkpoints import CheckpointError
from cfgjax.types import TrainState
from experiments import averaging, owning, processes, runs
from experiments.settings import ADAPTER, Experiment


def keep_of(experiment: Experiment) -> checkpoints.Keep:
    """The rules by which checkpoints stay."""
    return checkpoints.Keep(experiment.keep.last, experiment.keep.every, experiment.keep.best)


class Saver:
    """Saves the states of one run; a context manager.

    Args:
        experiment: of the run; it lies beside each state.
        lease: of the run's folder, on the process that holds it.
    """

    def __init__(self, experiment: Experiment, lease: filelock.SoftFileLease | None) -> None:
        self._config: dict[str, Any] = ADAPTER.dump_python(experiment, mode="json")
        self._folder: Path = runs.checkpoints_of(experiment.run_dir)
        self._lease = lease
        self._writer = checkpoints.Writer(self._folder, keep_of(experiment))
        self._snapshots = averaging.Snapshots(experiment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._writer.__exit__(kind, error, at)
        finally:
            self._snapshots.close()

    @property
    def last(self) -> int | None:
        """The step of the newest published checkpoint."""
        return checkpoints.latest(self._folder)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CheckpointError as error:
            processes.note(f"warning: {error}; training goes on, and the next save is tried")

    def settle(self) -> None:
        """Waits for the save under way; a failure is said."""
        self._attempt(self._writer.settle)

    def save(self, state: TrainState, held_out_loss: float | None = None) -> None:
        """Starts to save the state; a failure is said, and training goes on.

        Raises:
            UserError: the run's folder was taken over by another process.
        """
        if self._lease is not None:
            owning.require_owned(self._lease)
        self.settle()
        self._attempt(lambda: self._writer.save(int(state.step), state, self._config, held_out_loss))
        self._attempt(lambda: self._snapshots.save(state))

    def finish(self, state: TrainState) -> None:
        """Saves the state unless it is saved, and waits for it.

        Raises:
            CheckpointError: it cannot be written.
            UserError: the run's folder was taken over by another process.
        """
        self.settle()
        if self.last == int(state.step):
            return
        if self._lease is not None:
            owning.require_owned(self._lease)
        self._writer.save(int(state.step), state, self._config)
        self._writer.settle()
