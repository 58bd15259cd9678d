"""The programs of a preset, lowered for devices that need not be there: training steps and guided samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cfgjax import training
from cfgjax.conditions import as_condition
from cfgjax.training import fsdp
from cfgjax.types import TrainState, Tree
from experiments.cli.main import UserError
from experiments.config import samplers
from experiments.config.schema import Experiment
from experiments.run.model import Model, model_of
from experiments.run.teacher import with_teacher
from experiments.run.train_setup import state_of, step_of, train_setup_of
from experiments.run.trajectories import with_trajectories
from experiments.tasks.registry import task_of
from experiments.tasks.task import Task

NUM_SAMPLES = 64
TRAINING, SAMPLING = ("replicated", "sharded"), ("euler", "heun")


class Work(NamedTuple):
    """One program.

    Attributes:
        lower: for the devices -> what ``jax.stages.Lowered`` is.
        trace: -> the same computation of all examples on one device, as a jaxpr.
        state_bytes: that a device holds before it begins.
        model_flops: of the network in one run on all devices.
    """

    lower: Callable[[], Any]
    trace: Callable[[], Any]
    state_bytes: int
    model_flops: float


def num_bytes(tree: Tree) -> int:
    """The bytes of a tree of arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class Preset(NamedTuple):
    """What is known of a preset before anything is compiled."""

    experiment: Experiment
    task: Task
    model: Model
    state: TrainState
    forward_flops: float


def _forward_flops(model: Model, task: Task, params: Tree) -> float:
    """Floating-point operations of the network on one example, as lowered."""
    network: Any = model.network
    lowered = jax.jit(network.apply).lower(params, *task.inputs)
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def preset_of(experiment: Experiment) -> Preset:
    """The shapes of an experiment's state, and what its network costs, without its data."""
    task = with_teacher(experiment, task_of(experiment, "shapes"))
    model = model_of(experiment, task)
    task = with_trajectories(experiment, task, is_abstract=True)
    state = jax.eval_shape(lambda: state_of(experiment, model))
    return Preset(experiment, task, model, state, _forward_flops(model, task, state.params))


def _training(preset: Preset, way: str, devices: list[jax.Device]) -> Work:
    experiment, task, model, state, forward = preset
    num_parts = len(devices) * experiment.num_microbatches
    if experiment.batch_size % num_parts:
        raise UserError(f"batch_size must be divisible by {num_parts}, got {experiment.batch_size}")
    setup = train_setup_of(experiment, task, model)
    step = step_of(experiment, setup)
    batch, source = next(task.batches(range(1))), setup.source_of(task.source, task)
    sharded = jax.eval_shape(lambda tree: training.shard(tree, len(devices)), batch)
    flops = 3 * forward * experiment.batch_size
    trace = lambda: jax.make_jaxpr(step)(state, jax.eval_shape(lambda: batch), source)  # noqa: E731
    if way == "replicated":
        lower = lambda: training.pmapped(step, devices).lower(state, sharded, source)  # noqa: E731
        return Work(lower, trace, num_bytes(state), flops)
    mesh = fsdp.mesh_of(devices)
    lower = lambda: fsdp.program(step, state, sharded, source, mesh=mesh).lower(state, sharded, source)  # noqa: E731
    return Work(lower, trace, fsdp.bytes_per_device(state, fsdp.shardings(state, mesh)), flops)


def _sampling(preset: Preset, solver: str, devices: list[jax.Device]) -> Work:
    """Guided samples by ``jit(vmap(draw))``, keys and conditions sharded over the devices, parameters on each."""
    experiment, task, model, state, forward = preset
    if not task.objective.is_field:
        raise UserError(f"program must be train for {task.objective.without_samples}, got sample")
    if NUM_SAMPLES % len(devices):
        raise UserError(f"program sample draws {NUM_SAMPLES}, which {len(devices)} devices do not divide")
    ts = samplers.times(model.path, experiment.sampling.num_steps)

    def draw_all(params: Tree, keys: Any, conditions: Any, scale: Any) -> Any:
        draw = samplers.make_draw(model.rule(params), model.path, task.shape, solver, ts)
        return jax.vmap(lambda key, y: draw(key, y, scale))(keys, conditions)

    mesh = Mesh(np.asarray(devices), ("devices",))
    rows, whole = NamedSharding(mesh, PartitionSpec("devices")), NamedSharding(mesh, PartitionSpec())
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), NUM_SAMPLES))
    null = as_condition(task.conditions.null)
    conditions = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((NUM_SAMPLES, *leaf.shape), leaf.dtype), null)
    args = (state.params, keys, conditions, jax.ShapeDtypeStruct((), jnp.float32))
    jitted = jax.jit(draw_all, in_shardings=(whole, rows, rows, whole), out_shardings=rows)
    any_field = lambda x, t, y: x * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(y))  # noqa: E731
    rule_of = lambda placed: samplers.classifier_free(placed(any_field), null)  # noqa: E731
    if task.objective.is_guided:
        rule_of = lambda placed: lambda scale: placed(any_field)  # noqa: E731
    count = samplers.num_evaluations(rule_of, any_field, model.path, task.shape, solver, ts, 2.0, null)
    return Work(
        lambda: jitted.lower(*args),
        lambda: jax.make_jaxpr(draw_all)(*args),
        num_bytes(state.params),
        (count or 0) * forward * NUM_SAMPLES,
    )


def work_of(preset: Preset, name: str, devices: list[jax.Device]) -> Work:
    """The program of a name, of TRAINING or SAMPLING.

    Raises:
        UserError: a batch, or a number of samples, that the devices do not divide; samples of no field.
    """
    return (_sampling if name in SAMPLING else _training)(preset, name, devices)
