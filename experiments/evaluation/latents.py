"""The report on latents: their samples, and with the network that made them the pictures that they are of, measured."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cfgjax import data
from experiments.cli import main as cli
from experiments.evaluation import images
from experiments.evaluation.guided_samples import Draws, guided_draws
from experiments.evaluation.image_figures import write_samples
from experiments.evaluation.measurable import Counts, left_out
from experiments.evaluation.options import EvaluationOptions
from experiments.run import launches
from experiments.run.decoder import Decoder
from experiments.runtime import distributed
from experiments.tasks.latent_pictures import NoPicturesError, Pictures
from experiments.tasks.task import Learned

FLOAT_BYTES = 4


def decoded(draws: Draws, decoder: Decoder, most_per_row: int | None = None) -> Draws:
    """The pictures [scales, K, n, H, W, C] of draws of latents, of each row the first so many."""
    return {rule: decoder.decode_all(samples[:, :, :most_per_row]) for rule, samples in draws.items()}


def _require_fit(run: Learned, pictures: Pictures, decoder: Decoder) -> None:
    """Raises NoPicturesError where what is decoded cannot be compared with the pictures."""
    name, shape = pictures.settings.name, pictures.test.pixels.shape[1:]
    if decoder.shape != shape:
        raise NoPicturesError(f"{name} has pictures {shape}, the autoencoder gives {decoder.shape}")
    if len(run.task.labels) and run.task.labels.max() >= pictures.test.num_classes:
        raise NoPicturesError(f"{name} has {pictures.test.num_classes} labels, the run {run.task.num_classes}")
    num_samples = len(run.task.labels) * run.experiment.sampling.num_per_class * len(run.experiment.sampling.scales)
    data.check_memory("num_per_class", 2 * FLOAT_BYTES * num_samples * int(np.prod(shape)))


def _pictures(
    run: Learned, options: EvaluationOptions, pictures_of: Callable[[], Pictures]
) -> tuple[Pictures | None, EvaluationOptions]:
    """The pictures to measure by, where there are any, and the options with a decoder to as many channels."""
    decoder = options.decoder
    if decoder is None:
        cli.info(f"samples are kept as latents; {launches.autoencoder_hint(run.experiment.run_dir)}")
        return None, options
    try:
        found = pictures_of()
        is_gray = found.test.pixels.shape[-1] == 1 and decoder.shape[-1] > 1
        decoder = decoder.in_gray() if is_gray else decoder
        _require_fit(run, found, decoder)
    except (NoPicturesError, data.DataError) as error:
        distributed.warn(f"warning: samples become pictures that are not measured: {error}")
        return None, options
    return found, replace(options, decoder=decoder)


def evaluate(
    run: Learned, options: EvaluationOptions, out_dir: Path, pictures_of: Callable[[], Pictures]
) -> dict[str, Any]:
    """The metrics of a run on latents; writes its samples, and with a decoder what the report on images writes.

    Without the pictures that the latents are of, the first sample of each label is drawn, and nothing is measured.

    Args:
        run: what learned from them.
        options: what is asked.
        out_dir: the folder to write into.
        pictures_of: reads the pictures.
    """
    pictures, options = _pictures(run, options, pictures_of)
    draws, scales = guided_draws(run, options)
    for (guidance, solver), samples in draws.items():
        factor, shift = map(np.asarray, run.task.scaling or (1.0, 0.0))
        labelled = {"scales": np.asarray(scales[guidance]), "labels": run.task.labels, "latents": samples}
        np.savez(out_dir / f"samples-{guidance}-{solver}.npz", **labelled, factor=factor, shift=shift)
    decoder = options.decoder
    if decoder is None:
        return {"samples": []}
    if pictures is None:
        write_samples(decoded(draws, decoder, 1), scales, run.task.conditions.texts, out_dir)
        return {"samples": []}
    labels, num_per_class = run.task.labels, run.experiment.sampling.num_per_class
    there = Counts(len(labels) * num_per_class, len(pictures.test.label), len(labels))
    missing = left_out(images.needs(options), there)
    found = images.measure_drawn(
        images.Drawn(decoded(draws, decoder), scales, labels, pictures.texts),
        pictures.settings,
        run.experiment.data_dir,
        pictures.train,
        pictures.test,
        options,
        out_dir,
    )
    also = missing | found.get("left_out", {})
    return found | {"pictures": pictures.settings.name} | ({"left_out": also} if also else {})
