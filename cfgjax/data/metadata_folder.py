"""A folder of pictures with a row of metadata.jsonl or metadata.csv for each: conditions of text and numbers.

SOURCE/metadata.jsonl tells of SOURCE/0.png, SOURCE/more/1.png; SOURCE/train/metadata.jsonl of SOURCE/train/0.png. A row
has ``file_name``, the path from its file's folder, and the same columns as all others. Pictures in SOURCE/train,
SOURCE/test and SOURCE/validation are splits; other folders have no meaning of their own.

Source: the layout of Hugging Face datasets' ImageFolder, where metadata.csv and metadata.jsonl tell of pictures.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.columns import Column, as_column, parse_cells, with_classes
from cfgjax.data.conditioned_images import WHOLE, ConditionedImages, stack
from cfgjax.data.listing import OTHER, SPLITS, SUFFIXES, LeftOut, Remark, children_of
from cfgjax.data.picture_files import read_picture
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.metadata import Row, read_rows
from cfgjax.data.untrusted.safe_files import require_file, require_inside

NAMES = ("metadata.csv", "metadata.jsonl")
_LINKS = "left out, links of folders"


@checked
def holds_metadata(source: PathLike) -> bool:
    """Whether a folder has metadata.csv or metadata.jsonl in it, or in a folder of a split."""
    folders = (Path(source), *(Path(source, split) for split in SPLITS))
    return any((folder / name).is_file() for folder in folders for name in NAMES)


class _Found(NamedTuple):
    pictures: list[Path]
    metadata: list[Path]
    left_out: list[Remark]


def _walk(source: Path) -> _Found:
    """The pictures and the metadata under a folder, both in order."""
    left_out: LeftOut = defaultdict(list)
    pictures, metadata, folders = [], [], [source]
    while folders:
        for child in children_of(folders.pop(), left_out):
            if child.is_dir():
                (left_out[_LINKS] if child.is_symlink() else folders).append(child)
            elif child.name in NAMES:
                metadata.append(child)
            elif child.suffix.lower() in SUFFIXES:
                pictures.append(require_file(require_inside(child, source)))
            else:
                left_out[OTHER].append(child)
    remarks = [Remark(what, tuple(sorted(files))) for what, files in left_out.items() if files]
    return _Found(sorted(pictures), sorted(metadata), remarks)


def _require_found(source: Path, found: _Found) -> None:
    if not found.metadata:
        raise DataError(f"source {source} holds no {' or '.join(NAMES)}")
    if not found.pictures:
        raise DataError(f"source {source} holds no picture ({', '.join(sorted(SUFFIXES))})")
    if len({file.name for file in found.metadata}) > 1:
        one = {file.name: file for file in found.metadata}
        raise DataError(f"source {source} holds both {one[NAMES[0]]} and {one[NAMES[1]]}; keep one kind")


class _Table:
    """The rows by picture, filled file by file."""

    def __init__(self, found: _Found, columns: Sequence[str] | None) -> None:
        self.rows: list[Row | None] = [None] * len(found.pictures)
        self.is_in_row_order = True
        self._index = {picture: index for index, picture in enumerate(found.pictures)}
        self._wanted = None if columns is None else list(columns)
        self._first: Row | None = None
        self._last = -1

    def add(self, file: Path, row: Row) -> None:
        """Puts a row beside its picture."""
        index = self._index_of(file, row)
        before = self.rows[index]
        if before is not None:
            raise DataError(f"{row.place}: file_name {row.file_name[:200]!r} has a row already, {before.place}")
        self.rows[index] = row._replace(values=self._columns_of(row))
        self.is_in_row_order &= index > self._last
        self._last = index

    def _index_of(self, file: Path, row: Row) -> int:
        shown = f"{row.place}: file_name {row.file_name[:200]!r}"
        path = PurePosixPath(row.file_name)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{shown} leads out of its folder")
        picture = Path(file.parent, path)
        if picture in self._index:
            return self._index[picture]
        if not os.path.lexists(picture):
            raise DataError(f"{shown} does not exist")
        raise DataError(f"{shown} is none of the pictures: another kind of file, hidden, or in a link of a folder")

    def _columns_of(self, row: Row) -> dict[str, object]:
        """The values of the columns that are wanted: those of the first row where nothing is said."""
        first = self._first = self._first or row
        wanted = self._wanted or list(first.values)
        why = f"as {first.place} has" if self._wanted is None else "which is asked for"
        lacking = [name for name in wanted if name not in row.values]
        others = [] if self._wanted else [name for name in row.values if name not in first.values]
        if lacking:
            known = ", ".join(map(repr, list(row.values)[:20])) or "nothing"
            raise DataError(f"{row.place}: it has no column {lacking[0]!r}, {why}, only {known}")
        if others:
            raise DataError(f"{row.place}: it has a column {others[0]!r}, and {first.place} has none")
        return {name: row.values[name] for name in wanted}


def _read_rows(source: Path, found: _Found, columns: Sequence[str] | None) -> tuple[list[Row], bool]:
    """The rows in the order of the pictures, and whether they stand so in their files."""
    table = _Table(found, columns)
    for file in found.metadata:
        for row in read_rows(file, source):
            table.add(file, row)
    without = [picture for picture, row in zip(found.pictures, table.rows, strict=True) if row is None]
    if without:
        count = f" ({len(without)} have none)" if len(without) > 1 else ""
        raise DataError(f"picture {without[0]} has no row in {found.metadata[0].name}{count}")
    return [row for row in table.rows if row is not None], table.is_in_row_order


def _columns(rows: list[Row], is_csv: bool) -> dict[str, Column]:
    def place(index: int) -> str:
        return rows[index].place

    columns = {}
    for name in rows[0].values:
        values = [row.values[name] for row in rows]
        columns[name] = as_column(name, parse_cells(name, values, place) if is_csv else values, place)
    return columns


def _splits(source: Path, pictures: list[Path]) -> dict[str, list[int]]:
    """The pictures of each split, by their indices."""
    first = [picture.relative_to(source).parts[:-1][:1] for picture in pictures]
    names = [parts[0] if parts and parts[0] in SPLITS else WHOLE for parts in first]
    if WHOLE in names and len(set(names)) > 1:
        beside, known = pictures[names.index(WHOLE)], ", ".join(sorted(SPLITS))
        raise DataError(f"source {source} has split folders ({known}), and {beside} beside them")
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        rows.setdefault(name, []).append(index)
    return rows


class Described(NamedTuple):
    """A folder of pictures by what is told of them, before one is read.

    Attributes:
        pictures: the files, in the order of their paths.
        splits: their indices, by split.
        columns: what is said of them.
        class_names: of the columns of classes that have names.
        is_in_row_order: whether the rows of the metadata have the pictures' order.
        left_out: what is to be told of other files.
    """

    pictures: list[Path]
    splits: dict[str, list[int]]
    columns: dict[str, Column]
    class_names: dict[str, tuple[str, ...]]
    is_in_row_order: bool
    left_out: list[Remark]


def describe_folder(source: Path, columns: Sequence[str] | None, label: str | None) -> Described:
    """What metadata.jsonl or metadata.csv tells of the pictures of a folder; see ``read_metadata_folder``."""
    if not source.is_dir():
        raise DataError(f"source {source} is not a folder")
    found = _walk(source)
    _require_found(source, found)
    splits = _splits(source, found.pictures)
    rows, is_in_row_order = _read_rows(source, found, columns)
    read = _columns(rows, found.metadata[0].suffix == ".csv")
    read, names = with_classes(read, label, lambda index: rows[index].place)
    return Described(found.pictures, splits, read, names, is_in_row_order, found.left_out)


@checked
def read_metadata_folder(
    source: PathLike,
    image_size: PositiveInt | None = None,
    columns: tuple[str, ...] | None = None,
    label: str | None = "label",
) -> tuple[dict[str, ConditionedImages], list[Remark]]:
    """The pictures of a folder with what metadata.jsonl or metadata.csv tells of them, in the order of their paths.

    Args:
        source: the folder.
        image_size: side of the square that every picture is cut and resized to; by default all must have one size.
        columns: the names of those to be read; by default all.
        label: the column of classes, if there is one: integers, or names, whose order gives the integers. None for no
            classes.

    Returns:
        The images of each split, of ``all`` where there are none (``hold_out`` makes them); what is to be told of the
        files that are left out, and of colours among gray pictures.

    Raises:
        DataError: a picture without a row, a row without a picture, twice there, or of other columns; values that are
            neither text nor finite numbers; files that do not read, or lie elsewhere. The message names file and line.
    """
    source = Path(os.path.abspath(source))  # noqa: PTH100
    described = describe_folder(source, columns, label)
    count = len(described.pictures)
    decoded = ((picture, read_picture(picture, image_size)) for picture in described.pictures)
    pixels, remarks = stack(f"source {source}", count, decoded)
    files = tuple(picture.relative_to(source).as_posix() for picture in described.pictures)
    row = np.arange(count) if described.is_in_row_order else None
    images = ConditionedImages(pixels, described.columns, described.class_names, files, row)
    return {split: images.take(its) for split, its in described.splits.items()}, described.left_out + remarks
