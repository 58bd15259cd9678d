"""Train a preset, sample it by ODE and by SDE, and measure it.

The run folder receives config.json, metrics.jsonl (a line every log_every steps), checkpoints/, samples.png and
metrics.json; python -m experiments.report makes one page of them. A folder that already holds this run is resumed from
its newest whole checkpoint, to the same end.
Exit codes: 0 done, 1 a bug, 2 a mistake or a full disk, 3 losses not finite, 75 asked to stop by SIGTERM or SIGINT and
saved (start it again to go on).

python -m experiments.presets tells what each preset needs and reaches; python -m experiments.train digits --help all
that can be set. For example: python -m experiments.train digits --num-steps 1000 --run-dir runs/short
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import filelock
import jax
import tyro

from cfgjax import checkpoints
from cfgjax.checkpoints import NoCheckpointError
from experiments import (
    averaging,
    command,
    continuing,
    journal,
    measurable,
    owning,
    processes,
    runs,
    sheets,
    starts,
    tracking,
)
from experiments.command import UserError
from experiments.findings import report
from experiments.loop import Trainer, advance
from experiments.model import model_of, never_falls
from experiments.options import optional
from experiments.past import Which
from experiments.presets import PRESETS, summary
from experiments.problems import Problem, problem_of, with_shapes
from experiments.processes import Launch
from experiments.restored import Run
from experiments.settings import Experiment
from experiments.stopping import Requests, StoppedError
from experiments.tracking import UNTRACKED, Tracking
from experiments.trained import what_is_untrained


@dataclass(frozen=True)
class Options:
    """A run, and how it is started."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    launch: Annotated[Launch, tyro.conf.OmitArgPrefixes] = field(default_factory=Launch)
    tracking: Annotated[Tracking, tyro.conf.OmitArgPrefixes] = field(default_factory=Tracking)
    accept: Annotated[tuple[runs.Accepted, ...], optional("[{data,num_steps} ...]", "nothing")] = ()
    """Go on with the run in the folder although its data, or its number of steps, are not those it began with."""
    source: Annotated[Path | None, optional("RUN_DIR", "parameters drawn by the seed", "from")] = None
    """Folder of a run of the same network whose parameters a new run begins with, at step 0 with a new optimizer."""
    from_parameters: Which = "ema"
    """Which parameters of that run: their moving average, or themselves."""
    debug_nans: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """End at the first loss or gradient that is not finite, and name the first operation that gave NaN or infinity."""


def _require_divisible(experiment: Experiment) -> None:
    num_parts = jax.device_count() * experiment.num_chunks
    if experiment.batch_size % num_parts:
        chunks = f" times num_chunks ({experiment.num_chunks})" if experiment.num_chunks > 1 else ""
        raise UserError(
            f"batch_size must be divisible by the number of devices ({jax.device_count()}){chunks}, "
            f"got {experiment.batch_size}"
        )


def _require_same_data(problem: Problem) -> None:
    """Raises UserError where the processes found other data, each in its own folder."""
    if len(set(processes.all_texts(f"{problem.train_digest} {problem.test_digest}"))) > 1:
        raise UserError("data_dir holds other data on one process than on another")


def prepare(
    experiment: Experiment,
    debug_nans: bool = False,
    tracked: Tracking = UNTRACKED,
    accepted: Collection[runs.Accepted] = (),
) -> Trainer:
    """The run before its first step; nothing is written.

    Raises:
        UserError: settings out of range, a network that does not fit the data, or a tracker that is not installed.
        DataError: the data set is not prepared.
    """
    runs.validate(experiment)
    experiment = processes.together(lambda: continuing.with_past(experiment, accepted))
    sheets.require_samples(experiment, tracked.samples_every)
    processes.on_first(lambda: tracking.require_installed(tracked))
    _require_divisible(experiment)
    problem = processes.together(lambda: problem_of(experiment))
    _require_same_data(problem)
    experiment = with_shapes(experiment, problem)
    measurable.tell(measurable.left_out_of(experiment, problem))
    untrained = what_is_untrained(experiment)
    if untrained:
        processes.note(f"warning: {untrained} will be learned")
    processes.together(lambda: continuing.require_fits(experiment, problem))
    model = model_of(experiment, problem)
    most = 1 if debug_nans else experiment.most_not_finite
    return Trainer(experiment, problem, model, model.create(), most, debug_nans, tracked)


@contextlib.contextmanager
def _owned(run_dir: Path) -> Iterator[filelock.SoftFileLease | None]:
    """The run's folder, made if need be, owned by the first process for all of them."""
    stack = contextlib.ExitStack()

    def own() -> filelock.SoftFileLease:
        runs.make_folder("run_dir", run_dir)
        return stack.enter_context(owning.owned(run_dir))

    with stack:
        yield processes.on_first(own)


def _rewind(run_dir: Path, step: int) -> None:
    """Removes what the run will write again from a step on."""
    journal.rewind(run_dir, step)
    sheets.rewind(run_dir, step)
    averaging.rewind(run_dir, step)


def _resumed(trainer: Trainer, accepted: tuple[runs.Accepted, ...]) -> Trainer:
    """The run at its newest whole checkpoint, if it has any; damaged ones are moved out of the way."""
    experiment = trainer.experiment
    run_dir, folder = experiment.run_dir, runs.checkpoints_of(experiment.run_dir)
    processes.on_first(lambda: runs.open_run(experiment, accepted))
    try:
        found = checkpoints.restore(folder, trainer.state)
    except NoCheckpointError:
        processes.on_first(lambda: _rewind(run_dir, 0))
        started = experiment.started_from
        return trainer if started is None else trainer._replace(state=continuing.begun(trainer.state, started))
    runs.require_same_as_saved(run_dir, experiment, found.metadata)
    for message in found.damaged.values():
        processes.note(f"warning: {message}; it is moved to {run_dir / 'damaged'}")
    processes.on_first(lambda: checkpoints.set_aside(folder, found.damaged, run_dir / "damaged"))
    processes.on_first(lambda: _rewind(run_dir, found.step))
    command.tell(f"resuming {run_dir} at step {found.step} of {experiment.num_steps}")
    return trainer._replace(state=found.state)


def _write_start(trainer: Trainer, line: str | None) -> None:
    """Writes down that the run is started, and by which command line."""
    step = int(trainer.state.step)
    if processes.is_first():
        starts.write(trainer.experiment.run_dir, line, step)


def _fit(
    trainer: Trainer,
    lease: filelock.SoftFileLease | None,
    requests: Requests,
    line: str | None = None,
    accepted: tuple[runs.Accepted, ...] = (),
) -> Run:
    with requests.deferred():
        trainer = _resumed(trainer, accepted)
        _write_start(trainer, line)
        rising = never_falls(trainer.experiment)
        if rising:
            processes.note(f"warning: {rising}")
        if processes.any_says(requests.is_asked):
            raise StoppedError("stopped before the first step; the same command goes on from the last save")
        state = advance(trainer, lease, requests)
    return Run(trainer.experiment, trainer.problem, trainer.model, state.ema)


def fit(experiment: Experiment, accepted: tuple[runs.Accepted, ...] = ()) -> Run:
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
    with Requests() as requests, _owned(experiment.run_dir) as lease:
        return _fit(trainer, lease, requests, accepted=accepted)


def train(options: Options) -> None:
    """Trains, or resumes, the experiment and writes its report."""
    processes.start(options.launch)
    run_dir = options.experiment.run_dir
    with Requests() as requests:
        experiment = options.experiment
        if options.source is not None:
            experiment = continuing.with_source(experiment, options.source, options.from_parameters)
        trainer = prepare(experiment, options.debug_nans, options.tracking, options.accept)
        with _owned(run_dir) as lease, processes.own_folder(run_dir) as folder:
            report(_fit(trainer, lease, requests, command.line(), options.accept), folder)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    presets = {name: (summary(name), Options(preset)) for name, (_, preset) in PRESETS.items()}
    command.main(train, Options, "experiments.train", __doc__, args, presets)


if __name__ == "__main__":
    main()
