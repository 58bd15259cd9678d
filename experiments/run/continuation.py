"""How a run goes on from what was before it: longer than it was to be, or from parameters of another run or a file."""

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cfgjax import checkpoints
from cfgjax.checks import short_repr
from cfgjax.types import Array, TrainState, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.history import Which
from experiments.config.kinds import LEARNED, TOLD_BY
from experiments.config.schema import Experiment
from experiments.run import folder as run_folder
from experiments.run import parts, sources
from experiments.runtime import distributed
from experiments.tasks.task import Task, TaskFacts


def _longer(old: Experiment, new: Experiment) -> Experiment:
    """The new experiment, which knows how long it was to be up to the newest checkpoint.

    Raises:
        UserError: the checkpoint is of a later step than its last one.
    """
    done = checkpoints.latest_step(run_folder.checkpoints_of(old.run_dir)) or 0
    if new.num_steps <= done:
        raise UserError(f"num_steps must be above {done}, the step of the newest checkpoint, got {new.num_steps}")
    is_new = done > 0 and all(until < done for until, _ in old.former_num_steps)
    return replace(new, former_num_steps=(*old.former_num_steps, *([(done, old.num_steps)] if is_new else [])))


def _with_learned(old: Experiment, new: Experiment) -> Experiment:
    """The new experiment with what the old one, of the same settings, found in its data: its network depends on it."""
    before, after = old.data, new.data
    is_same = type(before) is type(after) and all(
        getattr(before, name, None) == getattr(after, name, None) for name in TOLD_BY
    )
    missing = [each.name for each in fields(after) if each.name in LEARNED and getattr(after, each.name) is None]
    if not is_same or not missing:
        return new
    found: Any = {name: getattr(before, name) for name in missing}
    return replace(new, data=replace(after, **found))


def with_past(experiment: Experiment, accepted: Collection[run_folder.Accepted] = ()) -> Experiment:
    """The experiment, with what the config in its folder tells of its past.

    Raises:
        UserError: a config that does not read; weights without a training; a number of steps that is accepted, but
            passed already.
    """
    if not (experiment.run_dir / "config.json").exists():
        return experiment
    old = run_folder.read_config(experiment.run_dir)
    if checkpoints.holds_params_alone(run_folder.checkpoints_of(experiment.run_dir)):
        raise UserError(
            f"run_dir {experiment.run_dir} holds parameters alone ({old.preset}), and no training to go on with: begin "
            f"a new run with them by --from {experiment.run_dir} and another --run-dir"
        )
    if experiment.started_from is None:
        experiment = replace(experiment, started_from=old.started_from)
    experiment = _with_learned(old, experiment)
    if experiment.num_steps != old.num_steps and "num_steps" in accepted:
        return _longer(old, experiment)
    return replace(experiment, former_num_steps=old.former_num_steps)


def with_source(experiment: Experiment, source: Path, which: Which, kind: str | None = None) -> Experiment:
    """The experiment that begins with the parameters of a run or a file; one that began so is left alone.

    Args:
        experiment: the new run.
        source: folder of the other run, or a safetensors file of published weights.
        which: parameters of the run.
        kind: whose weights the file holds.

    Raises:
        UserError: no run there, none that was saved, or another kind of file.
    """
    if (experiment.run_dir / "config.json").exists():
        past = run_folder.read_config(experiment.run_dir).started_from
        if past is not None and (past.run_dir, past.which, past.kind) == (str(source), which, kind):
            return experiment
    if not source.exists():
        raise UserError(f"no run in {source}, which does not exist, and is no file of weights either")
    if not source.is_dir():
        if which != "ema":
            raise UserError(f"from_parameters is for a run, and from {source} is a file of weights; leave it out")
        return replace(experiment, started_from=sources.started_from_file(source, kind))
    if kind is not None:
        raise UserError(f"from_kind is for a file of weights, and from {source} is a folder; leave it out")
    return replace(experiment, started_from=sources.started_from_run(source, which))


def with_compatible_source(experiment: Experiment, task: TaskFacts, params: Tree) -> Experiment:
    """A run that was not saved yet, compared with what it begins with, if there is such; it knows which rows it takes.

    Args:
        experiment: the run.
        task: its task.
        params: the shapes of its parameters.

    Raises:
        UserError: another network, another function to be learned, or data of another shape.
    """
    started = experiment.started_from
    if started is None or checkpoints.all_steps(run_folder.checkpoints_of(experiment.run_dir)):
        return experiment
    source = sources.source_of(started, experiment, task)
    plan = sources.what_is_taken(started.run_dir, source, experiment, task, params)
    if source.scaling not in (None, task.scaling):
        its = f"of the latents of {started.run_dir} are {source.scaling}"
        distributed.warn(f"warning: factor and shift {its}, of these {task.scaling}")
    if started.kind is not None:
        distributed.warn(f"warning: {sources.what_no_file_tells(started.kind, experiment)}")
    kept_new = plan.new & parts.meant(experiment.freeze, parts.flatten(params), "freeze")
    if kept_new:
        distributed.warn(f"warning: freeze leaves as the seed draws them {parts.told(kept_new, params)}")
    if plan.new:
        return replace(experiment, started_from=replace(started, knows_null=False, knows_labels=False))
    if source.class_names != task.class_names and started.kind is None:
        _, one, other = run_folder.first_difference("", source.class_names, task.class_names)
        distributed.warn(
            f"warning: the labels of {started.run_dir} are called otherwise: {short_repr(one)} there, "
            f"{short_repr(other)} here"
        )
    return experiment


def begun(state: TrainState, experiment: Experiment, task: Task) -> TrainState:
    """The state before the first step with the parameters that the experiment begins with, all averages equal to them.

    The memory of those of the state that are taken is given back, array by array.

    Raises:
        CheckpointError: they do not read, or are of another network.
    """
    started = experiment.started_from
    if started is None:
        return _taught(state, task)
    source = sources.source_of(started, experiment, task)
    plan = sources.what_is_taken(started.run_dir, source, experiment, task, state.params)
    found = parts.flatten(source.read())
    what = started.which if started.kind is None else f"{started.kind} weights"
    at = f" at step {started.step}" if started.kind is None else ""
    cli.info(f"beginning with the {what} of {started.run_dir}{at}")
    for word, names in (("taken", plan.taken), ("new, drawn by the seed:", plan.new)):
        if names:
            cli.info(f"{word} {parts.told(names, state.params)}")

    return _with_parameters(state, {name: found[name] for name in plan.taken})


def _taught(state: TrainState, task: Task) -> TrainState:
    """The state before the first step with the parameters of its teacher, where that has the same network."""
    if task.teacher is None or task.teacher.params is None:
        return state
    if task.teacher.start is None:
        cli.info(f"beginning with new parameters: the teacher {task.teacher.name} has another network")
        return state
    start, own = task.teacher.start, parts.flatten(state.params)
    fitting = {name: leaf for name, leaf in start.items() if name in own and leaf.shape == own[name].shape}
    cli.info(f"beginning with the parameters of the teacher {task.teacher.name}")
    cli.info(f"taken {parts.told(fitting, state.params)}")
    return _with_parameters(state, fitting)


def _with_parameters(state: TrainState, found: Mapping[str, Any]) -> TrainState:
    """The state with some parameters, by their names, replaced, and all averages equal to them there."""

    def one(name: str, old: Array) -> Array:
        if name not in found:
            return old
        taken = jnp.copy(jax.device_put(found[name].astype(old.dtype), old.sharding))  # of its own: it is donated
        old.delete()
        return taken

    def placed(tree: Tree) -> Tree:
        leaves = [one(name, leaf) for name, leaf in parts.flatten(tree).items()]
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    averages = tuple(map(placed, state.averages))
    return state._replace(params=placed(state.params), ema=placed(state.ema), averages=averages)
