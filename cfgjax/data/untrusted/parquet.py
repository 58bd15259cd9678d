"""A Parquet file of pictures: what it declares, bounded and found to be allowed, and its rows, some at a time.

Its pictures are a column of structs of ``bytes`` and ``path``, as Hugging Face datasets writes them, with the names of
classes in the schema's metadata. A path is never followed. pyarrow before 14.0.1 could be made to run code by a file.

Source: the Parquet format, ColumnMetaData; Hugging Face datasets 5.2.0, Image and ClassLabel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.metadata import LEAVE_OUT
from cfgjax.data.untrusted.safe_files import parse_json, require_file, require_inside
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES, MOST_LABELS

_MOST_STRING, _MOST_ITEMS = 2**24, 2**20
_MOST_COLUMNS = 1_000
_MOST_GROUP = 2**36
_MOST_AT_ONCE = 2**30
_ROWS_AT_ONCE = 64
_INSTALL = "reading Parquet needs pyarrow: python -m pip install 'cfgjax[parquet]'"


class Table(NamedTuple):
    """An opened file.

    Attributes:
        file: its path.
        opened: pyarrow's ParquetFile.
        image: the column of pictures.
        columns: the others that are wanted.
        class_names: of those that are classes by the schema's metadata.
        num_rows: that it declares.
    """

    file: Path
    opened: Any
    image: str
    columns: tuple[str, ...]
    class_names: dict[str, tuple[str, ...]]
    num_rows: int


def _is_text(types: Any, kind: Any) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_picture(types: Any, kind: Any) -> bool:
    names = [kind.field(index).name for index in range(kind.num_fields)] if types.is_struct(kind) else []
    if sorted(names) != ["bytes", "path"]:
        return False
    content = kind.field("bytes").type
    return types.is_binary(content) or types.is_large_binary(content)


def _is_read(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or _is_text(types, kind)


def _image_column(file: Path, types: Any, schema: Any) -> str:
    found = [field.name for field in schema if _is_picture(types, field.type)]
    if len(found) != 1:
        what = f"several columns of pictures, {', '.join(found)}" if found else "no column of pictures"
        known = ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in list(schema)[:20])
        raise DataError(f"{file} has {what}: one must be a struct of bytes and path; its columns are {known}")
    return found[0]


def _wanted(file: Path, types: Any, schema: Any, image: str, columns: Sequence[str] | None) -> tuple[str, ...]:
    others = [name for name in schema.names if name != image]
    if len(set(schema.names)) < len(schema.names) or len(others) > _MOST_COLUMNS:
        raise DataError(f"{file} has columns of one name, or more than {_MOST_COLUMNS}")
    for name in others if columns is None else columns:
        if name not in others:
            raise DataError(f"{file} has no column {name!r}, only {', '.join(map(repr, others[:20]))}")
        kind = schema.field(name).type
        if not _is_read(types, kind):
            what = f"{file}: column {name!r} is of type {str(kind)[:60]}"
            raise DataError(f"{what}, neither text nor numbers{LEAVE_OUT}")
    return tuple(others if columns is None else columns)


def _class_names(file: Path, schema: Any) -> dict[str, tuple[str, ...]]:
    """The names of classes by column, from what Hugging Face datasets keeps in the schema's metadata."""
    content = (schema.metadata or {}).get(b"huggingface")
    if content is None:
        return {}
    try:
        features = parse_json(content)["info"]["features"]
        names = {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{file}: 'huggingface' in its metadata does not read: {_first_line(error)}") from None
    for name, its in names.items():
        is_list = isinstance(its, list) and all(isinstance(one, str) and one.isprintable() for one in its)
        if not is_list or not 0 < len(set(its)) == len(its) <= MOST_LABELS:
            raise DataError(f"{file}: the classes of {name[:100]!r} must be different names of printable letters")
    return {name: tuple(its) for name, its in names.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _rows_at_once(table: Table) -> int:
    """How many rows are unpacked together: as many as fit, were each as large as its whole group of rows.

    A group may hold one value, which its rows name again and again. pyarrow 26.0.1 knows the size of one column of a
    group, too, but ends the process where that is damaged.
    """
    declared, largest = table.opened.metadata, 1
    for group in range(declared.num_row_groups):
        size = declared.row_group(group).total_byte_size
        if not 0 <= size <= _MOST_GROUP:
            raise DataError(f"{table.file} declares a group of rows of {size} bytes, more than {_MOST_GROUP}")
        largest = max(largest, size)
    return max(1, min(_ROWS_AT_ONCE, _MOST_AT_ONCE // largest))


def open_table(file: Path, root: Path, columns: Sequence[str] | None) -> Table:
    """A file, once it is found to hold pictures and columns of text and numbers.

    Args:
        file: its path.
        root: the folder that no link may lead out of.
        columns: the names of those wanted beside the pictures; None for all.

    Raises:
        DataError: no Parquet file, none of pictures, a column that is neither text nor numbers, or pyarrow is missing.
    """
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        raise DataError(_INSTALL) from None
    require_file(require_inside(file, root))
    try:
        opened = parquet.ParquetFile(
            file,
            buffer_size=2**20,
            pre_buffer=False,
            thrift_string_size_limit=_MOST_STRING,
            thrift_container_size_limit=_MOST_ITEMS,
        )
        schema = opened.schema_arrow
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} does not read as Parquet: {_first_line(error)}") from None
    image = _image_column(file, types, schema)
    wanted = _wanted(file, types, schema, image, columns)
    names = {name: its for name, its in _class_names(file, schema).items() if name in wanted}
    num_rows = opened.metadata.num_rows
    if not 0 <= num_rows <= MOST_EXAMPLES:
        raise DataError(f"{file} declares {num_rows} rows, more than {MOST_EXAMPLES}")
    return Table(file, opened, image, wanted, names, num_rows)


def _values(array: Any) -> list[Any]:
    """The values of a column as Python's own; half precision widened."""
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return (array.cast("float32") if types.is_float16(array.type) else array).to_pylist()


def rows_of(table: Table) -> Iterator[tuple[Any, list[Any]]]:
    """The rows of a file: a dict of ``bytes`` and ``path``, or None, and the values of the other columns.

    Raises:
        DataError: rows that do not read, or other ones than declared.
    """
    from pyarrow import ArrowException

    names = (table.image, *table.columns)
    at_once, found = _rows_at_once(table), 0
    try:
        for batch in table.opened.iter_batches(at_once, columns=list(names), use_threads=False):
            found += batch.num_rows
            yield from zip(*([_values(batch.column(name)) for name in names]), strict=True)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{table.file} does not read as Parquet: {_first_line(error)}") from None
    if found != table.num_rows:
        raise DataError(f"{table.file} holds {found} rows, and declares {table.num_rows}")
