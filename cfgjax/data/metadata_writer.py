"""Images with what is said of them, written as a folder that ``read_metadata_folder`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cfgjax.contracts import PathLike, checked, instance
from cfgjax.data.columns import Column
from cfgjax.data.conditioned_images import ConditionedImages
from cfgjax.data.embeddings import EMBEDDINGS, MASK
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.image_decoding import encode_png
from cfgjax.data.untrusted.metadata import FILE_NAME, MOST_LINE

STORED = "embeddings.npz"
"""The file of stored embeddings."""
_LEAST_DIGITS = 5


def _cells(column: Column, names: tuple[str, ...] | None) -> list[Any]:
    """The values of a column as JSON has them: classes by their names, numbers by the shortest that is read as they."""
    if not isinstance(column, np.ndarray):
        return list(column)
    if names is not None:
        return [names[number] for number in column.tolist()]
    return column.tolist() if column.dtype == np.int32 else [float(str(value)) for value in column]


def _lines(images: ConditionedImages, file_names: list[str]) -> list[str]:
    told = {name: column for name, column in images.columns.items() if name not in (EMBEDDINGS, MASK)}
    if FILE_NAME in told:
        raise DataError(f"the images have a column {FILE_NAME!r} of their own; columns=... leaves it out")
    cells = {FILE_NAME: file_names} | {
        name: _cells(column, images.class_names.get(name)) for name, column in told.items()
    }
    lines = []
    for index, row in enumerate(zip(*cells.values(), strict=True)):
        lines.append(json.dumps(dict(zip(cells, row, strict=True)), ensure_ascii=False, allow_nan=False))
        if len(lines[-1].encode()) >= MOST_LINE:
            raise DataError(f"{images.file_name[index]}: what is said of it holds more than {MOST_LINE} bytes")
    return lines


def _write_split(folder: Path, images: ConditionedImages) -> list[str]:
    """Writes the pictures and the metadata of a split, and returns the names of the files."""
    folder.mkdir()
    digits = max(_LEAST_DIGITS, len(str(len(images.pixels) - 1)))
    names = [f"{index:0{digits}d}.png" for index in range(len(images.pixels))]
    lines = _lines(images, names)
    for name, pixels in zip(names, images.pixels, strict=True):
        (folder / name).write_bytes(encode_png(pixels))
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return names


@checked
def write_metadata_folder(
    folder: PathLike,
    images: Annotated[dict, instance(dict, "a dict of ConditionedImages by split, as a reader gives it")],
) -> None:
    """Writes the images of each split as SPLIT/00000.png, ..., with a SPLIT/metadata.jsonl, in their order.

    ``read_metadata_folder`` gives them back. Classes that have names are written by these; stored embeddings, with the
    pictures' paths, into embeddings.npz, which ``read_embeddings`` reads.

    Args:
        folder: an empty one.
        images: by split.

    Raises:
        DataError: a column of the name ``file_name``; more said of a picture than a line may hold.
        OSError: it cannot be written.
    """
    folder, paths = Path(folder), []
    for split, its in images.items():
        paths += [f"{split}/{name}" for name in _write_split(folder / split, its)]
    names = [name for name in (EMBEDDINGS, MASK) if all(name in its.columns for its in images.values())]
    arrays: dict[str, Any] = {name: np.concatenate([its.columns[name] for its in images.values()]) for name in names}
    if arrays:
        np.savez(folder / STORED, allow_pickle=False, **arrays, file_name=np.array(paths))
