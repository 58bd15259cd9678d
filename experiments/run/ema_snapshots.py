"""Snapshots of a run's further moving averages, and the EMA of any width made of them afterwards."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

from cfgjax import checkpoints
from cfgjax.checkpoints import CheckpointError
from cfgjax.training import posthoc_ema
from cfgjax.types import EMAProfile, TrainState, Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.runtime import distributed

MOST_ERROR = 0.1
"""Relative distance from the wanted profile above which a warning is given."""


def folder_of(run_dir: Path) -> Path:
    """The folder of a run's snapshots."""
    return run_dir / "snapshots"


def rewind(run_dir: Path, step: int) -> None:
    """Removes the snapshots that a resumed run will save again: its data may be others since."""
    folder = folder_of(run_dir)
    for later in (each for each in checkpoints.all_steps(folder) if each > step):
        shutil.rmtree(folder / str(later))


class Snapshots:
    """Keeps a snapshot of the state's further EMAs at every so many-th save; nothing where the state keeps none.

    Args:
        experiment: of the run.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._every = experiment.keep.snapshot_saves * experiment.save_every
        folder, keeps_all = folder_of(experiment.run_dir), checkpoints.RetentionPolicy(last=None)
        self._writer = checkpoints.Writer(folder, keeps_all) if experiment.optimizer.average_widths else None
        self._kept = set(checkpoints.all_steps(folder))

    def save(self, state: TrainState) -> None:
        """Starts to save a snapshot, where one is due and was not kept before; the one before must be settled.

        Raises:
            CheckpointError: it cannot be started.
        """
        step = int(state.step)
        if self._writer is None or step % self._every or step in self._kept:
            return
        self._writer.save(step, {"averages": state.averages}, {})
        self._kept.add(step)

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
            CheckpointError: it failed.
        """
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """Waits for the save under way and closes the folder.

        Raises:
            CheckpointError: it failed.
        """
        if self._writer is not None:
            self._writer.__exit__(None, None, None)


def _profiles(steps: list[int], widths: tuple[float, ...]) -> list[EMAProfile]:
    return [EMAProfile(step, width) for step in steps for width in widths]


def reconstructed(experiment: Experiment, run_dir: Path, width: float) -> Tree:
    """The moving average of a width at the last snapshot, made of all snapshots; its error is said where it is large.

    Raises:
        UserError: a run that keeps no further EMAs, a width out of range, or too few snapshots.
        CheckpointError: a snapshot that does not read.
    """
    widths, folder = experiment.optimizer.average_widths, folder_of(run_dir)
    steps = checkpoints.all_steps(folder)[::-1]
    if not widths or not steps:
        raise UserError(f"ema_width needs a run with snapshots, trained with --optimizer.average-widths, not {run_dir}")
    kept, wanted = _profiles(steps, widths), EMAProfile(steps[-1], width)
    try:
        posthoc_ema.exponent_of(width)  # whose error names the width alone
        coefficients = posthoc_ema.weights(kept, wanted)
    except ValueError as error:
        raise UserError(f"ema_width: {error}") from None
    distance = posthoc_ema.profile_error(kept, wanted, coefficients)
    if distance > MOST_ERROR:
        distributed.warn(f"warning: the average of width {width:g} is only met to {distance:.0%}; keep more snapshots")

    def trees() -> Iterator[Tree]:
        for step, index in itertools.product(steps, range(len(widths))):
            try:
                yield checkpoints.restore_params(folder, step, index).state
            except CheckpointError as error:
                raise CheckpointError(f"ema_width: {error}") from None

    return posthoc_ema.reconstruct(trees(), coefficients)
