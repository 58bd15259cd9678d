"""What is said of each picture of a set, by columns: texts, numbers, or classes.

(D1) A column of integers is [n] int32, one of other numbers [n] float32, finite; one of text a tuple of n str.
(D2) A column of classes is [n] int32 in 0..K-1, with names or without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cfgjax.checks import short_repr
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.metadata import LEAVE_OUT

Column = np.ndarray | tuple[str, ...]
"""The values of all pictures: an array [n, ...], or n texts."""
Place = Callable[[int], str]
"""``index -> text``: where a row stands, for a message."""

_INTEGERS = range(-(2**31), 2**31)
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,300})")
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]{0,300})(\.[0-9]{0,300})?|\.[0-9]{1,300})([eE][+-]?[0-9]{1,5})?")
_NO_NUMBERS = frozenset({"", "nan", "na", "n/a", "none", "null", *("inf", "+inf", "-inf", "infinity", "-infinity")})
"""What programs write in a column of numbers where there is none."""


def _kind(name: str, value: Any, place: str) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    what = "no value" if value is None else f"a {type(value).__name__}, neither text nor a number"
    raise DataError(f"{place}: {name!r} is {what}{LEAVE_OUT}")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _numbers(name: str, values: Sequence[float], place: Place) -> np.ndarray:
    if all(isinstance(value, int) for value in values):
        for index, value in enumerate(values):
            if value not in _INTEGERS:
                raise DataError(f"{place(index)}: {name!r} is {short_repr(value)}, no integer of 32 bits{LEAVE_OUT}")
        return np.array(values, np.int32)
    with np.errstate(over="ignore"):
        numbers = np.array([_float(value) for value in values]).astype(np.float32)
    if not np.isfinite(numbers).all():
        index = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(f"{place(index)}: {name!r} is {short_repr(values[index])}, not finite in float32{LEAVE_OUT}")
    return numbers


def as_column(name: str, values: Sequence[Any], place: Place) -> Column:
    """The column of some values, at least one, all of text or all numbers (D1); True and False are 1 and 0.

    Raises:
        DataError: neither text nor a number, both, a number that is not finite or an integer beyond 32 bits; the
            message names the row.
    """
    first = _kind(name, values[0], place(0))
    for index, value in enumerate(values):
        kind = _kind(name, value, place(index)) if type(value) is not type(values[0]) else first
        if kind != first:
            raise DataError(f"{place(index)}: {name!r} is {kind}, and {first} at {place(0)}{LEAVE_OUT}")
    return tuple(values) if first == "text" else _numbers(name, values, place)


def parse_cells(name: str, cells: Sequence[str], place: Place) -> Sequence[Any]:
    """The cells of a column of CSV: numbers where all of them are written as such, else the texts themselves.

    Text is what begins with zeros as well, 007.

    Raises:
        DataError: a cell that says in one of many ways that it is no number, among numbers.
    """
    others = [index for index, cell in enumerate(cells) if not _NUMBER.fullmatch(cell)]
    if not others:
        return [int(cell) if _INTEGER.fullmatch(cell) else float(cell) for cell in cells]
    if len(others) < len(cells) and all(cells[index].casefold() in _NO_NUMBERS for index in others):
        raise DataError(f"{place(others[0])}: {name!r} is {cells[others[0]]!r}, no finite number{LEAVE_OUT}")
    return cells


def as_classes(name: str, column: Column, place: Place) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """A column as classes (D2): integers as they are; texts by their order among all, with the names.

    Raises:
        DataError: a number that is no integer of at least 0; a name that is empty or not printable.
    """
    if isinstance(column, np.ndarray):
        if column.dtype != np.int32:
            raise DataError(f"{place(0)}: {name!r} must be of integers or names to be a class, got {column.dtype}")
        if column.min() < 0:
            index = int(column.argmin())
            raise DataError(f"{place(index)}: {name!r} is {column[index]}, no class, which is at least 0")
        return column, None
    for index, text in enumerate(column):
        if not text or not text.isprintable() or text != text.strip():
            raise DataError(f"{place(index)}: {name!r} must be a name of printable letters, got {text[:100]!r}")
    names = tuple(sorted(set(column)))
    numbers = {each: number for number, each in enumerate(names)}
    return np.array([numbers[text] for text in column], np.int32), names


def with_classes(
    columns: dict[str, Column], label: str | None, place: Place
) -> tuple[dict[str, Column], dict[str, tuple[str, ...]]]:
    """The columns, that of the classes as integers, and its names by its own.

    Raises:
        DataError: a column that is no class; or none of that name, where it is another than "label".
    """
    if label is None or label not in columns:
        if label not in (None, "label"):
            raise DataError(
                f"{place(0)}: it has no column {label!r}, only {', '.join(map(repr, columns)) or 'nothing'}"
            )
        return columns, {}
    classes, names = as_classes(label, columns[label], place)
    return {**columns, label: classes}, {} if names is None else {label: names}
