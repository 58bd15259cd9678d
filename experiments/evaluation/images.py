"""The report on images: is the asked label recognised, how true and how varied are the samples, are they copies?"""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfgjax import data, metrics
from experiments.config.schema import Experiment, ImageData
from experiments.evaluation.feature_classifier import Features, feature_classifier_of
from experiments.evaluation.fidelity import Reference, measure, num_repeated, real_vs_real, reference_of
from experiments.evaluation.measurable import COPIES, DISTANCES, NEIGHBOURHOODS, NEIGHBOURS
from experiments.figures.fonts import room_for
from experiments.figures.image_grid import show_sheet
from experiments.runtime import distributed, progress
from experiments.tasks.label_names import label_texts
from experiments.tasks.registry import NUM_HELD_OUT, load_test, load_train

TITLES = {"heun": "ODE (Heun)", "euler": "ODE (Euler)", "euler_maruyama": "SDE (Euler-Maruyama)"}
COLUMNS = (
    "guidance", "solver", "scale", "recognised", "frechet", "kernel", "precision", "recall", "density", "coverage",
    "copies", "nearest_training_distance",
)  # fmt: skip
Draws = dict[tuple[str, str], np.ndarray]
"""(guidance, solver) -> samples [scales, labels, n, H, W, C]."""


def _title(rule: tuple[str, str]) -> str:
    guidance, solver = rule
    return f"{guidance}, {TITLES.get(solver, solver)}"


def draw_samples(draws: Draws, scales: dict[str, tuple[float, ...]], labels: Sequence[str], file: Path) -> None:
    """Writes the picture: for each rule a row for each label and a column for each scale, one noise along a row."""
    num_classes = next(iter(draws.values())).shape[1]
    num_columns = sum(len(samples) for samples in draws.values())
    figure = Figure(figsize=(1.2 + room_for(labels) + 1.1 * num_columns, 0.6 + 1.0 * num_classes), layout="constrained")
    widths = [len(samples) for samples in draws.values()]
    panels = np.ravel(figure.subplots(1, len(draws), width_ratios=widths))
    for axes, (rule, samples) in zip(panels, draws.items(), strict=True):
        show_sheet(axes, samples[:, :, 0], scales[rule[0]], labels)
        axes.set_title(_title(rule))
    figure.savefig(file, dpi=100)


def _plot(axes: Axes, rows: list[dict[str, Any]], across: str, up: str) -> None:
    """One curve for each rule, along the scales; the points are marked with w."""
    rules = dict.fromkeys((row["guidance"], row["solver"]) for row in rows)
    for rule in rules:
        own = [row for row in rows if (row["guidance"], row["solver"]) == rule and up in row and across in row]
        line = axes.plot([row[across] for row in own], [row[up] for row in own], "o-", ms=4, label=_title(rule))
        if across == "scale":
            continue
        for row in own:
            axes.annotate(f"{row['scale']:g}", (row[across], row[up]), fontsize=7, color=line[0].get_color())
    axes.set(xlabel=across, ylabel=up)


def draw_curves(rows: list[dict[str, Any]], real: dict[str, Any], name: str, file: Path) -> None:
    """Writes the picture of the curves: each number against w, and fidelity against coverage along w."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.suptitle(f"{name}; distances over the recogniser's features; dotted: real against real")
    panels = figure.subplots(2, 3)
    pairs = (
        ("scale", "recognised"), ("scale", "frechet"), ("scale", "coverage"),
        ("coverage", "frechet"), ("recall", "precision"), ("recognised", "coverage"),
    )  # fmt: skip
    for axes, (across, up) in zip(np.ravel(panels), pairs, strict=True):
        if not any(across in row and up in row for row in rows):
            axes.set_axis_off()
            axes.set_title(f"{up}: too few to measure", fontsize=9)
            continue
        _plot(axes, rows, across, up)
        if up in real:
            axes.axhline(real[up], color="gray", linestyle=":")
        if up == "frechet":
            axes.set_yscale("log")
        if across == "scale":
            axes.set_xlabel("w")
    drawn = [axes for axes in np.ravel(panels) if axes.lines]
    if drawn:
        drawn[0].legend(fontsize=7)
    figure.savefig(file, dpi=100)


def write_curves(rows: list[dict[str, Any]], file: Path) -> None:
    """Writes the rows as CSV, one line for each rule and scale."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _crossing(rows: list[dict[str, Any]], rate: float) -> dict[str, float]:
    """The numbers where the recognised rate first reaches ``rate`` along w, by straight lines between the scales."""
    names = ("scale", "frechet", "kernel", "coverage")
    for low, high in itertools.pairwise(rows):
        if low["recognised"] <= rate <= high["recognised"]:
            rise = high["recognised"] - low["recognised"]
            share = (rate - low["recognised"]) / rise if rise > 0 else 0.0
            return {name: low[name] + share * (high[name] - low[name]) for name in names if name in low}
    return {}


def at_equal_recognition(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each solver, every guidance at the highest recognised rate that all of them reach: a comparison at equals.

    Empty where a guidance passes the rate between no two of its scales: then it needs more of them; and where nothing
    is recognised.
    """
    found = []
    rows = [row for row in rows if "recognised" in row]
    for solver in dict.fromkeys(row["solver"] for row in rows):
        own = sorted((row for row in rows if row["solver"] == solver), key=lambda row: row["scale"])
        curves = {name: [row for row in own if row["guidance"] == name] for name in {row["guidance"]: 0 for row in own}}
        if len(curves) < 2:
            continue
        rate = min(max(row["recognised"] for row in curve) for curve in curves.values())
        crossings = {name: _crossing(curve, rate) for name, curve in curves.items()}
        if all(crossings.values()):
            found += [
                {"solver": solver, "recognised": rate, "guidance": name, **crossing}
                for name, crossing in crossings.items()
            ]
    return found


def _rows(
    draws: Draws,
    scales: dict[str, tuple[float, ...]],
    drawn: np.ndarray,
    reference: Reference,
    train: data.Images,
    held_out: np.ndarray | None,
) -> list[dict[str, Any]]:
    """The numbers of every rule and scale; ``held_out`` are the held-out images' distances to training ones."""
    train_image = train.image
    names = [(guidance, solver, scale) for guidance, solver in draws for scale in scales[guidance]]
    each = [its_samples for samples in draws.values() for its_samples in samples]
    rows = []
    for (guidance, solver, scale), samples in progress.each(list(zip(names, each, strict=True)), "scales", "measuring"):
        near = metrics.nearest_distances(samples.reshape(-1, *samples.shape[2:]), train_image)
        copies = {"nearest_training_distance": float(np.median(near))}
        if held_out is not None:
            copies["copies"] = metrics.memorization_rate(near, held_out)
        found = measure(samples, drawn, reference)
        rows.append({"guidance": guidance, "solver": solver, "scale": scale} | found | copies)
    return rows


def _bound_of_copies(held_out: np.ndarray) -> str:
    """Why no sample can be told to be a copy by the held-out images' distances; empty where it can."""
    try:
        metrics.memorization_rate(held_out, held_out)
    except ValueError:
        return "the pictures held out repeat training pictures"
    return ""


def _tell_repeated(repeated: int, num_real: int, rows: list[dict[str, Any]]) -> None:
    """Says in a line each how many pictures of the reference, and how many samples, are copies of one another."""
    if 0 < repeated < num_real:
        count = f"{repeated} of {num_real} pictures of the reference"
        lost = "precision, density and coverage"
        distributed.warn(f"warning: {count} repeat more than {NEIGHBOURS} times: {lost} count them for nothing")
    most = max(rows, key=lambda row: row.get("repeated_samples", 0))
    if most.get("repeated_samples"):
        where = f"{most['guidance']}, {most['solver']} at w = {most['scale']:g}"
        count = f"{most['repeated_samples']} samples of {where}"
        distributed.warn(
            f"warning: {count} repeat more than {NEIGHBOURS} times, the most of all: recall counts them as one"
        )


def _named(rows: list[dict[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, in which each label that has a name tells it."""

    def named(one: dict[str, Any]) -> dict[str, Any]:
        name = labels[one["label"]]
        return one if name == str(one["label"]) else {"label": one["label"], "name": name} | one

    return [row | {"by_label": [named(one) for one in row["by_label"]]} for row in rows]


def report_images(
    experiment: Experiment,
    settings: ImageData,
    draws: Draws,
    scales: dict[str, tuple[float, ...]],
    drawn: np.ndarray,
    out_dir: Path,
    features: Features | None = None,
    is_kept: bool = True,
) -> dict[str, Any]:
    """The metrics of samples; writes samples.png, curves.png and curves.csv.

    "copies" is the share of samples nearer to a training image than all but 1 % of held-out images are. Numbers for
    which there are too few images or samples are not among the metrics.

    Args:
        experiment: the run.
        settings: its data set.
        draws: samples in [-1, 1] by (guidance, solver).
        scales: the guidance scales of each guidance.
        drawn: the labels of the samples, in order.
        out_dir: the folder to write into.
        features: the space of the distances; by default the recogniser's.
        is_kept: whether a recogniser that is trained now is written beside the data.
    """
    train, test = load_train(experiment, settings), load_test(experiment, settings)
    labels = label_texts(experiment, train.num_classes)
    recogniser = feature_classifier_of(settings, experiment.data_dir, train, test, is_kept)
    reference = reference_of(recogniser, test, features)
    held_out = metrics.nearest_distances(test.image[:NUM_HELD_OUT], train.image) if len(test.label) else None
    no_bound = "" if held_out is None else _bound_of_copies(held_out)
    rows = _named(_rows(draws, scales, drawn, reference, train, None if no_bound else held_out), labels)
    num_samples = int(np.prod(next(iter(draws.values())).shape[1:3]))
    repeated, num_real = num_repeated(reference.real, num_samples)
    _tell_repeated(repeated, num_real, rows)
    real = real_vs_real(reference, num_samples)
    draw_samples(draws, scales, [labels[y] for y in drawn], out_dir / "samples.png")
    draw_curves(rows, real, settings.name, out_dir / "curves.png")
    write_curves(rows, out_dir / "curves.csv")
    measured: dict[str, Any] = {}
    if recogniser is not None and recogniser.test_accuracy is not None:
        measured["recogniser_test_accuracy"] = recogniser.test_accuracy
    if reference.features is not None:
        measured["features"] = "recogniser" if features is None else getattr(features, "__qualname__", "given")
        measured["real_against_real"] = real
    if held_out is not None:
        measured["held_out_nearest_training_distance"] = float(np.median(held_out))
    troubles = {
        DISTANCES.numbers: reference.trouble,
        NEIGHBOURHOODS.numbers: reference.trouble,
        COPIES.numbers: no_bound,
    }
    if 0 < repeated == num_real:
        troubles[NEIGHBOURHOODS.numbers] = f"every picture of the reference repeats more than {NEIGHBOURS} times"
    missing = {name: reason for name, reason in troubles.items() if reason}
    measured |= {"left_out": missing} if missing else {}
    return measured | {
        "num_samples": num_samples,
        "samples": rows,
        "at_equal_recognition": at_equal_recognition(rows),
    }
