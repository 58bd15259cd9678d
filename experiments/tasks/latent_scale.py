"""The scale of latents: what data.factor makes of their standard deviation and means, looked at before training."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cfgjax import data
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.runtime import distributed

NARROW, WIDE, FAR = 0.5, 2.0, 1.0
"""The standard deviations and the mean, after the factor, beyond which there is a warning."""
_USUAL = (1.0, 0.18215)
"""Factors that published latents need: those that are scaled already, and those of Stable Diffusion's first encoder."""


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _overall(mean: np.ndarray, std: np.ndarray) -> float:
    """The standard deviation of all numbers together, by mean and standard deviation of each channel."""
    return float(np.hypot(_root_mean_square(std), _root_mean_square(mean - np.mean(mean))))


def deviation_of(spread: data.Spread) -> float:
    """The standard deviation of all numbers together."""
    return _overall(spread.mean, spread.deviation)


def factor_for(deviation: float) -> float | None:
    """A factor that brings a standard deviation near to 1: a usual one if it does; None where there is none.

    >>> factor_for(0.9), factor_for(5.5), factor_for(0.1), factor_for(0.0)
    (1.0, 0.18215, 10.0, None)
    """
    if deviation == 0:
        return None
    usual = (factor for factor in _USUAL if NARROW <= factor * deviation <= WIDE)
    return next(usual, float(f"{1 / deviation:.3g}"))


def warnings_of(spread: data.Spread, factor: float, shift: float = 0.0) -> list[str]:
    """What is wrong with the scale that factor and shift give to latents, in lines."""
    deviation, found = deviation_of(spread), []
    if not NARROW <= factor * deviation <= WIDE:
        better = factor_for(deviation)
        hint = "they are all alike" if better is None else f"give --data.factor {better:g}"
        found.append(
            f"warning: the latents' standard deviation times data.factor is {factor * deviation:.3g}, where that of "
            f"noise is 1; {hint}"
        )
    means = factor * (spread.mean - shift)
    if np.abs(means).max() > FAR:
        channel = int(np.argmax(np.abs(means)))
        found.append(
            f"warning: channel {channel} of the latents times data.factor has mean {means[channel]:.3g}, far from the "
            "0 of noise; subtract the channels' means from the latents, and add them before decoding"
        )
    return found


def require_told(latents: data.Latents, spread: data.Spread, told: data.Statistics, folder: Path) -> None:
    """Raises UserError for statistics of other latents than those of this spread."""
    there = len(latents.label), *latents.latent.shape[-1:]
    reason = ""
    if (told.count, len(told.mean)) != there:
        reason = f"of {told.count} latents of {len(told.mean)} channels, and there are {there[0]} of {there[1]}"
    elif (size := _root_mean_square(spread.deviation)) > 0:
        ratio = _root_mean_square(told.std) / size
        distance = float(np.abs(told.mean - spread.mean).max()) / size
        if not NARROW <= ratio <= WIDE or distance > FAR:
            reason = f"a standard deviation {ratio:.3g} times theirs and a mean {distance:.3g} of theirs away"
    if reason:
        raise UserError(f"statistics.json in {folder} tells {reason}: it is of other latents; remove it")


def by_statistics(mean: np.ndarray, std: np.ndarray) -> tuple[float, float]:
    """Factor and shift that give all numbers together mean 0 and standard deviation 1.

    Args:
        mean: [C] of each channel.
        std: [C] likewise.

    Raises:
        UserError: numbers that are all alike.
    """
    overall = _overall(mean, std)
    if overall == 0:
        raise UserError("data.factor must be given where all latents are alike")
    return 1 / overall, float(np.mean(mean))


def with_scale(latents: data.Latents, told: data.Statistics | None, settings: LatentData) -> LatentData:
    """The settings with the factor and the shift that they leave to the folder's statistics.

    Args:
        latents: of the folder.
        told: the statistics that the folder tells; None for those of 1,024 latents.
        settings: of a run on it.
    """
    if settings.factor is not None and settings.shift is not None:
        return settings
    mean, std = latents.spread() if told is None else (told.mean, told.std)
    factor, shift = by_statistics(mean, std)
    return replace(
        settings,
        factor=factor if settings.factor is None else settings.factor,
        shift=shift if settings.shift is None else settings.shift,
    )


def scaling_of(settings: LatentData) -> tuple[float, float]:
    """Factor and shift of a run; 1 and 0 where nothing was read that they follow from."""
    factor, shift = settings.factor, settings.shift
    return 1.0 if factor is None else factor, 0.0 if shift is None else shift


def tell(latents: data.Latents, told: data.Statistics | None, settings: LatentData) -> None:
    """Prints the scale that latents are trained in, and warns where it is not that of noise.

    Raises:
        UserError: the folder's statistics are of other latents.
    """
    spread, (factor, shift) = latents.spread(), scaling_of(settings)
    if told is not None:
        require_told(latents, spread, told, settings.folder)
    deviation = deviation_of(spread)
    scaled = f"{deviation:.3g} times data.factor {factor:g} is {factor * deviation:.3g}"
    cli.info(f"the standard deviation of the latents in {settings.folder}, {scaled}")
    for warning in warnings_of(spread, factor, shift):
        distributed.warn(warning)
