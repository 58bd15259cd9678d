"""What is trained, by the names of ``Experiment.objective``: a field by a matching loss, or a noisy classifier."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax import conversions, guidance, losses
from cfgjax.models import MLP, DiT, DiTClassifier, UNet, UNetClassifier
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, Loss, TimeDensity, Tree
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.schema import Experiment
from experiments.tasks.task import Objective, Task, TaskFacts, ToField

NetworkSettings = MLPNetwork | UNetNetwork | DiTNetwork


def _time_density(experiment: Experiment) -> TimeDensity:
    """The density of training times.

    Raises:
        UserError: the logit of times that are not drawn by it.
    """
    if experiment.time_density == "logit_normal":
        return losses.logit_normal(*experiment.time_logit)
    if experiment.time_logit != (0.0, 1.0):
        raise UserError(f"time_logit is of the time_density 'logit_normal', got it with {experiment.time_density!r}")
    return losses.uniform()


def _options_of(settings: NetworkSettings, facts: TaskFacts) -> dict[str, Any]:
    options = asdict(settings) | {"num_classes": facts.num_classes}
    return options | {"dtype": jnp.dtype(options["dtype"])} if "dtype" in options else options


def _vector_width(settings: NetworkSettings) -> int:
    """The width of the vector that a network makes of its condition."""
    match settings:
        case UNetNetwork(width=width):
            return 4 * width
        case DiTNetwork(width=width):
            return width
        case MLPNetwork(embedding_width=width):
            return width


def _field_network(settings: NetworkSettings, facts: TaskFacts) -> linen.Module:
    options, embedding = _options_of(settings, facts), facts.conditions.embedding
    if embedding is not None:
        options["conditioning"] = embedding(_vector_width(settings))
    match settings:
        case UNetNetwork():
            return UNet(**options)
        case DiTNetwork():
            return DiT(**options)
        case MLPNetwork():
            return MLP(**options)


def _classifier_network(settings: NetworkSettings, facts: TaskFacts) -> linen.Module:
    """The network of a noisy classifier.

    Raises:
        UserError: asked of the MLP, or of tokens of a label.
    """
    options = _options_of(settings, facts)
    match settings:
        case DiTNetwork(in_context_tokens=number) if number:
            raise UserError(f"objective 'classifier' knows no label: network.in_context_tokens must be 0, got {number}")
        case UNetNetwork():
            return UNetClassifier(**options)
        case DiTNetwork():
            return DiTClassifier(**{name: value for name, value in options.items() if "in_context" not in name})
        case MLPNetwork():
            raise UserError("objective 'classifier' needs a U-Net or a transformer, not the MLP")


def _matching_loss(
    matching: Callable[..., Array], experiment: Experiment, task: Task, network: Any, path: GaussianPath, trains: bool
) -> Loss:
    density, null, rate = _time_density(experiment), task.conditions.null, experiment.label_drop_rate
    rates = rate if task.conditions.rates is None else task.conditions.rates

    def loss(params: Tree, key: Array, example: Tree) -> Array:
        data_key, drop_key, dropout_key, noise_key = jax.random.split(key, 4)
        z, y = task.example(data_key, example)
        y = guidance.drop_condition(drop_key, y, rates, null, rate_of_all=rate)

        def prediction(x: Array, t: Array, y: Condition) -> Array:
            return cast(Array, network.apply(params, x, t, y, not trains, rngs={"dropout": dropout_key}))

        return matching(path, prediction, noise_key, z, y, time_density=density)

    return loss


def _classifier_loss(experiment: Experiment, task: Task, network: Any, path: GaussianPath, trains: bool) -> Loss:
    density = _time_density(experiment)

    def loss(params: Tree, key: Array, example: Tree) -> Array:
        data_key, dropout_key, noise_key = jax.random.split(key, 3)
        z, y = task.example(data_key, example)

        def log_classifier(x: Array, t: Array) -> Array:
            return cast(Array, network.apply(params, x, t, not trains, rngs={"dropout": dropout_key}))

        return losses.classifier_cross_entropy(path, log_classifier, noise_key, z, y, density)

    return loss


def _no_field(path: GaussianPath, prediction: LabelledField) -> LabelledField:
    raise UserError("a noisy classifier predicts no field")


def _matching(loss: Callable[..., Array], to_field: ToField) -> Objective:
    return Objective(_field_network, partial(_matching_loss, loss), to_field)


def _data_loss(path: GaussianPath, prediction: LabelledField, *drawn: Any, time_density: TimeDensity) -> Array:
    weight = losses.field_weight(path)
    return losses.denoiser_matching(path, prediction, *drawn, time_density=time_density, weight=weight)


OBJECTIVES = {
    "field": _matching(losses.flow_matching, lambda path, field: field),
    "data": _matching(_data_loss, conversions.bounded_field_of_denoiser),
    "noise": _matching(losses.noise_matching, conversions.field_of_noise),
    "score": _matching(losses.score_matching, conversions.field_of_score),
    "classifier": Objective(_classifier_network, _classifier_loss, _no_field, is_field=False),
}
