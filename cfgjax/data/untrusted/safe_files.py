"""Untrusted files: regular ones, inside their folder, of bounded size, saying one thing."""

from __future__ import annotations

import json
import math
import numbers
import os
import re
from pathlib import Path
from typing import Annotated, Any

from cfgjax.contracts import NonNegativeInt, checked, instance
from cfgjax.data.untrusted import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")


ExactPath = Annotated[Path, instance(Path, "a path, as pathlib.Path('folder') is")]
"""A Path, not its text."""


@checked
def require_inside(path: ExactPath, root: ExactPath) -> Path:
    """The path itself, once it is found to stay inside ``root`` when every link is followed.

    Raises:
        DataError: it leads out, or its links lead nowhere; the message names it.
    """
    try:
        is_inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be followed: {error}") from None
    if not is_inside:
        raise DataError(f"{path} is a link that leads out of {root}")
    return path


def require_file(path: Path) -> Path:
    """The path itself, once it is found to be a regular file: no folder, and no pipe or device that never ends.

    Raises:
        DataError: there is none, or it is something else.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if not path.is_file():
        raise DataError(f"{path} is not a regular file")
    return path


@checked
def read_bounded(path: ExactPath, most: NonNegativeInt) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        most: bytes that it may hold.

    Raises:
        DataError: no regular file, one that cannot be read, or a longer one.
    """
    require_file(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise DataError(f"{path} holds more than {most} bytes")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:100]!r} stands there twice")
        if any(
            isinstance(one, str) and _SURROGATE.search(one) for one in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"{name[:100]!r} is no text")
        found[name] = value
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


@checked
def parse_json(content: Annotated[bytes, instance(bytes, "bytes")]) -> Any:
    """The value of a JSON text in UTF-8, whose objects name nothing twice and whose numbers are finite.

    Raises:
        ValueError: other bytes, in one line.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        return json.loads(content.decode(), object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@checked
def check_memory(what: str, num_bytes: Annotated[float, instance(numbers.Real, "a number of bytes")]) -> None:
    """Raises DataError where so many bytes are more than the memory of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > memory:
        raise DataError(f"{what} would take {num_bytes} bytes, more than the {memory} of this machine's memory")
