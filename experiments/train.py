"""Train a preset, sample it by ODE and by SDE, and measure it.

The run folder receives config.json, metrics.jsonl (a line every log_every steps), checkpoints/, samples.png and
metrics.json. A folder that already holds this run is resumed from its last checkpoint, to the same end.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import tyro
from tqdm import tqdm

from cfgjax import checkpoints, training
from cfgjax.training import Metrics
from cfgjax.types import TrainState
from experiments import command, runs
from experiments.command import UserError
from experiments.model import Model, model_of
from experiments.presets import PRESETS
from experiments.problems import Problem, problem_of
from experiments.programs import plan_of
from experiments.report import report
from experiments.restored import Run
from experiments.settings import ADAPTER, Experiment


def _require_divisible(experiment: Experiment) -> None:
    num_parts = jax.device_count() * experiment.num_chunks
    if experiment.batch_size % num_parts:
        chunks = f" times num_chunks ({experiment.num_chunks})" if experiment.num_chunks > 1 else ""
        raise UserError(
            f"batch_size must be divisible by the number of devices ({jax.device_count()}){chunks}, "
            f"got {experiment.batch_size}"
        )


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
    """Lines of metrics.jsonl and the progress bar; fetches a step's metrics only when it writes them."""

    def __init__(self, run_dir: Path, experiment: Experiment, first: int) -> None:
        self._run_dir, self._experiment, self._since, self._at = run_dir, experiment, first, time.perf_counter()
        self.bar = tqdm(total=experiment.num_steps, initial=first, unit="step", file=sys.stderr, mininterval=1.0)

    def log(self, steps: range, metrics: Metrics) -> None:
        """Takes the metrics [K] of the steps of a dispatch."""
        self.bar.update(len(steps))
        done = range(steps.start + 1, steps.stop + 1)
        written = [n for n in done if n % self._experiment.log_every == 0 or n == self._experiment.num_steps]
        if not written:
            return
        fetched = jax.device_get(metrics)
        rate = (steps.stop - self._since) * self._experiment.batch_size / (time.perf_counter() - self._at)
        for number in written:
            row = {name: float(values[number - done.start]) for name, values in fetched.items()}
            runs.append_metrics(self._run_dir, {"step": number, **row, "examples_per_second": round(rate, 1)})
        self.bar.set_postfix(loss=f"{fetched['loss'][-1]:.4f}")
        self._since, self._at = steps.stop, time.perf_counter()


def _advance(experiment: Experiment, problem: Problem, model: Model, state: TrainState) -> TrainState:
    """The state after the last step, saved on the way and at the end."""
    step = training.make_step(model.loss, model.optimizer, model.ema_decay, experiment.num_chunks)
    one = jax.tree.map(lambda leaf: leaf[0], problem.held_out)
    options = plan_of(model.loss, state.params, state.key, one, shared=1).compiler_options
    advance = training.parallel(training.several(step), compiler_options=options)
    evaluation = training.make_evaluation(model.evaluation_loss)
    evaluate = training.parallel(evaluation, donate=False, compiler_options=options)
    source = training.replicate(problem.source)
    held_out = training.shard(problem.held_out, jax.local_device_count())
    config = ADAPTER.dump_python(experiment, mode="json")
    first = int(state.step)
    logger = _Logger(experiment.run_dir, experiment, first)
    blocks_each_step = jax.default_backend() == "cpu" and jax.device_count() > 1
    with checkpoints.open_folder(runs.checkpoints_of(experiment.run_dir)) as manager, logger.bar:
        batches = problem.batches(range(first, experiment.num_steps))
        for steps in dispatches(first, experiment):
            taken = [next(batches) for _ in steps]
            state, metrics = advance(state, training.shard_several(taken, jax.local_device_count()), source)
            if blocks_each_step:
                jax.block_until_ready(metrics)
            logger.log(steps, metrics)
            if steps.stop % experiment.save_every == 0 or steps.stop == experiment.num_steps:
                held_out_loss = float(evaluate(state, held_out)["loss"])
                runs.append_metrics(experiment.run_dir, {"step": steps.stop, "held_out_loss": held_out_loss})
                checkpoints.save(manager, state, config)
    return state


def fit(experiment: Experiment) -> Run:
    """The experiment trained to its last step, or resumed from its last checkpoint.

    Raises:
        UserError: settings out of range, a network that does not fit the data, or a folder that holds another run.
        DataError: the data set is not prepared.
        CheckpointError: the folder's last checkpoint does not read.
    """
    runs.validate(experiment)
    _require_divisible(experiment)
    problem = problem_of(experiment)
    model = model_of(experiment, problem)
    state = model.create()
    run_dir = runs.open_run(experiment)
    saved = checkpoints.latest(runs.checkpoints_of(run_dir))
    if saved is not None:
        state = checkpoints.restore(runs.checkpoints_of(run_dir), state)
        print(f"resuming {run_dir} at step {saved} of {experiment.num_steps}")
    runs.rewind_metrics(run_dir, saved or 0)
    state = _advance(experiment, problem, model, state)
    return Run(experiment, problem, model, state.ema)


def train(experiment: Experiment) -> None:
    """Trains, or resumes, the experiment and writes its report."""
    report(fit(experiment), experiment.run_dir)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    presets = {name: (summary, preset) for name, (summary, preset) in PRESETS.items()}
    command.run(
        lambda: tyro.extras.overridable_config_cli(
            presets, prog="python -m experiments.train", description=__doc__, args=args
        ),
        train,
    )


if __name__ == "__main__":
    main()
