"""The training loop: dispatches, metrics, saves, and the ways in which a run ends."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import training
from cfgjax.training import Metrics, fsdp
from cfgjax.types import TrainState, Tree
from experiments.config.schema import Experiment
from experiments.run import metrics_log, nonfinite
from experiments.run.checkpointing import Saver
from experiments.run.decoder import Decoder
from experiments.run.model import Model
from experiments.run.nonfinite import NonfiniteMonitor
from experiments.run.reconstruction_sheets import grids_of
from experiments.run.sample_grids import SampleGrids
from experiments.run.trackers import UNTRACKED, Tracking, trackers_of
from experiments.run.train_setup import TrainSetup, step_of
from experiments.runtime import distributed, peers, progress
from experiments.runtime.batching import plan_batching
from experiments.runtime.own_time import OwnTime
from experiments.runtime.signals import StoppedError, StopRequests
from experiments.tasks.examples import weighted, with_weights
from experiments.tasks.task import Task


class Trainer(NamedTuple):
    """A run before its first step, nothing of it written yet."""

    experiment: Experiment
    task: Task
    model: Model
    setup: TrainSetup
    state: TrainState
    max_consecutive_nonfinite: int
    looks_for_operation: bool
    tracking: Tracking = UNTRACKED
    decoder: Decoder | None = None


def dispatches(first: int, experiment: Experiment) -> Iterator[range]:
    """The steps from ``first`` on, in groups for one dispatch each.

    Groups end at the same steps whether a run was resumed or not: at multiples of steps_per_dispatch and at every
    save. What is left between a save and such a multiple goes step by step, so that only two programs are compiled.
    """
    size = experiment.steps_per_dispatch
    while first < experiment.num_steps:
        next_save = (first // experiment.save_every + 1) * experiment.save_every
        is_whole = first % size == 0 and first + size <= min(next_save, experiment.num_steps)
        steps = range(first, first + size if is_whole else first + 1)
        yield steps
        first = steps.stop


class _Logger:
    """Lines of metrics.jsonl, trackers and the progress bar; fetches a step's metrics only when it writes them."""

    def __init__(self, trainer: Trainer) -> None:
        experiment, first = trainer.experiment, int(trainer.state.step)
        self._experiment, self._learning_rate = experiment, trainer.setup.learning_rate
        self._metrics_log = metrics_log.MetricsLog(experiment.run_dir) if distributed.is_process_0() else None
        self.trackers = trackers_of(trainer.tracking, experiment, first)
        self.bar = progress.bar(experiment.num_steps, "steps", "training", first, patience=0)
        self._since, self._at, self.own_time = first, time.perf_counter(), OwnTime()

    def write(self, row: dict[str, Any]) -> None:
        """Appends a line, and tells the trackers."""
        if self._metrics_log is not None:
            self._metrics_log.append(row)
        self.trackers.write(row)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, time is not counted in the rate."""
        start = time.perf_counter()
        yield
        self._at += time.perf_counter() - start

    def is_written(self) -> bool:
        """Whether all lines so far are written, so that a checkpoint may follow them; the same on all processes."""
        return distributed.all_true(self._metrics_log is None or self._metrics_log.is_written())

    def flush(self) -> None:
        """Writes the lines that wait.

        Raises:
            OSError: they cannot be written, on one process alone.
            UserError: the same, on several.
        """
        lines = self._metrics_log
        distributed.agree(lambda: None if lines is None else lines.flush())

    def log(self, steps: range, metrics: Metrics) -> None:
        """Takes the metrics [K] of the steps of a dispatch."""
        self.bar.update(len(steps))
        done = range(steps.start + 1, steps.stop + 1)
        written = [n for n in done if n % self._experiment.log_every == 0 or n == self._experiment.num_steps]
        if not written:
            return
        with self.own_time.waiting():
            fetched = jax.device_get(metrics)
        rate = (steps.stop - self._since) * self._experiment.batch_size / (time.perf_counter() - self._at)
        hosts = self.own_time.end_interval(steps.stop - self._since)
        for number in written:
            of_step = {name: values[number - done.start] for name, values in fetched.items()}
            row = {name: float(of_step[name]) for name in ("loss", "grad_norm")}
            left_out = int(of_step[nonfinite.IN_ALL])
            counted = {nonfinite.IN_ALL: left_out, "learning_rate": self._rate_of(number - left_out)}
            self.write({"step": number, **row, **counted, "examples_per_second": round(rate, 1), **hosts})
        told = f"loss={fetched['loss'][-1]:.4f}", self.own_time.told()
        self.bar.set_postfix_str(", ".join(filter(None, told)))
        self._since, self._at = steps.stop, time.perf_counter()

    def _rate_of(self, num_updates: int) -> float:
        """The learning rate of the last of so many updates."""
        return float(f"{np.asarray(self._learning_rate(max(0, num_updates - 1))):.6g}")


class _Programs(NamedTuple):
    """A run's compiled functions and what lies on the devices for all of its steps."""

    advance: Any
    evaluate: Any
    norms: Any
    source: Tree
    held_out: tuple[Tree, ...]


def _num_microbatches(count: int, most_at_once: int) -> int:
    """In how few equal microbatches so many examples can be taken.

    >>> _num_microbatches(360, 100), _num_microbatches(7, 3), _num_microbatches(4, 8)
    (4, 7, 1)
    """
    return next(number for number in range(1, count + 1) if count % number == 0 and count // number <= most_at_once)


def _held_out(trainer: Trainer) -> tuple[Tree, ...]:
    """The held-out examples, and what else their loss takes beside the state: no source, and a teacher's parameters."""
    examples, num_repeated = trainer.task.held_out, trainer.task.num_repeated
    if num_repeated:
        examples = with_weights(examples, num_repeated)
    examples = training.shard(examples, jax.local_device_count())
    source = trainer.setup.source_of(None, trainer.task)
    return (examples,) if source is None else (examples, training.replicate(source))


def _programs_of(trainer: Trainer) -> _Programs:
    experiment, task, setup, state = trainer.experiment, trainer.task, trainer.setup, trainer.state
    step = step_of(experiment, setup)
    one = jax.tree.map(lambda leaf: leaf[0], task.held_out)
    options = plan_batching(setup.loss, state.params, state.key, one, shared=1).compiler_options
    num_held_out = len(jax.tree.leaves(task.held_out)[0]) // jax.local_device_count()
    most_at_once = experiment.batch_size // (jax.device_count() * experiment.num_microbatches)
    count = _num_microbatches(num_held_out, most_at_once)
    counted = weighted if task.num_repeated else lambda loss: loss
    evaluation = setup.beside(lambda loss: training.make_eval_step(counted(loss), count), is_trained=False)
    norms = setup.beside(lambda loss: nonfinite.gradient_norms(loss, experiment.num_microbatches))
    on_devices = fsdp.fsdp if experiment.placement == "sharded" else training.parallel
    return _Programs(
        on_devices(training.multi_step(nonfinite.counting(step)), compiler_options=options),
        on_devices(evaluation, donate=False, compiler_options=options),
        on_devices(norms, donate=False, compiler_options=options),
        training.replicate(setup.source_of(task.source, task)),
        _held_out(trainer),
    )


def _explain(trainer: Trainer, programs: _Programs, state: TrainState, first: int, last_saved: int | None) -> None:
    """Ends a run that diverged, by its parameters now: those of the first bad step, if none was finite since."""
    state = state._replace(step=jnp.int32(first))
    batch = next(iter(trainer.task.batches(range(first, first + 1))))
    norms = jax.device_get(programs.norms(state, training.shard(batch, jax.local_device_count()), programs.source))
    place = None
    if trainer.looks_for_operation:
        found = nonfinite.first_operation(trainer.setup.loss, state, first, batch, trainer.task.source)
        places = [text for text in distributed.all_texts(found or "") if text]
        place = next(iter(places), "none of a single example: only their mean is not finite")
    with distributed.own_folder(trainer.experiment.run_dir) as folder:
        nonfinite.explain(folder, first, trainer.max_consecutive_nonfinite, last_saved, norms, place)


class _LoopContext(NamedTuple):
    """What the loop has in its hands from its first dispatch to its last."""

    trainer: Trainer
    programs: _Programs
    logger: _Logger
    watch: NonfiniteMonitor
    saver: Saver
    sample_grids: SampleGrids

    def require_finite(self, state: TrainState, steps: range, metrics: Metrics, ends: bool) -> None:
        """Ends the run where losses or gradients were not finite, step after step."""
        bad = self.watch.first_bad(steps, metrics)
        if bad is None and ends:
            bad = self.watch.first_bad_of_rest()
        if bad is not None:
            self.saver.wait()
            _explain(self.trainer, self.programs, state, bad, self.saver.last)

    def show(self, state: TrainState, steps: range) -> None:
        """Draws a sample grid where one is due."""
        if not self.sample_grids.is_due(steps):
            return
        with self.logger.paused():
            grid = self.sample_grids.draw(state.ema, steps.stop)
        if grid is not None:
            self.logger.trackers.write_picture(grid)

    def save(self, state: TrainState) -> float:
        """Measures the held-out loss, and starts to save the state once all lines of metrics before it are written."""
        self.saver.require_owned()
        peers.doing(f"saving step {int(state.step)}")
        held_out_loss = float(self.programs.evaluate(state, *self.programs.held_out)["loss"])
        self.logger.write({"step": int(state.step), "held_out_loss": held_out_loss})
        if jax.process_count() > 1:
            self.logger.flush()  # one that cannot write ends all, as where its part of a save fails
        if self.logger.is_written():
            self.saver.save(state, held_out_loss)
        return held_out_loss

    def finish(self, state: TrainState, held_out_loss: float | None) -> None:
        """Writes the lines that wait, and saves the state unless it is saved."""
        self.logger.flush()
        self.saver.require_owned()
        self.saver.finish(state, held_out_loss)


def _loop_context(trainer: Trainer, saver: Saver) -> _LoopContext:
    lag = 0 if trainer.looks_for_operation else distributed.LAG
    every, decoder = trainer.tracking.samples_every, trainer.decoder
    sample_grids = grids_of(trainer.experiment, trainer.task, trainer.model, every, decoder)
    programs, logger = _programs_of(trainer), _Logger(trainer)
    return _LoopContext(
        trainer, programs, logger, NonfiniteMonitor(trainer.max_consecutive_nonfinite, lag), saver, sample_grids
    )


def advance(trainer: Trainer, lease: filelock.SoftFileLease | None, requests: StopRequests) -> TrainState:
    """The state after the last step, saved on the way and at the end.

    Raises:
        StoppedError: a signal asked for it; the state is saved.
        DivergedError: losses or gradients were not finite, step after step.
        CheckpointError: the last state cannot be saved.
    """
    experiment, state = trainer.experiment, trainer.state
    first, num_devices, held_out_loss = int(state.step), jax.local_device_count(), None
    size = 1 if trainer.looks_for_operation else experiment.steps_per_dispatch
    some_process_asks = distributed.AnyTrue()
    blocks_each_step = jax.default_backend() == "cpu" and jax.device_count() > 1
    with Saver(experiment, lease, first or None) as saver:
        context = _loop_context(trainer, saver)
        logger, own_time = context.logger, context.logger.own_time
        with contextlib.closing(logger.trackers), contextlib.closing(own_time), logger.bar:
            batches = trainer.task.batches(range(first, experiment.num_steps))
            for steps in dispatches(first, replace(experiment, steps_per_dispatch=size)):
                number = f"{steps.start + 1} of {experiment.num_steps}"
                peers.doing(f"reading the batch of step {number}")
                taken = training.shard_stacked([next(batches) for _ in steps], num_devices)
                peers.doing(f"{'compiling, then ' if steps.start == first else ''}step {number}")
                state, metrics = context.programs.advance(state, taken, context.programs.source)
                if blocks_each_step:
                    with own_time.waiting():
                        jax.block_until_ready(metrics)
                logger.log(steps, metrics)
                with own_time.waiting():
                    is_stopped = some_process_asks(requests.is_asked)
                is_last = steps.stop == experiment.num_steps
                context.require_finite(state, steps, metrics, is_last or is_stopped)
                held_out_loss = None
                with own_time.left_out():
                    context.show(state, steps)
                    if steps.stop % experiment.save_every == 0 or is_last:
                        held_out_loss = context.save(state)
                if is_stopped:
                    break
            context.finish(state, held_out_loss)
    if distributed.any_true(requests.is_asked):
        at = f"step {int(state.step)} of {experiment.num_steps}"
        raise StoppedError(f"stopped at {at} and saved; the same command goes on from there")
    return state
