"""Saving a run on its way: a save that fails is said and tried again at the next; the last one must succeed."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import filelock
import jax

from cfgjax import checkpoints
from cfgjax.checkpoints import CheckpointError
from cfgjax.types import TrainState
from experiments.cli import malloc
from experiments.config.schema import ADAPTER, Experiment
from experiments.run import ema_snapshots, tensorstore_counters
from experiments.run import folder as run_folder
from experiments.run import lock as run_lock
from experiments.runtime import distributed, peers


def keep_of(experiment: Experiment) -> checkpoints.RetentionPolicy:
    """The rules by which checkpoints stay."""
    return checkpoints.RetentionPolicy(experiment.keep.last, experiment.keep.every, experiment.keep.best)


class Saver:
    """Saves the states of one run; a context manager.

    Args:
        experiment: of the run; it lies beside each state.
        lease: of the run's folder, on the process that holds it.
        restored: the step of the checkpoint from which the run goes on, or None.
    """

    def __init__(self, experiment: Experiment, lease: filelock.SoftFileLease | None, restored: int | None) -> None:
        tensorstore_counters.leave_out()
        self._config: dict[str, Any] = ADAPTER.dump_python(experiment, mode="json")
        self._lease = lease
        self._writer = checkpoints.Writer(run_folder.checkpoints_of(experiment.run_dir), keep_of(experiment))
        self._snapshots = ema_snapshots.Snapshots(experiment)
        self._underway: int | None = None
        self.last = restored
        if restored is not None:
            peers.saved(restored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        peers.notice(error)
        try:
            self._writer.__exit__(kind, error, at)
        finally:
            self._attempt(self._snapshots.close)

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether the work went well; a failure is said, and on several processes ends them."""
        try:
            work()
        except CheckpointError as error:
            if jax.process_count() > 1:
                raise  # the others wait for this process's part
            distributed.warn(f"warning: {error}; training goes on, and the next save is tried")
            return False
        return True

    def require_owned(self) -> None:
        """Finds out, for all processes, whether the run's folder is still theirs.

        Raises:
            UserError: another process took it over.
        """
        lease = self._lease
        distributed.agree(lambda: None if lease is None else run_lock.require_owned(lease))

    def wait(self) -> None:
        """Waits for the save under way, whose step then is ``last``; a failure is said."""
        if self._attempt(self._writer.wait) and self._underway is not None:
            self._publish(self._underway)
        if self._underway is not None:
            malloc.trim()
        self._underway = None

    def _publish(self, step: int) -> None:
        self.last = step
        peers.saved(step)

    def save(self, state: TrainState, held_out_loss: float | None = None) -> None:
        """Starts to save the state; a failure is said, and training goes on."""
        self.wait()
        step = int(state.step)
        if self._attempt(lambda: self._writer.save(step, state, self._config, held_out_loss)):
            self._underway = step
        self._attempt(self._snapshots.wait)
        self._attempt(lambda: self._snapshots.save(state))

    def finish(self, state: TrainState, held_out_loss: float | None = None) -> None:
        """Saves the state unless it is saved, and waits for it.

        Raises:
            CheckpointError: it cannot be written.
        """
        self.wait()
        if self.last == int(state.step):
            return
        self._writer.save(int(state.step), state, self._config, held_out_loss)
        self._writer.wait()
        self._publish(int(state.step))
