"""Files that a stranger may have written: regular ones, inside their folder, of bounded size, saying one thing."""

from __future__ import annotations

import json
import math
import numbers
import os
import re
from pathlib import Path
from typing import Any

from cfgjax.checks import require_count, require_kind, require_str
from cfgjax.data.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")


def _require_paths(**paths: object) -> None:
    for name, path in paths.items():
        require_kind(name, path, Path, "a path, as pathlib.Path('folder') is")


def require_inside(path: Path, root: Path) -> Path:
    """The path itself, once it is found to stay inside ``root`` when every link is followed.

    Raises:
        TypeError: what are no paths.
        DataError: it leads out, or its links lead nowhere; the message names it.
    """
    _require_paths(path=path, root=root)
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


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        most: bytes that it may hold.

    Raises:
        TypeError, ValueError: no path; a number of bytes that is not whole, or negative.
        DataError: no regular file, one that cannot be read, or a longer one.
    """
    _require_paths(path=path)
    require_count("most", most, 0)
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


def parse_json(content: bytes) -> Any:
    """The value of a JSON text in UTF-8, whose objects name nothing twice and whose numbers are finite.

    Raises:
        TypeError: no bytes.
        ValueError: other bytes, in one line.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    require_kind("content", content, bytes, "bytes")
    try:
        return json.loads(content.decode(), object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_memory(what: str, num_bytes: int) -> None:
    """Raises DataError where so many bytes are more than the memory of this machine, TypeError for no number."""
    require_str("what", what)
    require_kind("num_bytes", num_bytes, numbers.Real, "a number of bytes")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if num_bytes > memory:
        raise DataError(f"{what} would take {num_bytes} bytes, more than the {memory} of this machine's memory")
