"""A NumPy array on disk by its header, which is bounded and read as data alone.

Source: NumPy enhancement proposal 1, the .npy format.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import require_file, require_inside

_MOST_HEADER = 10_000
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Header(NamedTuple):
    """What stands before the numbers: shape, whether the first axis runs fastest, type, and where they begin."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    start: int


def read_header(stream: Any) -> Header:
    """Shape, order, type, and where the numbers begin, of an array of numbers.

    Raises:
        ValueError: another kind of file, an archive or a pickle among them; a header of more than 10,000 bytes; or
            what is no array of numbers.
    """
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"it is of version {version}, not 1.0 or 2.0")
    start = stream.tell()
    num_bytes = int.from_bytes(stream.read(2 * version[0]), "little")
    if num_bytes > _MOST_HEADER:
        raise ValueError(f"its header has {num_bytes} bytes, more than {_MOST_HEADER}")
    stream.seek(start)
    shape, is_fortran, dtype = _READERS[version](stream, max_header_size=_MOST_HEADER)
    if dtype.hasobject or dtype.names or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"it is of type {dtype} and shape {shape}, no array of numbers")
    return Header(shape, is_fortran, dtype, stream.tell())


def num_bytes_of(header: Header) -> int:
    """How many bytes of numbers a header promises."""
    return math.prod(header.shape) * header.dtype.itemsize


def require_bytes(found: int, header: Header) -> None:
    """Raises ValueError for another number of bytes than a header promises."""
    promised = num_bytes_of(header)
    if found != promised:
        raise ValueError(f"it holds {found} bytes of numbers, not the {promised} of its shape")


def array_of(header: Header, content: bytes) -> np.ndarray:
    """The array of the bytes that follow a header.

    Raises:
        ValueError: another number of bytes than it promises.
    """
    require_bytes(len(content), header)
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


def open_array(file: Path, root: Path) -> np.ndarray:
    """The array of numbers in a .npy file, mapped, not read, into memory.

    Args:
        file: the file.
        root: the folder that no link may lead out of.

    Raises:
        DataError: another kind of file, an archive or a pickle among them; an empty one, or of another length than its
            header says.
    """
    try:
        with require_file(require_inside(file, root)).open("rb") as stream:
            shape, is_fortran, dtype, start = read_header(stream)
        found, promised = file.stat().st_size - start, math.prod(shape) * dtype.itemsize
        if found != promised:
            raise ValueError(f"it holds {found} bytes of numbers, not the {promised} of its shape {shape}")
        if promised == 0:
            raise ValueError("it is empty")
        return np.memmap(file, dtype, "r", start, shape, "F" if is_fortran else "C")
    except DataError as error:
        raise DataError(f"{file} does not read as an array: {error}") from None
    except Exception as error:  # NumPy reads a header as Python's literals, whose errors are of many types
        raise DataError(
            f"{file} does not read as an array: {(str(error).splitlines() or ['empty'])[0][:300]}"
        ) from None
