"""What is trained, by the names of ``Experiment.objective``: a field by a matching loss, or something else."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen

from cfgjax import conversions, guidance, losses
from cfgjax.models import MLP, AutoencoderKL, DiT, DiTClassifier, UNet, UNetClassifier, autoencoder_loss
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, Loss, TimeDensity, Tree
from experiments.cli.main import UserError
from experiments.config.networks import AnyNetwork, AutoencoderNetwork, DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.schema import Experiment
from experiments.tasks.task import Objective, Task, TaskFacts, ToField

_Conditional = MLPNetwork | UNetNetwork | DiTNetwork
"""The networks that are told the time."""


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


def _options_of(settings: AnyNetwork) -> dict[str, Any]:
    options = asdict(settings)
    return options | {"dtype": jnp.dtype(options["dtype"])} if "dtype" in options else options


def _vector_width(settings: _Conditional) -> int:
    """The width of the vector that a network makes of its condition."""
    match settings:
        case UNetNetwork(width=width):
            return 4 * width
        case DiTNetwork(width=width):
            return width
        case MLPNetwork(embedding_width=width):
            return width


def _field_network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of a field.

    Raises:
        UserError: asked of an autoencoder.
    """
    if isinstance(settings, AutoencoderNetwork):
        raise UserError("objective must be 'autoencoder' for the network of one")
    options, embedding = _options_of(settings) | {"num_classes": facts.num_classes}, facts.conditions.embedding
    if embedding is not None:
        options["conditioning"] = embedding(_vector_width(settings))
    match settings:
        case UNetNetwork():
            return UNet(**options)
        case DiTNetwork():
            return DiT(**options)
        case MLPNetwork():
            return MLP(**options)


def _classifier_network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of a noisy classifier.

    Raises:
        UserError: asked of the MLP, of an autoencoder, or of tokens of a label.
    """
    options = _options_of(settings) | {"num_classes": facts.num_classes}
    match settings:
        case DiTNetwork(in_context_tokens=number) if number:
            raise UserError(f"objective 'classifier' knows no label: network.in_context_tokens must be 0, got {number}")
        case UNetNetwork():
            return UNetClassifier(**options)
        case DiTNetwork():
            return DiTClassifier(**{name: value for name, value in options.items() if "in_context" not in name})
        case MLPNetwork() | AutoencoderNetwork():
            raise UserError("objective 'classifier' needs a U-Net or a transformer")


def _autoencoder_network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of an autoencoder of images with the data's channels.

    Raises:
        UserError: asked of another network.
    """
    if not isinstance(settings, AutoencoderNetwork):
        raise UserError("objective 'autoencoder' needs the network of one: a preset whose name ends in _autoencoder")
    return AutoencoderKL(image_channels=facts.shape[-1], has_quant_convs=False, **_options_of(settings))


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


def _autoencoder_loss(experiment: Experiment, task: Task, network: Any, path: GaussianPath, trains: bool) -> Loss:
    def loss(params: Tree, key: Array, example: Tree) -> Array:
        data_key, noise_key = jax.random.split(key)
        image, _ = task.example(data_key, example)
        encode, decode = (partial(network.apply, params, method=name) for name in ("encode", "decode"))
        return autoencoder_loss(encode, decode, noise_key, image, experiment.kl_weight)

    return loss


def _no_field(path: GaussianPath, prediction: LabelledField) -> LabelledField:
    raise UserError("a noisy classifier, or an autoencoder, predicts no field")


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
    "classifier": Objective(_classifier_network, _classifier_loss, _no_field, "classifier"),
    "autoencoder": Objective(_autoencoder_network, _autoencoder_loss, _no_field, "autoencoder"),
}
