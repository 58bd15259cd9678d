"""Pictures in Parquet files with what is said of them: one file, or a folder of shards.

SOURCE/train-00000-of-00002.parquet, SOURCE/test-00000-of-00001.parquet, or the same in SOURCE/data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, PositiveInt, checked
from cfgjax.data.columns import Column, as_column, with_classes
from cfgjax.data.conditioned_images import WHOLE, ConditionedImages, stack
from cfgjax.data.listing import SPLITS, Remark
from cfgjax.data.picture_files import MOST_BYTES, decode_picture
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.parquet import Table, open_table, rows_of
from cfgjax.data.untrusted.safe_files import check_memory

_SHARD = re.compile(r"(?P<name>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})(-[0-9a-f]{1,64})?")
_WITHOUT = (
    "holds no pictures, only their paths, as Dataset.to_parquet of datasets writes pictures that it has from files: "
    "embed them (datasets.table.embed_table_storage) before it"
)


class _Shard(NamedTuple):
    name: str
    index: int
    count: int
    file: Path


def _shard(file: Path) -> _Shard:
    found = _SHARD.fullmatch(file.stem)
    if found is None:
        return _Shard(file.stem, 0, 1, file)
    return _Shard(found["name"], int(found["index"]), int(found["count"]), file)


def _inside(source: Path) -> list[Path]:
    """The Parquet files in a folder, or in its folder ``data``."""
    for folder in (source, source / "data"):
        files = sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))
        if files:
            return files
    return []


@checked
def holds_parquet(source: PathLike) -> bool:
    """Whether a source is a Parquet file, or a folder with some in it or in its folder ``data``."""
    source = Path(source)
    return bool(_inside(source)) if source.is_dir() else source.suffix == ".parquet"


def _files(source: Path) -> list[Path]:
    """The Parquet files of a source."""
    if not source.is_dir():
        if _shard(source).count > 1:
            raise DataError(f"{source} is one of {_shard(source).count} shards: give their folder")
        return [source]
    files = _inside(source)
    if not files:
        raise DataError(f"source {source} holds no .parquet")
    return files


def _require_whole(name: str, shards: list[_Shard]) -> None:
    """Raises DataError where a shard is missing, or there twice."""
    count = shards[0].count
    if sorted((shard.index, shard.count) for shard in shards) != [(index, count) for index in range(count)]:
        is_there = {shard.index for shard in shards}
        missing = next((index for index in range(count) if index not in is_there), None)
        what = f"shard {missing} is missing" if missing is not None else "shards of several numbers, or one twice"
        raise DataError(f"{shards[0].file.parent}: of the {count} shards of {name!r}, {what}")


def _splits(source: Path) -> dict[str, list[Path]]:
    """The files of each split, in order."""
    shards: dict[str, list[_Shard]] = {}
    for file in _files(source):
        shard = _shard(file)
        shards.setdefault(shard.name, []).append(shard)
    for name, its in shards.items():
        _require_whole(name, its)
    if len(shards) > 1 and not SPLITS.issuperset(shards):
        other = min(name for name in shards if name not in SPLITS)
        raise DataError(
            f"source {source} holds {other!r} beside others; of splits only {', '.join(sorted(SPLITS))} are known"
        )
    return {
        name if name in SPLITS else WHOLE: [shard.file for shard in sorted(its, key=lambda one: one.index)]
        for name, its in shards.items()
    }


def _require_alike(tables: Sequence[Table]) -> None:
    """Raises DataError for files of other columns or classes than the first one."""
    first = tables[0]
    for table in tables[1:]:
        for what, mine, its in (
            ("pictures", table.image, first.image),
            ("columns", sorted(table.columns), sorted(first.columns)),
            ("classes", table.class_names, first.class_names),
        ):
            if mine != its:
                raise DataError(
                    f"{table.file} has other {what} than {first.file}: {str(mine)[:80]}, not {str(its)[:80]}"
                )


class _Rows:
    """What is told beside the pictures, gathered while these are decoded."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in tables[0].columns}
        self.places: list[tuple[Path, int]] = []
        self.file_names: list[str] = []
        self._texts: dict[str, str] = {}
        self._size = 0

    def add(self, table: Table, number: int, path: str | None, values: Sequence[Any]) -> None:
        """Keeps a row, equal texts once."""
        self.places.append((table.file, number))
        self.file_names.append(self._once(path or f"{table.file.name}/{number}"))
        for name, value in zip(table.columns, values, strict=True):
            self.columns[name].append(self._once(value))

    def _once(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in self._texts:
            self._size += len(value)
            check_memory("the texts of the source", self._size)
        return self._texts.setdefault(value, value)

    def place(self, index: int) -> str:
        """Where a row stands."""
        file, number = self.places[index]
        return f"{file}, row {number}"


def _content(place: str, picture: dict[str, Any] | None) -> bytes:
    content = None if picture is None else picture["bytes"]
    if content is None:
        raise DataError(f"{place}: {_WITHOUT}")
    if len(content) > MOST_BYTES:
        raise DataError(f"{place}: its picture holds more than {MOST_BYTES} bytes")
    return content


def _decoded(tables: Sequence[Table], rows: _Rows, image_size: int | None) -> Iterator[tuple[Path, np.ndarray]]:
    for table in tables:
        for number, (picture, *values) in enumerate(rows_of(table)):
            place = f"{table.file}, row {number}"
            content = _content(place, picture)
            try:
                pixels = decode_picture(content, image_size)
            except DataError as error:
                raise DataError(f"picture of {place} does not read: {error}") from None
            rows.add(table, number, picture["path"], values)
            yield Path(place), pixels


def _require_classes(rows: _Rows, columns: dict[str, Column], class_names: dict[str, tuple[str, ...]]) -> None:
    """Raises DataError for a class that has no name."""
    for name, names in class_names.items():
        column = columns[name]
        if not isinstance(column, np.ndarray) or column.dtype != np.int32:
            raise DataError(f"{rows.place(0)}: {name!r} must be of integers, as its classes have names")
        if column.min() < 0 or column.max() >= len(names):
            index = int(np.flatnonzero((column < 0) | (column >= len(names)))[0])
            raise DataError(f"{rows.place(index)}: {name!r} is {column[index]}, of 0..{len(names) - 1}")


@checked
def read_parquet(
    source: PathLike,
    image_size: PositiveInt | None = None,
    columns: tuple[str, ...] | None = None,
    label: str = "label",
) -> tuple[dict[str, ConditionedImages], list[Remark]]:
    """The pictures of Parquet files with the other columns, in the order of the rows.

    Args:
        source: a file, or a folder of files.
        image_size: side of the square that every picture is cut and resized to; by default all must have one size.
        columns: the names of those to be read beside the pictures; by default all.
        label: the column of classes, if there is one: integers, or names, whose order gives the integers. Columns whose
            classes have names in the schema's metadata keep these.

    Returns:
        The images of each split, of ``all`` where there are none (``hold_out`` makes them); what is to be told of
        colours among gray pictures.

    Raises:
        DataError: pyarrow is missing; a file that does not read, or without pictures, or with their paths alone; a
            shard that is missing; values that are neither text nor finite numbers. The message names file and row.
    """
    source = Path(source)
    root = source if source.is_dir() else source.parent
    splits = {name: [open_table(file, root, columns) for file in files] for name, files in _splits(source).items()}
    tables = [table for its in splits.values() for table in its]
    _require_alike(tables)
    count, rows = sum(table.num_rows for table in tables), _Rows(tables)
    if count == 0:
        raise DataError(f"source {source} holds no row")
    pixels, remarks = stack(f"source {source}", count, _decoded(tables, rows, image_size))
    read = {name: as_column(name, values, rows.place) for name, values in rows.columns.items()}
    class_names = tables[0].class_names
    _require_classes(rows, read, class_names)
    read, more_names = with_classes(read, label, rows.place)
    images = ConditionedImages(pixels, read, {**class_names, **more_names}, tuple(rows.file_names), np.arange(count))
    return _taken_apart(images, splits), remarks


def _taken_apart(images: ConditionedImages, splits: dict[str, list[Table]]) -> dict[str, ConditionedImages]:
    found, start = {}, 0
    for name, tables in splits.items():
        stop = start + sum(table.num_rows for table in tables)
        found[name] = images.take(range(start, stop))
        start = stop
    return found
