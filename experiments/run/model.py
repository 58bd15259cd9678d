"""From an experiment to its functions: path, network, loss, optimizer, state, and the learned field."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen

from cfgjax import conversions, paths, training
from cfgjax.training import fsdp, posthoc_ema
from cfgjax.types import Array, GaussianPath, LabelledField, LogClassifier, Loss, Number, TrainState, Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.run import nonfinite
from experiments.tasks.task import Task

PATHS: dict[str, Callable[[], GaussianPath]] = {
    "linear": paths.linear,
    "cosine": paths.cosine,
    "variance_preserving": paths.variance_preserving,
    "polynomial": lambda: paths.polynomial(2),
    "ddpm": paths.ddpm,
}
SAMPLED_ON = {"ddpm": "linear"}
"""The paths on which fields of those are sampled that do not lead from noise to data."""


def path_of_field(experiment: Experiment) -> str:
    """The name of the path on which an experiment's field is sampled."""
    return SAMPLED_ON.get(experiment.path, experiment.path)


class Model(NamedTuple):
    """The functions of an experiment; ``path`` is that of its field."""

    path: GaussianPath
    network: linen.Module
    loss: Loss
    evaluation_loss: Loss
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    ema_decay: Callable[[Array], Array]
    average_decays: tuple[Callable[[Number], Array], ...]
    create: Callable[[], TrainState]
    field: Callable[[Tree], LabelledField]
    log_classifier: Callable[[Tree], LogClassifier]


def _schedule_of(experiment: Experiment) -> optax.Schedule:
    """The learning rate of an update, given how many came before it: warm-up, then cosine decay.

    Up to the step at which the run became longer it is that of its former length.
    """
    settings = experiment.optimizer

    def of_length(num_steps: int) -> optax.Schedule:
        warmup = min(settings.warmup_steps, num_steps - 1)
        return optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, num_steps)

    def followed_by(until: int, first: optax.Schedule, rest: optax.Schedule) -> optax.Schedule:
        return lambda count: jnp.where(jnp.asarray(count) < until, first(count), rest(count))

    schedule = of_length(experiment.num_steps)
    for until, num_steps in reversed(experiment.former_num_steps):
        schedule = followed_by(until, of_length(num_steps), schedule)
    return schedule


def never_falls(experiment: Experiment) -> str:
    """Why a run ends at its highest learning rate, in words; else empty."""
    warmup, num_steps = experiment.optimizer.warmup_steps, experiment.num_steps
    if not 1 < num_steps <= warmup + 1:
        return ""
    return (
        f"optimizer.warmup_steps {warmup} leaves none of num_steps {num_steps}: the learning rate only rises; "
        f"--optimizer.warmup-steps {num_steps // 10} lets it fall"
    )


def _optimizer_of(experiment: Experiment, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with a schedule and clipping; updates that are not finite are left out."""
    settings = experiment.optimizer
    adamw = optax.adamw(schedule, weight_decay=settings.weight_decay)
    return nonfinite.skipping(optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw))


def state_of(experiment: Experiment, task: Task, network: Any, optimizer: Any) -> TrainState:
    """The state before the first step.

    Raises:
        UserError: a network that does not fit the data point's shape.
    """
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    try:
        params = jax.jit(network.init)(init_key, *task.inputs)
    except ValueError as error:
        raise UserError(f"network does not fit data of shape {task.shape}: {error}") from None
    return training.init_state(params, optimizer, run_key, len(experiment.optimizer.average_widths))


def _placed(experiment: Experiment, make: Callable[[], TrainState]) -> Callable[[], TrainState]:
    """The function that makes a state where the experiment wants it to lie."""
    if experiment.placement == "sharded":
        return lambda: fsdp.init_state(make)
    return lambda: training.replicate(make())


def model_of(experiment: Experiment, task: Task) -> Model:
    """All functions of an experiment on its task.

    Raises:
        UserError: a network, or a path, that is not for what is trained.
    """
    path = PATHS[experiment.path]()
    changes_path = path_of_field(experiment) != experiment.path
    sampled_on = PATHS[path_of_field(experiment)]() if changes_path else path
    if changes_path and not task.objective.is_field:
        raise UserError(f"objective {experiment.objective!r} needs the path of a field, not {experiment.path!r}")
    network: Any = task.objective.network(experiment.network, task.num_classes)
    schedule = _schedule_of(experiment)
    optimizer = _optimizer_of(experiment, schedule)
    loss = partial(task.objective.loss, experiment, task, network, path)

    def field(params: Tree) -> LabelledField:
        own = task.objective.to_field(path, lambda x, t, y: network.apply(params, x, t, y))
        return conversions.change_path(path, sampled_on, own) if changes_path else own

    return Model(
        path=sampled_on,
        network=network,
        loss=loss(True),
        evaluation_loss=loss(False),
        optimizer=optimizer,
        learning_rate=schedule,
        ema_decay=training.ema_warmup(experiment.optimizer.ema_decay),
        average_decays=tuple(map(posthoc_ema.power_function_decay, experiment.optimizer.average_widths)),
        create=_placed(experiment, lambda: state_of(experiment, task, network, optimizer)),
        field=field,
        log_classifier=lambda params: lambda x, t: network.apply(params, x, t),
    )
