"""A folder of pictures with metadata: written from what the user has, and what it holds, in words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cfgjax import data
from cfgjax.data import ConditionedImages, Remark
from cfgjax.data.columns import Column
from cfgjax.data.metadata_folder import describe_folder
from cfgjax.data.picture_files import read_picture
from experiments.cli.main import UserError, plain
from experiments.run.drafts import whole_folder
from experiments.tasks.summary import CHANNELS
from experiments.tasks.texts import words_of

PRESET = "conditioned_images"
"""That trains on such a folder."""
STORED = "embeddings.npz", "embeddings.safetensors"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST_SHOWN = 20
_ORDER = ("train", "test", "validation", "all")
Reader = Callable[..., tuple[dict[str, ConditionedImages], list[Remark]]]


def reader_of(source: Path) -> Reader | None:
    """What reads a source of pictures with metadata; None for one of another kind."""
    if data.holds_metadata(source):
        return data.read_metadata_folder
    return data.read_parquet if data.holds_parquet(source) else None


def is_there(name: str, data_dir: Path) -> bool:
    """Whether a folder of this name, of a data set, is one of pictures with metadata."""
    return data.holds_metadata(data_dir / name)


def _in_splits(images: dict[str, ConditionedImages]) -> dict[str, ConditionedImages]:
    """The splits of a source; of one alone a part is held out."""
    return data.hold_out(*images.values()) if len(images) == 1 else images


def write(
    name: str,
    data_dir: Path,
    source: Path,
    image_size: int | None,
    columns: tuple[str, ...] | None,
    embeddings: Path | None,
) -> list[Remark]:
    """Writes data_dir/name, whole or not at all, from a source that ``reader_of`` knows.

    Args:
        name: what to call it.
        data_dir: the folder of prepared data sets.
        source: a folder with metadata, a Parquet file, or a folder of these.
        image_size: side of the square that every picture is cut and resized to.
        columns: those that are kept; None for all.
        embeddings: a file of stored embeddings, by file_name or in the order of the source's rows.

    Returns:
        What is to be told of the source's files.

    Raises:
        DataError: a source that does not read.
        UserError: a name that is none, or of a folder that holds something else.
    """
    read, folder = reader_of(source), data_dir / name
    if read is None:
        raise UserError(f"source {source} holds no metadata.csv, metadata.jsonl or .parquet")
    if not _NAME.fullmatch(name):
        raise UserError(f"name must be of small letters, digits and underscores, got {name!r}")
    if folder.exists() and any(data.require_inside(folder, data_dir).iterdir()):
        raise UserError(f"{folder} holds something else; remove it, or give another name")
    images, remarks = read(source, image_size, columns)
    if embeddings is not None:
        images = data.join_embeddings(images, data.read_embeddings(embeddings))
    with whole_folder(folder) as draft:
        data.write_metadata_folder(draft, _in_splits(images))
        describe_folder(draft, None, "label")  # what no run could read is not left there
    return remarks


def _of_text(column: tuple[str, ...]) -> str:
    counts = np.array([len(words_of(text)) for text in column])
    vocabulary = {word for text in column for word in words_of(text)}
    low, middle, high = counts.min(), np.median(counts), counts.max()
    return f"texts of {low} to {high} words, half of them up to {middle:g}; {len(vocabulary)} different words"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")


def _of_column(column: Column, class_names: tuple[str, ...] | None, is_label: bool) -> str:
    if not isinstance(column, np.ndarray):
        return _of_text(column)
    if class_names is not None:
        counts = np.bincount(column, minlength=len(class_names))
        least = int(np.argmin(counts))
        return f"{len(counts)} classes, the smallest {class_names[least]} with {counts[least]}: {_listed(class_names)}"
    if is_label:
        return f"classes in 0..{column.max()}, {len(np.unique(column))} of them"
    kind = "integers" if column.dtype == np.int32 else "numbers"
    return f"{kind} from {column.min():.4g} to {column.max():.4g}, of mean {column.mean(dtype=np.float64):.4g}"


def _command(name: str, data_dir: Path, columns: dict[str, Column], stored: str | None) -> str:
    """The command line that trains on all there is: the first texts, the label, all numbers."""
    texts = [each for each, column in columns.items() if not isinstance(column, np.ndarray)]
    numbers = [each for each, column in columns.items() if isinstance(column, np.ndarray) and each != "label"]
    words = ["--data.folder", name]
    words += ["--data-dir", str(data_dir)] if data_dir != Path("data") else []
    words += ["--data.label", "label"] if "label" in columns else []
    words += ["--data.numbers", *numbers] if numbers else []
    if stored is not None:
        words += ["--data.embeddings", stored]
    elif texts:
        words += ["--data.text", texts[0]]
    return f"python -m experiments.train {PRESET} {shlex.join([*words, '--run-dir', f'runs/{name}'])}"


def lines_of(name: str, data_dir: Path) -> list[str]:
    """What a folder holds: pictures, splits, what each column says, and how to train on it.

    Raises:
        DataError: it does not read.
    """
    folder = data.require_inside(data_dir / name, data_dir)
    found = describe_folder(folder, None, "label")
    height, width, channels = read_picture(found.pictures[0], None).shape
    splits = sorted(found.splits, key=_ORDER.index)
    counts = ", ".join(f"{split} {len(found.splits[split])}" for split in splits)
    lines = [f"{len(found.pictures)} pictures of {height} x {width}, {CHANNELS[channels]}: {counts}"]
    if len(splits) == 1:
        lines.append("every tenth is held out")
    for each, column in found.columns.items():
        lines.append(f"{each}: {_of_column(column, found.class_names.get(each), each == 'label')}")
    stored = next((file for file in STORED if (folder / file).is_file()), None)
    if stored is not None:
        shape = data.read_embeddings(folder / stored, data_dir).values.shape
        lines.append(f"{stored}: embeddings of shape {' x '.join(map(str, shape[1:]))}")
    return [*lines, f"train on it: {_command(name, data_dir, found.columns, stored)}"]


def tell(name: str, data_dir: Path) -> None:
    """Prints what a folder holds.

    Raises:
        DataError: it does not read.
    """
    for line in lines_of(name, data_dir):
        print(f"  {plain(line)}")
