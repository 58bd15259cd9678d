"""What an experiment needs of memory at the very least: settings that can never fit are refused before they are tried.

Every estimate is a lower bound, of the largest arrays alone: what is refused here is hopeless, what passes may still be
too much for a device.
"""

import math
from typing import Any

from cfgjax.data import DataError, check_memory
from experiments.cli.main import UserError
from experiments.config.networks import AnyNetwork, AutoencoderNetwork, DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.schema import Experiment

_NUMBER = 4
NUM_COPIES = 4
"""Arrays in the size of the parameters in a training state: they themselves, their moving average, and two moments."""


def num_parameters(network: AnyNetwork, shape: tuple[int, ...], num_classes: int) -> int:
    """Parameters that a network on such data points has at the very least: those of its largest matrices."""
    match network:
        case MLPNetwork(width=width, depth=depth):
            ends = 2 * math.prod(shape) * width + num_classes * network.embedding_width
            return 2 * depth * width**2 + ends
        case DiTNetwork(width=width, depth=depth):
            return 8 * depth * width**2 + num_classes * width
        case UNetNetwork(width=width, multipliers=multipliers, blocks_per_level=blocks):
            return sum(18 * blocks * (width * multiple) ** 2 for multiple in multipliers) + num_classes * width
        case AutoencoderNetwork(widths=widths, blocks_per_level=blocks):
            return sum(36 * blocks * width**2 for width in widths)


def num_inner(network: AnyNetwork, shape: tuple[int, ...]) -> int:
    """Numbers of the widest inner array for one data point, at the very least."""
    match network:
        case MLPNetwork(width=width):
            return width + math.prod(shape)
        case AutoencoderNetwork(widths=widths):
            return math.prod(shape[:2]) * widths[0]
        case UNetNetwork(width=width, patch=patch) | DiTNetwork(width=width, patch=patch):
            return math.prod(shape[:2]) // patch**2 * width


def require_affordable(
    experiment: Experiment, shape: tuple[int, ...], num_classes: int, num_copies: int = NUM_COPIES
) -> None:
    """Looks at what the state, the samples, and one chunk of samples would take.

    Args:
        experiment: the settings.
        shape: of a data point.
        num_classes: K.
        num_copies: arrays in the size of the parameters: 1 where these are read alone.

    Raises:
        UserError: more than this machine's memory, naming the settings.
    """
    network, sampling = experiment.network, experiment.sampling
    samples = len(sampling.scales) * num_classes * sampling.num_per_class * math.prod(shape)
    needs: dict[str, Any] = {
        "network": num_copies * num_parameters(network, shape, num_classes),
        "sampling (scales x labels x num_per_class)": samples,
        "sampling.chunk": (sampling.chunk or 1) * num_inner(network, shape),
    }
    try:
        for name, numbers in needs.items():
            check_memory(name, _NUMBER * numbers)
    except DataError as error:
        raise UserError(str(error)) from None
