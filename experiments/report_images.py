"""The report on images: is the asked label recognised, and are the samples copies?"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from cfgjax import metrics
from cfgjax.data import Images
from experiments.presets import Experiment, ImageData
from experiments.problems import load_images

TITLES = {"heun": "ODE (Heun)", "euler_maruyama": "SDE (Euler-Maruyama)"}


def train_recogniser(images: Images) -> Pipeline:
    """A support vector classifier fitted to real images, of flattened pixels."""
    recogniser = make_pipeline(StandardScaler(with_std=False), SVC(C=10.0))
    return recogniser.fit(images.image.reshape(len(images.label), -1), images.label)


def _recognised(recogniser: Pipeline, samples: np.ndarray) -> np.ndarray:
    """The fraction of samples [K, n, *D] whose own label is recognised, by label, [K]."""
    num_labels, num_samples = samples.shape[:2]
    found = np.asarray(recogniser.predict(samples.reshape(num_labels * num_samples, -1)))
    found = found.reshape(num_labels, num_samples)
    return np.mean(found == np.arange(num_labels).reshape(-1, 1), axis=1)


def _measure(samples: np.ndarray, recogniser: Pipeline, train: Images, test: Images) -> dict[str, Any]:
    by_label = _recognised(recogniser, samples)
    flat = samples.reshape(-1, *samples.shape[2:])
    return {
        "recognised": float(by_label.mean()),
        "recognised_by_label": by_label.tolist(),
        "nearest_training_distance": float(np.median(metrics.nearest_distances(flat, train.image))),
        "copies": metrics.copy_fraction(flat, train.image, test.image),
    }


def _sheet(samples: np.ndarray) -> np.ndarray:
    """One gray picture of images [scales, K, height, width]: a row for each label, a column for each scale."""
    framed = np.pad(samples, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1.0)
    num_scales, num_labels, height, width = framed.shape
    return framed.transpose(1, 2, 0, 3).reshape(num_labels * height, num_scales * width)


def draw_samples(draws: dict[str, np.ndarray], scales: tuple[float, ...], file: Path) -> None:
    """Writes the picture: for each solver a row for each label and a column for each scale, one noise along a row."""
    num_labels = next(iter(draws.values())).shape[1]
    figure = Figure(figsize=(1.2 + 1.1 * len(scales) * len(draws), 0.6 + 1.0 * num_labels), layout="constrained")
    for axes, (solver, samples) in zip(np.ravel(figure.subplots(1, len(draws))), draws.items(), strict=True):
        sheet = _sheet(np.clip(samples[:, :, 0], -1, 1).mean(axis=-1))
        axes.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        height, width = sheet.shape[0] / num_labels, sheet.shape[1] / len(scales)
        axes.set_xticks((np.arange(len(scales)) + 0.5) * width - 0.5, [f"w = {scale:g}" for scale in scales])
        axes.set_yticks((np.arange(num_labels) + 0.5) * height - 0.5, [str(label) for label in range(num_labels)])
        axes.tick_params(length=0)
        axes.xaxis.tick_top()
        axes.set_title(TITLES.get(solver, solver))
    figure.savefig(file, dpi=100)


def report_images(
    experiment: Experiment, settings: ImageData, draws: dict[str, np.ndarray], out_dir: Path
) -> dict[str, Any]:
    """The metrics of samples {solver: [scales, K, n, *D]}; writes samples.png.

    "copies" is the share of samples nearer to a training image than all but 1 % of held-out images are.
    """
    train, test = load_images(experiment, settings)
    recogniser = train_recogniser(train)
    rows = [
        {"scale": scale, "solver": solver, **_measure(samples[index], recogniser, train, test)}
        for solver, samples in draws.items()
        for index, scale in enumerate(experiment.sampling.scales)
    ]
    draw_samples(draws, experiment.sampling.scales, out_dir / "samples.png")
    held_out = metrics.nearest_distances(test.image, train.image)
    return {
        "recogniser_test_accuracy": float(recogniser.score(test.image.reshape(len(test.label), -1), test.label)),
        "held_out_nearest_training_distance": float(np.median(held_out)),
        "samples": rows,
    }
