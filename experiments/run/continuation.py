"""How a run goes on from what was before it: longer than it was to be, or from the parameters of another run."""

from collections.abc import Collection
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cfgjax import checkpoints
from cfgjax.checks import short_repr
from cfgjax.types import Array, TrainState, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.history import StartedFrom, Which
from experiments.config.kinds import LEARNED, TOLD_BY
from experiments.config.schema import Experiment
from experiments.run import folder as run_folder
from experiments.run.trained_labels import knows_labels, knows_null
from experiments.runtime import distributed
from experiments.tasks.conditions import what_is_told
from experiments.tasks.registry import facts_of
from experiments.tasks.task import TaskFacts

_OF_THE_FUNCTION = "network.", "objective", "path"
_FREE = {"network.dropout", "network.dtype", "network.rematerialise"}
"""Settings of a network that leave its parameters what they are."""


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
        UserError: a config that does not read; a number of steps that is accepted, but passed already.
    """
    if not (experiment.run_dir / "config.json").exists():
        return experiment
    old = run_folder.read_config(experiment.run_dir)
    if experiment.started_from is None:
        experiment = replace(experiment, started_from=old.started_from)
    experiment = _with_learned(old, experiment)
    if experiment.num_steps != old.num_steps and "num_steps" in accepted:
        return _longer(old, experiment)
    return replace(experiment, former_num_steps=old.former_num_steps)


def with_source(experiment: Experiment, run_dir: Path, which: Which) -> Experiment:
    """The experiment that begins with the parameters of the run in another folder; one that began so is left alone.

    Raises:
        UserError: no run there, or none that was saved.
    """
    if (experiment.run_dir / "config.json").exists():
        past = run_folder.read_config(experiment.run_dir).started_from
        if past is not None and (past.run_dir, past.which) == (str(run_dir), which):
            return experiment
    source = run_folder.read_config(run_dir)
    step = checkpoints.latest_step(run_folder.checkpoints_of(run_dir))
    if step is None:
        raise UserError(f"from {run_dir} holds no checkpoint")
    started = StartedFrom(str(run_dir), which, step, knows_null(source), knows_labels(source))
    return replace(experiment, started_from=started)


def _function(experiment: Experiment) -> dict[str, object]:
    settings = run_folder.flat(asdict(experiment) | {"network": {"kind": type(experiment.network).__name__}})
    settings |= {f"network.{name}": value for name, value in asdict(experiment.network).items()}
    return {name: value for name, value in settings.items() if name.startswith(_OF_THE_FUNCTION) and name not in _FREE}


def require_compatible(experiment: Experiment, task: TaskFacts) -> None:
    """Compares a run that was not saved yet with the one whose parameters it begins with, if there is one.

    Raises:
        UserError: another network, another function to be learned, or data of another shape or number of labels.
    """
    if experiment.started_from is None or checkpoints.all_steps(run_folder.checkpoints_of(experiment.run_dir)):
        return
    where = Path(experiment.started_from.run_dir)
    source = run_folder.read_config(where)
    before, after = _function(source), _function(experiment)
    its = facts_of(source)
    before |= {"data.shape": its.shape, "data.num_classes": its.num_classes} | what_is_told(source, its.conditions)
    after |= {"data.shape": task.shape, "data.num_classes": task.num_classes} | what_is_told(
        experiment, task.conditions
    )
    for name in sorted(before.keys() | after.keys(), key=lambda name: (name != "network.kind", name)):
        if before.get(name) != after.get(name):
            one, other = short_repr(before.get(name)), short_repr(after.get(name))
            raise UserError(f"from {where}: its {name} is {one}, this run's {other}; both must be the same")
    if its.class_names != task.class_names:
        _, one, other = run_folder.first_difference("", its.class_names, task.class_names)
        distributed.warn(
            f"warning: the labels of {where} are called otherwise: {short_repr(one)} there, {short_repr(other)} here"
        )


def begun(state: TrainState, started: StartedFrom) -> TrainState:
    """The state before the first step with the parameters of the other run, all averages equal to them.

    Raises:
        CheckpointError: they do not read, or are of another network.
    """
    folder, like = run_folder.checkpoints_of(Path(started.run_dir)), jax.eval_shape(lambda: state.params)
    found = checkpoints.restore_params(folder, started.step, started.which, like).state
    cli.info(f"beginning with the {started.which} of {started.run_dir} at step {started.step}")

    def one(leaf: Array, old: Array) -> Array:
        return jnp.copy(jax.device_put(leaf.astype(old.dtype), old.sharding))  # of its own: the state is donated

    def placed(like: Tree) -> Tree:
        return jax.tree.map(one, found, like)

    averages = tuple(map(placed, state.averages))
    return state._replace(params=placed(state.params), ema=placed(state.ema), averages=averages)
