"""A run from its first step, or its newest whole checkpoint, to its last step."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock
import jax
import jax.numpy as jnp

from cfgjax import checkpoints
from cfgjax.checkpoints import NoCheckpointError
from cfgjax.types import TrainState
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.evaluation import measurable
from experiments.run import continuation, ema_snapshots, launches, metrics_log, sample_grids, teacher, trackers
from experiments.run import folder as run_folder
from experiments.run import lock as run_lock
from experiments.run.compared import require_same_data, require_same_settings
from experiments.run.loop import Trainer, advance
from experiments.run.model import Model, model_of
from experiments.run.parts import frozen_of, told_frozen
from experiments.run.restore import Run
from experiments.run.shared_folder import require_shared
from experiments.run.trackers import UNTRACKED, Tracking
from experiments.run.train_setup import never_falls, train_setup_of
from experiments.run.trained_labels import what_is_untrained
from experiments.run.trajectories import with_trajectories
from experiments.runtime import distributed, peers
from experiments.runtime.signals import StoppedError, StopRequests
from experiments.tasks.memory_limit import NUM_COPIES, require_affordable
from experiments.tasks.registry import task_of, with_facts
from experiments.tasks.task import Task
from experiments.tasks.texts import Tokenizer


def _require_divisible(experiment: Experiment) -> None:
    num_parts = jax.device_count() * experiment.num_microbatches
    if experiment.batch_size % num_parts:
        chunks = f" times num_microbatches ({experiment.num_microbatches})" if experiment.num_microbatches > 1 else ""
        raise UserError(
            f"batch_size must be divisible by the number of devices ({jax.device_count()}){chunks}, "
            f"got {experiment.batch_size}"
        )


def _compared(experiment: Experiment, task: Task, model: Model) -> Experiment:
    """The experiment, found to have the network of what it begins with, and the parameters that it freezes."""
    if experiment.started_from is None and not experiment.freeze:
        return experiment
    params = jax.eval_shape(model.init, jax.random.key(0))
    frozen_of(experiment, params)
    return continuation.with_compatible_source(experiment, task, params)


def prepare(
    experiment: Experiment,
    debug_nans: bool = False,
    tracked: Tracking = UNTRACKED,
    accepted: Collection[run_folder.Accepted] = (),
    tokenizer: Tokenizer | None = None,
) -> Trainer:
    """The run before its first step; nothing is written.

    Raises:
        UserError: settings out of range, a network that does not fit the data or what it begins with, a tracker that is
            not installed, or processes with other settings or data than others.
        DataError: the data set is not prepared.
    """
    require_same_settings(experiment)
    run_folder.validate(experiment)
    experiment = distributed.agree(lambda: continuation.with_past(teacher.with_step(experiment), accepted))
    sample_grids.require_samples(experiment, tracked.samples_every)
    distributed.on_process_0(lambda: trackers.require_installed(tracked))
    _require_divisible(experiment)
    peers.doing("reading the data")
    task = distributed.agree(lambda: task_of(experiment, tokenizer=tokenizer))
    require_same_data(experiment, task)
    task = distributed.agree(lambda: teacher.with_teacher(experiment, task))
    num_copies = 2 if experiment.freeze else NUM_COPIES
    distributed.agree(lambda: require_affordable(experiment, task.shape, task.num_classes, num_copies))
    experiment = with_facts(experiment, task)
    measurable.tell(task.left_out(experiment.sampling.num_per_class))
    model = model_of(experiment, task)
    experiment = distributed.agree(lambda: _compared(experiment, task, model))
    untrained = what_is_untrained(experiment)
    if untrained and task.objective.is_field:
        distributed.warn(f"warning: {untrained} will be learned")
    most = 1 if debug_nans else experiment.max_consecutive_nonfinite
    setup = train_setup_of(experiment, task, model)
    return Trainer(experiment, task, model, setup, setup.create(), most, debug_nans, tracked)


@contextlib.contextmanager
def owned_folder(run_dir: Path) -> Iterator[filelock.SoftFileLease | None]:
    """The run's folder, made if need be, owned by the first process for all of them."""
    stack = contextlib.ExitStack()

    def own() -> filelock.SoftFileLease:
        run_folder.make_folder("run_dir", run_dir)
        return stack.enter_context(run_lock.owned(run_dir))

    with stack:
        lease = distributed.on_process_0(own)
        with peers.at_end(stack.close):
            require_shared("run_dir", run_dir)
            yield lease


def _rewind(run_dir: Path, step: int) -> None:
    """Removes what the run will write again from a step on."""
    metrics_log.rewind(run_dir, step)
    sample_grids.rewind(run_dir, step)
    ema_snapshots.rewind(run_dir, step)


def _resumed(trainer: Trainer, accepted: tuple[run_folder.Accepted, ...]) -> Trainer:
    """The run at its newest whole checkpoint, if it has any; corrupt ones are moved out of the way."""
    experiment = trainer.experiment
    run_dir, folder = experiment.run_dir, run_folder.checkpoints_of(experiment.run_dir)
    peers.doing("restoring the newest checkpoint")
    distributed.on_process_0(lambda: run_folder.open_run(experiment, accepted))
    try:
        found = checkpoints.restore(folder, trainer.state)
    except NoCheckpointError:
        distributed.on_process_0(lambda: _rewind(run_dir, 0))
        return trainer._replace(state=continuation.begun(trainer.state, experiment, trainer.task))
    run_folder.require_same_as_saved(run_dir, experiment, found.metadata)
    for message in found.corrupt.values():
        distributed.warn(f"warning: {message}; it is moved to {run_dir / 'corrupt'}")
    distributed.on_process_0(lambda: checkpoints.quarantine(folder, found.corrupt, run_dir / "corrupt"))
    distributed.on_process_0(lambda: _rewind(run_dir, found.step))
    cli.info(f"resuming {run_dir} at step {found.step} of {experiment.num_steps}")
    return trainer._replace(state=found.state)


def _write_start(trainer: Trainer, line: str | None) -> None:
    """Writes down that the run is started, and by which command line."""
    step = int(trainer.state.step)
    if distributed.is_process_0():
        launches.write(trainer.experiment, line, step, None if trainer.decoder is None else trainer.decoder.place)


def _trained(trainer: Trainer, lease: filelock.SoftFileLease | None, requests: StopRequests) -> TrainState:
    """The state after the last step; of a run that is there already nothing is made but what its trackers lack."""
    experiment, step = trainer.experiment, int(trainer.state.step)
    if step == experiment.num_steps:
        trackers.trackers_of(trainer.tracking, experiment, step).close()
        return trainer.state
    return advance(trainer._replace(task=with_trajectories(experiment, trainer.task)), lease, requests)


def resume_and_train(
    trainer: Trainer,
    lease: filelock.SoftFileLease | None,
    requests: StopRequests,
    line: str | None = None,
    accepted: tuple[run_folder.Accepted, ...] = (),
) -> Run[Task]:
    """The run resumed, if it has a checkpoint, and trained to its last step."""
    with requests.deferred():
        trainer = _resumed(trainer, accepted)
        _write_start(trainer, line)
        if trainer.setup.frozen is not None:
            cli.info(told_frozen(trainer.setup.frozen, trainer.state.params))
        rising = never_falls(trainer.experiment)
        if rising:
            distributed.warn(f"warning: {rising}")
        if distributed.any_true(requests.is_asked):
            raise StoppedError("stopped before the first step; the same command goes on from the last save")
        state = _trained(trainer, lease, requests)
    ema = jax.tree.map(lambda leaf: jnp.asarray(distributed.whole(leaf)), state.ema)
    return Run(trainer.experiment, trainer.task, trainer.model, ema)


def fit(experiment: Experiment, accepted: tuple[run_folder.Accepted, ...] = ()) -> Run[Task]:
    """The experiment trained to its last step, or resumed from its newest whole checkpoint.

    Args:
        experiment: the run.
        accepted: what may differ from what the run in its folder began with.

    Raises:
        UserError: settings out of range, a network that does not fit the data, a folder that holds another run or is
            being trained by another process.
        DataError: the data set is not prepared.
        CheckpointError: none of the folder's checkpoints reads, or the last state cannot be saved.
        StoppedError: a signal asked for it; the state is saved.
        DivergedError: losses or gradients were not finite, step after step.
    """
    trainer = prepare(experiment, accepted=accepted)
    with StopRequests() as requests, owned_folder(experiment.run_dir) as lease:
        return resume_and_train(trainer, lease, requests, accepted=accepted)
