"""Guidance inside a network: what it is told, and the losses by which it comes there, by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax import flow_maps, guidance, losses, solvers
from cfgjax.conditions import null_for
from cfgjax.flow_maps import TimesDensity, Velocity
from cfgjax.models import GuidanceEmbedding, SpanEmbedding
from cfgjax.types import (
    Array,
    Condition,
    Field,
    FlowMap,
    GaussianPath,
    Interval,
    Loss,
    Null,
    Number,
    ResidualWeight,
    Scale,
    TimeDensity,
    Tree,
)
from experiments.cli.main import UserError
from experiments.config.distillation import FLOW_MAPS, START, STOP, Distillation, LossName
from experiments.config.networks import AnyNetwork
from experiments.config.schema import Experiment
from experiments.tasks import networks
from experiments.tasks.task import Task, TaskFacts
from experiments.tasks.time_densities import time_density_of

Guided = Literal["guided_field", "flow_map"]


class _One(NamedTuple):
    """What a loss has of one example.

    Attributes:
        path: the path.
        learned: the network as a flow map (x, t, r, y, w).
        y: the condition.
        w: the guidance scale.
        null: what takes y's place.
        field: the teacher's, guided at y and w; None without a teacher.
        density: of one time.
        times: the density of two times.
        settings: of the distillation.
    """

    path: GaussianPath
    learned: FlowMap
    y: Condition
    w: Scale
    null: Null
    field: Field | None
    density: TimeDensity
    times: TimesDensity
    settings: Distillation

    @property
    def bare(self) -> FlowMap:
        """The network as a flow map (x, t, r)."""
        return flow_maps.given(self.learned, self.y, self.w)

    @property
    def taught(self) -> Field:
        """The teacher's guided field."""
        return cast(Field, self.field)

    @property
    def velocity(self) -> Velocity:
        """What stands in the conditional velocity's place, with guidance in it."""
        if self.field is not None:
            return flow_maps.teacher_velocity(self.field)
        return flow_maps.guided_velocity(self.learned, self.y, self.w, self.null, self.settings.kappa)

    @property
    def weight(self) -> ResidualWeight:
        """The weight of a mean square."""
        return _weight_of(self.settings)


def _weight_of(settings: Distillation) -> ResidualWeight:
    return flow_maps.residual_power(settings.residual_power) if settings.residual_power else losses.flat


def _progressive(one: _One, key: Array, z: Array) -> Array:
    teacher = flow_maps.of_field(solvers.heun, one.taught, one.settings.teacher_steps)
    return flow_maps.progressive(one.path, one.bare, teacher, key, z, times=one.times, weight=one.weight)


def _by_field(loss: Callable[..., Array]) -> Callable[[_One, Array, Array], Array]:
    return lambda one, key, z: loss(one.path, one.bare, one.taught, key, z, times=one.times, weight=one.weight)


def _by_velocity(loss: Callable[..., Array]) -> Callable[[_One, Array, Array], Array]:
    return lambda one, key, z: loss(
        one.path, one.bare, key, z, velocity=one.velocity, times=one.times, weight=one.weight
    )


def _student(one: _One) -> Field:
    """The network as a field (x, t)."""
    return lambda x, t: one.bare(x, t, t)


def _distilled_guidance(one: _One, key: Array, z: Array) -> Array:
    return losses.distilled_guidance(one.path, _student(one), one.taught, key, z, time_density=one.density)


def _model_guidance(one: _One, key: Array, z: Array) -> Array:
    def null_field(x: Array, t: Array) -> Array:
        return one.learned(x, t, t, null_for(one.null, one.y), jnp.ones(()))

    scale, kappa = cast(Number, one.w), one.settings.kappa
    return losses.model_guidance(
        one.path, _student(one), null_field, key, z, scale, kappa=kappa, time_density=one.density
    )


class _Row(NamedTuple):
    """A loss, what it is of, and whether it needs a teacher; None for the one of trajectories."""

    loss: Callable[[_One, Array, Array], Array] | None
    of: tuple[Guided, ...]
    needs_teacher: bool


LOSSES: dict[LossName, _Row] = {
    "distilled_guidance": _Row(_distilled_guidance, ("guided_field",), True),
    "model_guidance": _Row(_model_guidance, ("guided_field",), False),
    "trajectories": _Row(None, ("flow_map", "guided_field"), True),
    "progressive": _Row(_progressive, ("flow_map",), True),
    "lagrangian": _Row(_by_field(flow_maps.lagrangian), ("flow_map",), True),
    "eulerian": _Row(_by_field(flow_maps.eulerian), ("flow_map",), True),
    "mean_flow": _Row(_by_velocity(flow_maps.mean_flow), ("flow_map",), False),
    "improved_mean_flow": _Row(_by_velocity(flow_maps.improved_mean_flow), ("flow_map",), False),
    "shortcut": _Row(_by_velocity(flow_maps.shortcut), ("flow_map",), False),
}
"""By the names of ``Distillation.loss``; the first of each objective that fits is the default."""


def _row_of(experiment: Experiment, has_teacher: bool) -> _Row:
    """The loss of an experiment.

    Raises:
        UserError: one of another objective, or without the teacher that it needs.
    """
    name, objective = experiment.distillation.loss, experiment.objective
    fitting = {
        name: row for name, row in LOSSES.items() if objective in row.of and (has_teacher or not row.needs_teacher)
    }
    if name is None:
        return next(iter(fitting.values()))
    if objective not in LOSSES[name].of:
        own = ", ".join(name for name, row in LOSSES.items() if objective in row.of)
        raise UserError(f"distillation.loss must be one of {own} for the objective {objective!r}, got {name!r}")
    if name not in fitting:
        raise UserError(f"distillation.loss {name!r} needs a teacher: --teacher RUN; without: {', '.join(fitting)}")
    return fitting[name]


def uses_trajectories(experiment: Experiment) -> bool:
    """Whether the examples of an experiment with a teacher are trajectories of it, solved before training."""
    return _row_of(experiment, has_teacher=True).loss is None


def require_usable(experiment: Experiment) -> None:
    """Looks at what the settings of a distillation have to do with each other.

    Raises:
        UserError: scales without 1, or samples at others; intervals of what needs none; no labels, or no null where
            the data alone teach.
    """
    low, high = experiment.distillation.scales
    if not (low <= 1 <= high and low < high):
        raise UserError(f"distillation.scales must hold 1, the labelled field, between them, got {low:g} {high:g}")
    for scale in experiment.sampling.scales:
        if not low <= scale <= high:
            raise UserError(f"sampling.scales must lie in distillation.scales, {low:g}..{high:g}, got {scale:g}")
    if experiment.distillation.intervals and experiment.objective not in FLOW_MAPS:
        raise UserError("distillation.intervals is of the objective 'flow_map': a field is at each time what w is then")
    if experiment.label_drop_rate == 1:
        raise UserError("label_drop_rate must be under 1 where guidance is inside: the null label has none")
    if experiment.label_drop_rate == 0 and experiment.distillation.teacher is None:
        raise UserError("label_drop_rate must be above 0 without a teacher: what guidance leads away from is the null")


def _also_told(has_span: bool) -> Callable[[int], dict[str, linen.Module]]:
    def modules(width: int) -> dict[str, linen.Module]:
        span = {"span": SpanEmbedding(width)} if has_span else {}
        return {"guidance": GuidanceEmbedding(width), **span}

    return modules


def network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of a field, or a flow map, with guidance inside."""
    return networks.one_ended_network(settings, facts, _also_told(facts.objective.kind == "flow_map"))


def told_of_field(y: Condition, scale: Scale, span: Number) -> Condition:
    """What the network of a guided field is told beside x and t."""
    return {networks.CONDITION: y, "guidance": scale}


def told_of_flow_map(y: Condition, scale: Scale, span: Number) -> Condition:
    """What the network of a flow map is told beside x and t."""
    return {networks.CONDITION: y, "guidance": scale, "span": span}


def draw_scale(settings: Distillation, key: Array, is_null: Array) -> Scale:
    """The guidance scale of one example: 1 at the null; with intervals, on one for half of the examples."""
    density = losses.uniform_scale(*settings.scales)
    if not settings.intervals:
        return jnp.where(is_null, 1, density(key))
    drawn = losses.scale_interval(density, losses.uniform(*START), losses.uniform(*STOP))(key)
    return jax.tree.map(lambda of_null, its: jnp.where(is_null, of_null, its), Interval(1.0, 0.0, 1.0), drawn)


def _pair(settings: Distillation, is_map: bool, key: Array) -> tuple[Array, Array]:
    """The places i <= j of two times of a trajectory: its ends, any two, or one and the same, but not the last.

    Of a field they are always one and the same.
    """
    whole_key, ends_key, equal_key = jax.random.split(key, 3)
    last = settings.num_times
    if not is_map:
        place = jax.random.randint(ends_key, (), 0, last)
        return place, place
    i, j = jnp.sort(jax.random.randint(ends_key, (2,), 0, last + 1))
    j = jnp.where(jax.random.bernoulli(equal_key, settings.equal_rate), i, j)
    i, j = (jnp.where(i == j, jnp.minimum(i, last - 1), each) for each in (i, j))
    is_whole = jax.random.bernoulli(whole_key, settings.whole_rate)
    return jnp.where(is_whole, 0, i), jnp.where(is_whole, last, j)


def _trajectory_loss(experiment: Experiment, task: Task, network: Any, trains: bool) -> Loss:
    """The loss of one trajectory at two of its times: |U - (x_r - x_t) / (r - t)|^2 / D, and at r = t |U - u|^2 / D."""
    settings, is_map = experiment.distillation, experiment.objective in FLOW_MAPS
    weight = _weight_of(settings)

    def own(params: Tree, key: Array, example: Tree) -> Array:
        pair_key, dropout_key = jax.random.split(key)
        states, velocities, y, w = example
        i, j = _pair(settings, is_map, pair_key)
        span = (j - i) / settings.num_times
        target = jnp.where(i == j, velocities[i], (states[j] - states[i]) / jnp.where(i == j, 1, span))
        told, rngs = task.objective.told(y, w, span), {"dropout": dropout_key}
        found = network.apply(params, states[i], i / settings.num_times, told, not trains, rngs=rngs)
        mean_square = jnp.mean(jnp.square(found - target))
        return jax.lax.stop_gradient(weight(mean_square)) * mean_square

    return own


def loss(experiment: Experiment, task: Task, network: Any, path: GaussianPath, trains: bool) -> Loss:
    """The loss of one example, at a guidance scale that is drawn for it.

    Raises:
        UserError: settings that do not belong together.
    """
    require_usable(experiment)
    settings, told, teacher = experiment.distillation, task.conditions, task.teacher
    density = time_density_of(experiment)
    whole_rate = 0.0 if teacher is None else settings.whole_rate
    times = flow_maps.ordered_times(density, settings.equal_rate, whole_rate)
    row, rate = _row_of(experiment, teacher is not None), experiment.label_drop_rate
    of_one = row.loss
    if of_one is None:
        return _trajectory_loss(experiment, task, network, trains)
    rule = None if teacher is None else teacher.rule

    def own(params: Tree, key: Array, example: Tree) -> Array:
        data_key, coin_key, drop_key, scale_key, dropout_key, noise_key = jax.random.split(key, 6)
        z, y = task.example(data_key, example)
        is_dropped = jax.random.bernoulli(coin_key, rate)
        all_or_none = is_dropped.astype(jnp.float32)
        y = guidance.drop_condition(
            drop_key, y, all_or_none if told.rates is None else told.rates, told.null, rate_of_all=all_or_none
        )
        w = draw_scale(settings, scale_key, is_dropped)

        def learned(x: Array, t: Array, r: Array, y: Condition, w: Scale) -> Array:
            what = task.objective.told(y, w, r - t)
            return cast(Array, network.apply(params, x, t, what, not trains, rngs={"dropout": dropout_key}))

        field = None if rule is None else guidance.given(rule(w), y)
        return of_one(_One(path, learned, y, w, told.null, field, density, times, settings), noise_key, z)

    return own
