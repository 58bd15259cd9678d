"""From an experiment to its functions: path, network, loss, optimizer, state, and the learned field."""

from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from cfgjax import conversions, guidance, losses, paths, training
from cfgjax.models import MLP
from cfgjax.types import Array, GaussianPath, LabelledField, Loss, TrainState, Tree
from experiments.presets import Experiment
from experiments.problems import Problem

PATHS: dict[str, Callable[[], GaussianPath]] = {
    "linear": paths.linear,
    "cosine": paths.cosine,
    "variance_preserving": paths.variance_preserving,
    "polynomial": lambda: paths.polynomial(2),
}
LOSSES = {"field": losses.flow_matching, "noise": losses.noise_matching, "score": losses.score_matching}
TO_FIELD: dict[str, Callable[[GaussianPath, LabelledField], LabelledField]] = {
    "field": lambda path, field: field,
    "noise": conversions.field_of_noise,
    "score": conversions.field_of_score,
}
TIME_DENSITIES = {"uniform": losses.uniform, "logit_normal": losses.logit_normal}


class Model(NamedTuple):
    """The functions of an experiment."""

    path: GaussianPath
    network: MLP
    loss: Loss
    evaluation_loss: Loss
    optimizer: optax.GradientTransformation
    ema_decay: Callable[[Array], Array]
    create: Callable[[], TrainState]
    field: Callable[[Tree], LabelledField]


def _loss(experiment: Experiment, problem: Problem, network: MLP, path: GaussianPath, is_training: bool) -> Loss:
    matching = LOSSES[experiment.objective]
    density = TIME_DENSITIES[experiment.time_density]()

    def loss(params: Tree, key: Array, example: Tree) -> Array:
        data_key, label_key, dropout_key, noise_key = jax.random.split(key, 4)
        z, y = problem.example(data_key, example)
        y = guidance.drop_label(label_key, y, experiment.label_drop_rate, problem.num_labels)

        def prediction(x: Array, t: Array, y: Array) -> Array:
            return cast(Array, network.apply(params, x, t, y, not is_training, rngs={"dropout": dropout_key}))

        return matching(prediction, path, noise_key, z, y, time_density=density)

    return loss


def _optimizer(experiment: Experiment) -> optax.GradientTransformation:
    settings = experiment.optimizer
    warmup = min(settings.warmup_steps, experiment.num_steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.learning_rate, warmup, experiment.num_steps)
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm), optax.adamw(schedule, weight_decay=settings.weight_decay)
    )


def model_of(experiment: Experiment, problem: Problem) -> Model:
    """All functions of an experiment on its problem."""
    path = PATHS[experiment.path]()
    settings = experiment.network
    network = MLP(problem.num_labels, **asdict(settings))
    optimizer = _optimizer(experiment)

    def create() -> TrainState:
        init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
        params = network.init(init_key, jnp.zeros(problem.shape), jnp.zeros(()), jnp.zeros((), jnp.int32))
        return training.replicate(training.create(params, optimizer, run_key))

    def ema_decay(step: Array) -> Array:
        return jnp.minimum(experiment.optimizer.ema_decay, (1 + step) / (10 + step))

    def field(params: Tree) -> LabelledField:
        return TO_FIELD[experiment.objective](path, lambda x, t, y: cast(Array, network.apply(params, x, t, y)))

    return Model(
        path=path,
        network=network,
        loss=_loss(experiment, problem, network, path, is_training=True),
        evaluation_loss=_loss(experiment, problem, network, path, is_training=False),
        optimizer=optimizer,
        ema_decay=ema_decay,
        create=create,
        field=field,
    )
