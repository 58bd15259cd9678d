"""Samples that a run keeps as latents, shown as the pictures that they are of."""

import io
from pathlib import Path

import numpy as np

from cfgjax.data import DataError
from cfgjax.data.untrusted.npz import read_npz
from experiments.evaluation.by_scale import ByScale, first
from experiments.evaluation.guided_samples import Draws
from experiments.evaluation.image_figures import draw_samples, title_of
from experiments.report.read_run import Findings, Record
from experiments.run.decoder import Decoder
from experiments.tasks.task import TaskFacts

PICTURE = "samples.png"


def _read(file: Path, run_dir: Path, facts: TaskFacts) -> tuple[np.ndarray, tuple[float, ...]]:
    """The first latent of each row of a file, [scales, K, 1, h, w, c], and the scales.

    Raises:
        DataError: a file of another form.
    """
    arrays = read_npz(file, run_dir, ("latents", "scales"))
    nothing = np.zeros(0)
    latents, scales = arrays.get("latents", nothing), arrays.get("scales", nothing)
    first, wanted = latents[:, :, :1] if latents.ndim == 6 else latents, (len(facts.labels), 1, *facts.shape)
    if scales.ndim != 1 or first.shape != (len(scales), *wanted) or {first.dtype.kind, scales.dtype.kind} != {"f"}:
        raise DataError(f"{file} holds no samples {wanted} of this run at each scale")
    if not np.all(np.isfinite(first)):
        raise DataError(f"{file} holds samples that are not finite")
    return first.astype(np.float32), tuple(float(scale) for scale in scales)


def _drawn(
    folder: Path, run_dir: Path, names: list[str], facts: TaskFacts, decoder: Decoder
) -> tuple[bytes, list[ByScale]]:
    """The picture of the samples in some files of a folder, samples-GUIDANCE-SOLVER.npz, as PNG, and they by scale."""
    draws: Draws = {}
    scales = {}
    for name in names:
        guidance, _, solver = name.removeprefix("samples-").removesuffix(".npz").rpartition("-")
        latents, scales[guidance] = _read(folder / name, run_dir, facts)
        draws[guidance, solver] = decoder.decode_all(latents)
    stream = io.BytesIO()
    draw_samples(draws, scales, facts.conditions.texts, stream)
    own = [
        ByScale(title_of(rule), np.asarray(scales[rule[0]]), first(samples))
        for rule, samples in draws.items()
        if samples.shape[-1] in (1, 3)
    ]
    return stream.getvalue(), own


def with_pictures(found: Record, run_dir: Path, facts: TaskFacts, decoder: Decoder) -> Record:
    """The record, with a picture of the samples where latents alone are kept; what does not read is a trouble."""
    findings: dict[str, Findings] = {}
    troubles = list(found.troubles)
    for part, its in found.findings.items():
        findings[part] = its
        if not its.others or PICTURE in its.pictures:
            continue
        try:
            picture, samples = _drawn(run_dir / part, run_dir, its.others, facts, decoder)
            pictures = {PICTURE: picture} | its.pictures
            findings[part] = its._replace(pictures=pictures, by_scale=samples, labels=list(facts.conditions.texts))
        except DataError as error:
            troubles.append(str(error))
    return found._replace(findings=findings, troubles=troubles)
