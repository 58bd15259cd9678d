"""Train a preset, sample it by ODE and by SDE, and measure it.

The run folder receives config.json, metrics.jsonl (a line every log_every steps), checkpoints/, samples.png and
metrics.json. A folder that already holds this run is resumed from its last checkpoint, to the same end.
"""

import sys
import time
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


class _Logger:
    """Lines of metrics.jsonl and the progress bar; fetches a step's metrics only when it writes them."""

    def __init__(self, run_dir: Path, experiment: Experiment, first: int) -> None:
        self._run_dir, self._experiment, self._since, self._at = run_dir, experiment, first, time.perf_counter()
        self.bar = tqdm(total=experiment.num_steps, initial=first, unit="step", file=sys.stderr, mininterval=1.0)

    def log(self, step: int, metrics: Metrics) -> None:
        self.bar.update(1)
        if step % self._experiment.log_every and step != self._experiment.num_steps:
            return
        row = {name: float(value) for name, value in metrics.items()}
        elapsed = time.perf_counter() - self._at
        rate = (step - self._since) * self._experiment.batch_size / elapsed
        runs.append_metrics(self._run_dir, {"step": step, **row, "examples_per_second": round(rate, 1)})
        self.bar.set_postfix(loss=f"{row['loss']:.4f}")
        self._since, self._at = step, time.perf_counter()


def _advance(experiment: Experiment, problem: Problem, model: Model, state: TrainState) -> TrainState:
    """The state after the last step, saved on the way and at the end."""
    step = training.make_step(model.loss, model.optimizer, model.ema_decay, experiment.num_chunks)
    step, source = training.parallel(step), training.replicate(problem.source)
    evaluate = training.parallel(training.make_evaluation(model.evaluation_loss), donate=False)
    held_out = training.shard(problem.held_out, jax.local_device_count())
    config = ADAPTER.dump_python(experiment, mode="json")
    first = int(state.step)
    logger = _Logger(experiment.run_dir, experiment, first)
    blocks_each_step = jax.default_backend() == "cpu" and jax.device_count() > 1
    with checkpoints.open_folder(runs.checkpoints_of(experiment.run_dir)) as manager, logger.bar:
        batches = problem.batches(range(first, experiment.num_steps))
        for index, batch in enumerate(batches, start=first + 1):
            state, metrics = step(state, training.shard(batch, jax.local_device_count()), source)
            if blocks_each_step:
                jax.block_until_ready(metrics)
            logger.log(index, metrics)
            if index % experiment.save_every == 0 or index == experiment.num_steps:
                held_out_loss = float(evaluate(state, held_out)["loss"])
                runs.append_metrics(experiment.run_dir, {"step": index, "held_out_loss": held_out_loss})
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
