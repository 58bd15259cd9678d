"""The arrays of a .npz file: a zip of .npy files, each unpacked as far as its header promises, none of them a pickle.

A large array can be read in parts.

Source: numpy.savez and savez_compressed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npy import Header, array_of, num_bytes_of, read_header, require_bytes
from cfgjax.data.untrusted.safe_files import check_memory, require_file, require_inside

_MOST_ARRAYS = 1_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _header(info: zipfile.ZipInfo, stream: Any) -> Header:
    """The header of an array, once the archive says that as many bytes follow as it promises."""
    if info.compress_type not in _METHODS:
        raise ValueError("it is packed in another way than NumPy's")
    header = read_header(stream)
    require_bytes(info.file_size - header.start, header)
    return header


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        header = _header(info, stream)
        promised = num_bytes_of(header)
        check_memory(f"array {info.filename!r}", promised)
        return array_of(header, stream.read(promised + 1))


@contextmanager
def _told(file: Path) -> Iterator[list[str]]:
    """What goes wrong inside becomes a DataError about the last of these names, the file's at first."""
    shown = [str(file)]
    try:
        yield shown
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # zipfile, zlib and NumPy's reading of literals raise errors of many types
        raise DataError(f"{shown[-1]} does not read: {(str(error).splitlines() or ['empty'])[0][:300]}") from None


def _infos(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """What the archive holds, by the arrays' names."""
    infos, found = archive.infolist(), {}
    if len(infos) > _MOST_ARRAYS:
        raise ValueError(f"it holds {len(infos)} arrays, more than {_MOST_ARRAYS}")
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"array {name!r} stands there twice")
        found[name] = info
    return found


def names_in_npz(file: Path, root: Path) -> set[str]:
    """The names of the arrays in a file.

    Raises:
        DataError: no .npz.
    """
    require_file(require_inside(file, root))
    with _told(file), zipfile.ZipFile(file) as archive:
        return set(_infos(archive))


def read_npz(file: Path, root: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of some names in a file, of those that are there.

    Args:
        file: the file.
        root: the folder that no link may lead out of.
        names: of the arrays that are wanted; the others are not looked at.

    Raises:
        DataError: no .npz, or an array that is none of numbers or text, cut off, or larger than memory; the message
            names file and array.
    """
    require_file(require_inside(file, root))
    found: dict[str, np.ndarray] = {}
    with _told(file) as shown, zipfile.ZipFile(file) as archive:
        for name, info in _infos(archive).items():
            if name in names:
                shown.append(f"array {name!r} of {file}")
                found[name] = _array(archive, info)
    return found


class Rows(NamedTuple):
    """An array in parts along its first axis, which are read as they are asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Iterator[np.ndarray]


def stream_npz(file: Path, root: Path, name: str, num_rows: int) -> Rows:
    """One array in a file, in parts of ``num_rows`` rows.

    Args:
        file: the file.
        root: the folder that no link may lead out of.
        name: of the array.
        num_rows: of a part, but for the last one.

    Raises:
        DataError: no .npz, no such array in it, or one that is none of numbers, or whose first axis runs fastest; when
            a part is asked for, also one that is cut off.
    """
    require_file(require_inside(file, root))
    shown_name = f"array {name!r} of {file}"
    with _told(file) as shown, zipfile.ZipFile(file) as archive:
        info = _infos(archive).get(name)
        shown.append(shown_name)
        if info is None:
            raise ValueError("there is none")
        with archive.open(info) as stream:
            header = _header(info, stream)
        if header.is_fortran or not header.shape:
            raise ValueError("it is not stored row by row: save np.ascontiguousarray(array)")

    def parts() -> Iterator[np.ndarray]:
        with _told(file) as shown, zipfile.ZipFile(file) as archive, archive.open(info) as stream:
            shown.append(shown_name)
            read_header(stream)
            for start in range(0, header.shape[0], num_rows):
                part = header._replace(shape=(min(num_rows, header.shape[0] - start), *header.shape[1:]))
                yield array_of(part, stream.read(num_bytes_of(part)))

    return Rows(header.shape, header.dtype, parts())
