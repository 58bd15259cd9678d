"""How a run learns: its loss, its optimizer, its moving averages, and the state before its first step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from cfgjax import training
from cfgjax.training import Step, freezing, fsdp, posthoc_ema
from cfgjax.types import Array, AxisName, Loss, Number, TrainState, Tree
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork
from experiments.config.schema import Experiment
from experiments.run import nonfinite
from experiments.run.model import PATHS, Model
from experiments.run.parts import frozen_of
from experiments.tasks.distillation import uses_trajectories
from experiments.tasks.task import Task, Teacher


class TrainSetup(NamedTuple):
    """What the training of a model takes.

    ``create`` makes the state where the experiment wants it to lie; ``frozen`` says which parameters are not trained,
    None where all are. ``taught`` gives both losses by a teacher's parameters, so that these are arguments of a step
    and no constants in it; None where there is none.
    """

    loss: Loss
    evaluation_loss: Loss
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    ema_decay: Callable[[Array], Array]
    average_decays: tuple[Callable[[Number], Array], ...]
    create: Callable[[], TrainState]
    frozen: Tree | None = None
    taught: Callable[[Tree], tuple[Loss, Loss]] | None = None

    def beside(self, make: Callable[[Loss], Any], is_trained: bool = True) -> Any:
        """The step that ``make`` makes of the loss; with a teacher its source is (source, the teacher's parameters)."""
        if self.taught is None:
            return make(self.loss if is_trained else self.evaluation_loss)
        taught = self.taught

        def step(state: TrainState, batch: Tree, source: Tree = None, *, axis_name: AxisName = None) -> Any:
            source, params = source
            return make(taught(params)[0 if is_trained else 1])(state, batch, source, axis_name=axis_name)

        return step

    def source_of(self, source: Tree, task: Task) -> Tree:
        """What such a step of a task takes beside state and batch: a source, and with it the teacher's parameters."""
        return source if self.taught is None or task.teacher is None else (source, task.teacher.params)


def schedule_of(experiment: Experiment) -> optax.Schedule:
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


def optimizer_of(experiment: Experiment, frozen: Tree | None = None) -> optax.GradientTransformation:
    """AdamW with a schedule and clipping, of what is not frozen; updates that are not finite are left out."""
    settings = experiment.optimizer
    adamw = optax.adamw(schedule_of(experiment), weight_decay=settings.weight_decay)
    whole = nonfinite.skipping(optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw))
    return whole if frozen is None else freezing.of_optimizer(whole, frozen)


def state_of(experiment: Experiment, model: Model) -> TrainState:
    """The state before the first step, wherever it comes to lie.

    Raises:
        UserError: a network that does not fit the data point's shape; names of what is frozen that it has not.
    """
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    num_averages = len(experiment.optimizer.average_widths)
    params = model.init(init_key)
    optimizer = optimizer_of(experiment, frozen_of(experiment, params))
    return training.init_state(params, optimizer, run_key, num_averages)


def _placed(experiment: Experiment, model: Model) -> TrainState:
    """The state before the first step, where the experiment wants it to lie."""
    if experiment.placement == "sharded":
        return fsdp.init_state(lambda: state_of(experiment, model))
    return training.replicate(state_of(experiment, model))


def _require_two_sides(experiment: Experiment, task: Task) -> None:
    """Raises UserError for null_consistency of a network that does not learn a labelled and a null field."""
    has_middle = isinstance(experiment.network, DiTNetwork) and experiment.network.internal_block
    if experiment.null_consistency and (
        task.objective.kind != "field" or has_middle or experiment.label_drop_rate == 1
    ):
        raise UserError(
            "null_consistency must be 0 but for a field that is predicted at the network's end, "
            f"with a label_drop_rate under 1; got {experiment.null_consistency:g}"
        )


def train_setup_of(experiment: Experiment, task: Task, model: Model) -> TrainSetup:
    """What the training of an experiment's model on its task takes.

    Raises:
        UserError: names of what is frozen that the network has not; null_consistency of what has not two sides.
    """
    _require_two_sides(experiment, task)
    frozen = frozen_of(experiment, jax.eval_shape(model.init, jax.random.key(0))) if experiment.freeze else None

    def losses(task: Task) -> tuple[Loss, Loss]:
        loss = partial(task.objective.loss, experiment, task, model.network, PATHS[experiment.path]())
        return loss(True) if frozen is None else freezing.of_loss(loss(True), frozen), loss(False)

    def taught(params: Tree) -> tuple[Loss, Loss]:
        return losses(replace(task, teacher=cast(Teacher, task.teacher)._replace(params=params)))

    loss, evaluation_loss = losses(task)
    return TrainSetup(
        loss=loss,
        evaluation_loss=evaluation_loss,
        optimizer=optimizer_of(experiment, frozen),
        learning_rate=schedule_of(experiment),
        ema_decay=training.ema_warmup(experiment.optimizer.ema_decay),
        average_decays=tuple(map(posthoc_ema.power_function_decay, experiment.optimizer.average_widths)),
        create=partial(_placed, experiment, model),
        frozen=frozen,
        taught=None if task.teacher is None or uses_trajectories(experiment) else taught,
    )


def step_of(experiment: Experiment, setup: TrainSetup) -> Step:
    """The pure training step of an experiment, whose source is ``setup.source_of(task.source, task)``."""

    def make(loss: Loss) -> Step:
        decays = setup.ema_decay, experiment.num_microbatches
        return training.make_step(loss, setup.optimizer, *decays, average_decays=setup.average_decays)

    step = setup.beside(make)
    return step if setup.frozen is None else freezing.of_step(step, setup.frozen)
