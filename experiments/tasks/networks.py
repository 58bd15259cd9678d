"""The networks of what is trained, by their settings and by what is known of the task."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import jax.numpy as jnp
from flax import linen

from cfgjax.models import (
    MLP,
    AutoencoderKL,
    Conditioning,
    DiT,
    DiTClassifier,
    LabelEmbedding,
    UNet,
    UNetClassifier,
)
from experiments.cli.main import UserError
from experiments.config.networks import AnyNetwork, AutoencoderNetwork, DiTNetwork, MLPNetwork, UNetNetwork
from experiments.tasks.task import TaskFacts

CONDITION = "condition"
"""What the condition is called beside what else a network is told."""
_OF_FIELDS = {"in_context_tokens", "in_context_start", "internal_block"}
"""Settings of transformers of fields alone."""
_Conditional = MLPNetwork | UNetNetwork | DiTNetwork
"""The networks that are told the time."""


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


def _label_embedding(settings: _Conditional, num_classes: int, width: int) -> linen.Module:
    """The embedding of a label as the network has it where it is told nothing else."""
    return LabelEmbedding(num_classes, width, 0.02 if isinstance(settings, DiTNetwork) else 1.0)


def field_network(
    settings: AnyNetwork, facts: TaskFacts, also_told: Callable[[int], Mapping[str, linen.Module]] | None = None
) -> linen.Module:
    """The network of a field.

    Args:
        settings: of the network.
        facts: of the task.
        also_told: the width of the network's vectors -> what embeds more than the condition, by the names of what is
            told; then the condition is called CONDITION.

    Raises:
        UserError: asked of an autoencoder.
    """
    if isinstance(settings, AutoencoderNetwork):
        raise UserError("objective must be 'autoencoder' for the network of one")
    options, embedding = _options_of(settings) | {"num_classes": facts.num_classes}, facts.conditions.embedding
    width = _vector_width(settings)
    if also_told is not None:
        own = embedding(width) if embedding is not None else _label_embedding(settings, facts.num_classes, width)
        options["conditioning"] = Conditioning({CONDITION: own, **also_told(width)})
    elif embedding is not None:
        options["conditioning"] = embedding(width)
    match settings:
        case UNetNetwork():
            return UNet(**options)
        case DiTNetwork():
            return DiT(**options)
        case MLPNetwork():
            return MLP(**options)


def one_ended_network(
    settings: AnyNetwork, facts: TaskFacts, also_told: Callable[[int], Mapping[str, linen.Module]] | None = None
) -> linen.Module:
    """The network of a field that is predicted at its end alone; arguments as ``field_network``.

    Raises:
        UserError: asked of one that predicts in its middle, too, or of an autoencoder.
    """
    _require_one_end(settings)
    return field_network(settings, facts, also_told)


def _require_one_end(settings: AnyNetwork) -> None:
    number = settings.internal_block if isinstance(settings, DiTNetwork) else 0
    if number:
        raise UserError(f"network.internal_block must be 0 but for the objective 'field', got {number}")


def classifier_network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of a noisy classifier.

    Raises:
        UserError: asked of the MLP, of an autoencoder, of tokens of a label, or of a field in its middle.
    """
    _require_one_end(settings)
    options = _options_of(settings) | {"num_classes": facts.num_classes}
    match settings:
        case DiTNetwork(in_context_tokens=number) if number:
            raise UserError(f"objective 'classifier' knows no label: network.in_context_tokens must be 0, got {number}")
        case UNetNetwork():
            return UNetClassifier(**options)
        case DiTNetwork():
            return DiTClassifier(**{name: options[name] for name in options.keys() - _OF_FIELDS})
        case MLPNetwork() | AutoencoderNetwork():
            raise UserError("objective 'classifier' needs a U-Net or a transformer")


def autoencoder_network(settings: AnyNetwork, facts: TaskFacts) -> linen.Module:
    """The network of an autoencoder of images with the data's channels.

    Raises:
        UserError: asked of another network.
    """
    if not isinstance(settings, AutoencoderNetwork):
        raise UserError("objective 'autoencoder' needs the network of one: a preset whose name ends in _autoencoder")
    return AutoencoderKL(image_channels=facts.shape[-1], has_quant_convs=False, **_options_of(settings))
