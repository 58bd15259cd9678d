"""The content of a run's folder, read as untrusted: bounded, and no link followed out of it."""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cfgjax.data import DataError, read_bounded, require_inside
from experiments.config.schema import Experiment
from experiments.evaluation import by_scale
from experiments.evaluation.by_scale import ByScale
from experiments.run import folder as run_folder
from experiments.run import launches, metrics_log, sample_grids

MOST_TEXT, MOST_PICTURE, MOST_PIXELS = 2**26, 2**24, 10**8
"""Bytes of a file of numbers, bytes and pixels of a picture: what is longer is left out, and said."""
PICTURES = ("samples.png", "densities.png", "curves.png", "residuals.png", "classifier.png")
"""What a finished run and its evaluation write, in the order of a page."""
_LARGEST = 1e300


class Findings(NamedTuple):
    """What was measured: of a run's own end, or of an evaluation.

    Attributes:
        metrics: of metrics.json; empty where there is none.
        pictures: PNG files by name.
        others: files of samples that are no pictures.
        labels: of the samples by guidance scale.
        by_scale: the first samples of each rule.
    """

    metrics: dict[str, Any]
    pictures: dict[str, bytes]
    others: list[str]
    labels: list[str]
    by_scale: list[ByScale]


class Record(NamedTuple):
    """A run's folder.

    Attributes:
        experiment: its settings.
        rows: of metrics.jsonl; numbers that are not finite are NaN.
        findings: its own, and those of evaluation/.
        sample_grids: PNG files of samples/ by step.
        divergence: of divergence.json; empty where there is none.
        starts: of starts.jsonl.
        troubles: what could not be read.
    """

    experiment: Experiment
    rows: list[dict[str, float]]
    findings: dict[str, Findings]
    sample_grids: dict[int, bytes]
    divergence: dict[str, Any]
    starts: list[dict[str, Any]]
    troubles: list[str]


def is_number(value: Any) -> bool:
    """Whether it is a number: True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Reader:
    """Reads files of one folder; what does not read is written among the troubles."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.troubles: list[str] = []

    def bytes_of(self, file: Path, most: int) -> bytes | None:
        """The content of a file, or None."""
        if not file.exists():
            return None
        try:
            return read_bounded(require_inside(file, self._run_dir), most)
        except DataError as error:
            self.troubles.append(str(error))
            return None

    def json_of(self, file: Path) -> dict[str, Any]:
        """The object in a JSON file, or an empty one."""
        content = self.bytes_of(file, MOST_TEXT)
        if content is None:
            return {}
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            self.troubles.append(f"{file} does not read: {error}")
            return {}
        return found if isinstance(found, dict) else {}

    def lines_of(self, file: Path) -> list[dict[str, Any]]:
        """The lines of a file of JSON lines that are objects with a step."""
        content = self.bytes_of(file, MOST_TEXT) or b""
        found = map(metrics_log.row_of, content.decode(errors="replace").splitlines())
        return [row for row in found if row is not None]

    def picture_of(self, file: Path) -> bytes | None:
        """The content of a PNG file, or None."""
        content = self.bytes_of(file, MOST_PICTURE)
        if content is None:
            return None
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
                is_small = picture.width * picture.height <= MOST_PIXELS
                picture.verify()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            is_small = False
        if not is_small:
            self.troubles.append(f"{file} is no picture that can be shown")
            return None
        return content

    def samples_of(self, file: Path) -> tuple[list[str], list[ByScale]]:
        """The labels and the samples by guidance scale of a file, or none."""
        if not file.exists():
            return [], []
        try:
            return by_scale.read(file, self._run_dir)
        except DataError as error:
            self.troubles.append(str(error))
            return [], []


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """A line's numbers; null stands for one that was not finite."""
    found = {name: math.nan if value is None else value for name, value in row.items()}
    return {name: value for name, value in found.items() if is_number(value) and not abs(value) > _LARGEST}


def _rows(reader: _Reader, run_dir: Path) -> list[dict[str, float]]:
    found = map(_numbers, reader.lines_of(run_dir / metrics_log.NAME))
    return sorted((row for row in found if "step" in row), key=lambda row: row["step"])


def _findings_of(reader: _Reader, folder: Path) -> Findings:
    shown = {name: reader.picture_of(folder / name) for name in PICTURES}
    others = sorted(file.name for file in folder.glob("samples-*.npz"))
    metrics, samples = reader.json_of(folder / "metrics.json"), reader.samples_of(folder / by_scale.NAME)
    return Findings(
        metrics, {name: content for name, content in shown.items() if content is not None}, others, *samples
    )


def _spread(steps: list[int], most: int) -> list[int]:
    """At most so many of the steps, evenly, the first and the last among them.

    >>> _spread([1, 2, 3, 4, 5, 6, 7], 3)
    [1, 4, 7]
    """
    if len(steps) <= most:
        return steps
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def read(run_dir: Path, most_sample_grids: int) -> Record:
    """What lies in the folder, with at most so many of the sample grids (2 or more).

    Raises:
        UserError: no run there, or a config.json that does not read.
    """
    experiment = run_folder.read_config(run_dir)
    reader = _Reader(run_dir)
    by_step = sample_grids.files(run_dir)
    drawn = {step: reader.picture_of(by_step[step]) for step in _spread(list(by_step), most_sample_grids)}
    findings = {"": _findings_of(reader, run_dir)}
    if (run_dir / "evaluation").is_dir():
        findings["evaluation"] = _findings_of(reader, run_dir / "evaluation")
    return Record(
        experiment=experiment,
        rows=_rows(reader, run_dir),
        findings=findings,
        sample_grids={step: content for step, content in drawn.items() if content is not None},
        divergence=reader.json_of(run_dir / "divergence.json"),
        starts=reader.lines_of(run_dir / launches.NAME),
        troubles=reader.troubles,
    )
