"""A teacher's trajectories, solved before training: what a flow map is regressed on by the loss "trajectories".

Each is of its own noise, label and guidance scale, and known at even times: its states, and the guided field at them.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, guidance, solvers
from cfgjax.conditions import as_condition
from cfgjax.types import Array, Number, Tree
from experiments.cli.main import UserError
from experiments.config.distillation import Distillation
from experiments.config.samplers import Draw, Rule
from experiments.config.schema import Experiment
from experiments.run.batch_sampling import draw_all
from experiments.tasks.conditions import count_of, in_turn
from experiments.tasks.distillation import draw_scale, uses_trajectories
from experiments.tasks.examples import NUM_HELD_OUT, local_share
from experiments.tasks.task import Task

_NUMBER_BYTES, _ASKED = 4, 0xF1


def _asked(experiment: Experiment, task: Task, count: int) -> dict[str, Tree]:
    """What each of so many trajectories is told: labels in turn, of which some are null, and scales."""
    null_key, scale_key = jax.random.split(jax.random.fold_in(jax.random.key(experiment.seed), _ASKED))
    is_null = jax.random.bernoulli(null_key, experiment.label_drop_rate, (count,))
    labels = jnp.where(is_null, task.num_classes, jnp.asarray(in_turn(task.conditions.rows, count)))
    keys = jax.random.split(scale_key, count)
    scales = jax.vmap(partial(draw_scale, experiment.distillation))(keys, is_null)
    return {"y": labels.astype(jnp.int32), "w": scales}


def _draw_of(rule: Rule, settings: Distillation, shape: tuple[int, ...]) -> Draw:
    """The function that solves one trajectory: its states, and the field at them, [2, times + 1, *D]."""
    count, per_interval = settings.num_times, settings.teacher_steps
    ts = np.asarray(solvers.time_grids.uniform(count * per_interval))

    def draw(key: Array, asked: Any, scale: Number) -> Array:
        field = guidance.given(rule(asked["w"]), asked["y"])
        noise = jax.random.normal(key, shape)
        _, states = solvers.integrate(solvers.heun(field), key, noise, ts, observe=lambda carry, t: carry.x)
        states = states[::per_interval]
        velocities = jax.lax.map(lambda at: field(*at), (states[:-1], jnp.asarray(ts[:-1:per_interval])))
        return jnp.stack([states, jnp.concatenate([velocities, velocities[-1:]])])

    return draw


def _examples(pairs: Array, asked: dict[str, Tree], settings: Distillation) -> tuple[Tree, Tree]:
    """The trajectories to learn from and those held out: states, fields, label and scale of each."""
    whole = pairs[:, 0], pairs[:, 1], as_condition(asked["y"]), asked["w"]
    count, own = settings.trajectories, local_share(count_of(asked["y"]) - settings.trajectories)
    return jax.tree.map(lambda leaf: leaf[:count], whole), jax.tree.map(lambda leaf: leaf[count:][own], whole)


def _solved(experiment: Experiment, task: Task, rule: Rule, count: int) -> tuple[Tree, Tree]:
    asked, settings = _asked(experiment, task, count), experiment.distillation
    draw = _draw_of(rule, settings, task.shape)
    (pairs,) = draw_all(draw, experiment.seed, asked, (1.0,), None, "solving the teacher's trajectories")
    return _examples(jnp.asarray(pairs), asked, settings)


def _shapes(experiment: Experiment, task: Task, count: int) -> tuple[Tree, Tree]:
    settings = experiment.distillation
    pairs = jax.ShapeDtypeStruct((count, 2, settings.num_times + 1, *task.shape), jnp.float32)
    return jax.eval_shape(lambda pairs: _examples(pairs, _asked(experiment, task, count), settings), pairs)


def _require_usable(task: Task, settings: Distillation, count: int) -> None:
    """Raises UserError for a field that is told more than labels; DataError for what does not fit the memory."""
    if task.told is not None:
        raise UserError(
            "distillation.loss trajectories is for labels alone; progressive solves for any condition as it trains"
        )
    numbers = 2 * count * (settings.num_times + 1) * int(np.prod(task.shape))
    data.check_memory("distillation.trajectories", 2 * _NUMBER_BYTES * numbers)


def with_trajectories(experiment: Experiment, task: Task, is_abstract: bool = False) -> Task:
    """The task whose examples are trajectories of its teacher, of which some are held out; another task as it is.

    Args:
        experiment: the run.
        task: with its teacher.
        is_abstract: give shapes in the place of numbers.

    Raises:
        UserError: the field is told more than labels, or trajectories that are not finite.
        DataError: they take more than the machine's memory.
    """
    teacher = task.teacher
    if teacher is None or not uses_trajectories(experiment):
        return task
    settings, num_devices = experiment.distillation, jax.device_count()
    num_repeated = -NUM_HELD_OUT % num_devices
    count = settings.trajectories + NUM_HELD_OUT + num_repeated
    _require_usable(task, settings, count)
    if experiment.batch_size > settings.trajectories:
        raise UserError(f"batch_size must be in 1..{settings.trajectories}, distillation.trajectories")
    share = local_share(experiment.batch_size)
    solved = _shapes(experiment, task, count) if is_abstract else _solved(experiment, task, teacher.rule, count)

    def rows(step: int) -> np.ndarray:
        indices = data.batch_indices(experiment.seed, step, experiment.batch_size, settings.trajectories)
        return indices[share].astype(np.int32)

    held_out: dict[str, Any] = {"held_out": solved[1], "num_repeated": num_repeated}
    return replace(task, batches=lambda steps: map(rows, steps), source=solved[0], **held_out)
