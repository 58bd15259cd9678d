"""The rows of metadata.jsonl and metadata.csv: UTF-8, one row for each picture, bounded, read line by line.

Source: the layout of Hugging Face datasets' ImageFolder; RFC 4180 for CSV.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import parse_json, require_file, require_inside

MOST_LINE = 2**20
"""Bytes of a line."""
MOST_COLUMNS = 1_000
FILE_NAME = "file_name"
"""The column that names the picture."""
LEAVE_OUT = "; columns=... leaves it out"
"""What to do with a column that does not read."""


class Row(NamedTuple):
    """One row: where it stands, the picture that it names, and its other values by column."""

    place: str
    file_name: str
    values: dict[str, Any]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text, from 1, without the mark of byte order that some programs put before it."""
    number = 0
    try:
        with file.open("rb") as stream:
            while content := stream.readline(MOST_LINE + 1):
                number += 1
                if len(content) > MOST_LINE:
                    raise DataError(f"{file}, line {number}: it holds more than {MOST_LINE} bytes")
                yield number, content.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file}, line {number}: it is not text in UTF-8") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def _require_names(place: str, names: list[str]) -> None:
    """Raises DataError for names of columns that are too many, twice, or not of printable letters."""
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{place}: it has {len(names)} columns, more than {MOST_COLUMNS}")
    for name in names:
        if not name or not name.isprintable() or name != name.strip() or len(name) > 200:
            raise DataError(
                f"{place}: column {name[:100]!r} must have a name of printable letters, without spaces around"
            )


def _parsed(place: str, line: str) -> dict[str, Any]:
    try:
        row = parse_json(line.encode())
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: it is no JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise DataError(f"{place}: it is no JSON that is read: {str(error)[:200]}") from None
    if not isinstance(row, dict):
        raise DataError(f'{place}: it is no JSON object, as {{"{FILE_NAME}": "0.png", "text": "a seven"}} is')
    return row


def _of_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(file):
        if line.strip():
            place = f"{file}, line {number}"
            values = _parsed(place, line)
            _require_names(place, list(values))
            yield place, values


def _of_csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, each with the line where it begins: text in quotes may hold line ends."""
    reader = csv.reader((line for _, line in _lines(file)), strict=True)
    names: list[str] = []
    while True:
        place = f"{file}, line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{place}: it is no CSV: {error}") from None
        if cells is None:
            return
        if not names:
            names = cells
            _require_names(place, names)
            if len(set(names)) < len(names):
                raise DataError(f"{place}: a column stands there twice, of {', '.join(map(repr, names[:20]))}")
        elif cells and len(cells) != len(names):
            raise DataError(f"{place}: it has {len(cells)} values, and the first line {len(names)} columns")
        elif cells:
            yield place, dict(zip(names, cells, strict=True))


def _row(place: str, values: dict[str, Any]) -> Row:
    file_name = values.pop(FILE_NAME, None)
    if not isinstance(file_name, str) or not file_name:
        known = ", ".join(map(repr, list(values)[:20])) or "nothing"
        raise DataError(f"{place}: it has no {FILE_NAME}, the path of a picture beside it, only {known}")
    return Row(place, file_name, values)


def read_rows(file: Path, root: Path) -> Iterator[Row]:
    """The rows of a file, in their order; the values of .jsonl as JSON has them, those of .csv as text.

    Args:
        file: metadata.jsonl or metadata.csv.
        root: the folder that no link may lead out of.

    Raises:
        DataError: a line that is too long, no UTF-8, or no JSON object or row of CSV; a name of a column that is twice
            there, or not printable; a row without ``file_name``. The message names the file and the line.
    """
    require_file(require_inside(file, root))
    for place, values in _of_csv(file) if file.suffix == ".csv" else _of_jsonl(file):
        yield _row(place, values)
