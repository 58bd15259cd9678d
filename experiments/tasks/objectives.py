"""What is trained, by the names of ``Experiment.objective``: a field by a matching loss, or something else."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax

from cfgjax import conversions, guidance, losses
from cfgjax.models import autoencoder_loss
from cfgjax.types import Array, Condition, GaussianPath, LabelledField, Loss, TimeDensity, Tree
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork
from experiments.config.schema import Experiment
from experiments.tasks import distillation, networks
from experiments.tasks.task import Kind, Objective, Task, ToField
from experiments.tasks.time_densities import time_density_of

_CONSISTENCY = 0xC0
"""Folded into the key of the noise, for that of null_consistency: without it a run has the bits it ever had."""


def _matching_loss(
    matching: Callable[..., Array],
    experiment: Experiment,
    task: Task,
    network: Any,
    path: GaussianPath,
    trains: bool,
    method: str = "__call__",
) -> Loss:
    density, null, rate = time_density_of(experiment), task.conditions.null, experiment.label_drop_rate
    rates = rate if task.conditions.rates is None else task.conditions.rates
    weight = experiment.null_consistency if trains else 0.0

    def loss(params: Tree, key: Array, example: Tree) -> Array:
        data_key, drop_key, dropout_key, noise_key = jax.random.split(key, 4)
        z, y = task.example(data_key, example)
        dropped = guidance.drop_condition(drop_key, y, rates, null, rate_of_all=rate)

        def prediction(x: Array, t: Array, y: Condition) -> Any:
            return network.apply(params, x, t, y, not trains, rngs={"dropout": dropout_key}, method=method)

        value = matching(path, prediction, noise_key, z, dropped, time_density=density)
        if not weight:
            return value
        null_key = jax.random.fold_in(noise_key, _CONSISTENCY)
        return value + weight * losses.null_consistency(path, prediction, null_key, z, y, null, time_density=density)

    return loss


def _field_loss(experiment: Experiment, *rest: Any) -> Loss:
    """Flow matching of the field, and of what a network predicts in its middle."""
    if isinstance(experiment.network, DiTNetwork) and experiment.network.internal_block:
        return _matching_loss(losses.internal_matching, experiment, *rest, method="sides")
    return _matching_loss(losses.flow_matching, experiment, *rest)


def _classifier_loss(experiment: Experiment, task: Task, network: Any, path: GaussianPath, trains: bool) -> Loss:
    density = time_density_of(experiment)

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
    return Objective(networks.one_ended_network, partial(_matching_loss, loss), to_field)


def _with_guidance(kind: Kind, told: Callable[..., Condition]) -> Objective:
    return Objective(distillation.network, distillation.loss, lambda path, field: field, kind, told)


def _data_loss(path: GaussianPath, prediction: LabelledField, *drawn: Any, time_density: TimeDensity) -> Array:
    weight = losses.field_weight(path)
    return losses.denoiser_matching(path, prediction, *drawn, time_density=time_density, weight=weight)


OBJECTIVES = {
    "field": Objective(networks.field_network, _field_loss, lambda path, field: field),
    "data": _matching(_data_loss, conversions.bounded_field_of_denoiser),
    "noise": _matching(losses.noise_matching, conversions.field_of_noise),
    "score": _matching(losses.score_matching, conversions.field_of_score),
    "guided_field": _with_guidance("guided_field", distillation.told_of_field),
    "flow_map": _with_guidance("flow_map", distillation.told_of_flow_map),
    "classifier": Objective(networks.classifier_network, _classifier_loss, _no_field, "classifier"),
    "autoencoder": Objective(networks.autoencoder_network, _autoencoder_loss, _no_field, "autoencoder"),
}
