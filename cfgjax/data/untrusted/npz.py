"""The arrays of a .npz file: a zip of .npy files, each unpacked as far as its header promises, none of them a pickle.

Source: numpy.savez and savez_compressed.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.npy import read_header
from cfgjax.data.untrusted.safe_files import check_memory, require_file, require_inside

_MOST_ARRAYS = 1_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in _METHODS:
        raise ValueError("it is packed in another way than NumPy's")
    with archive.open(info) as stream:
        header = read_header(stream)
        promised = math.prod(header.shape) * header.dtype.itemsize
        if info.file_size != header.start + promised:
            raise ValueError(
                f"it holds {info.file_size - header.start} bytes of numbers, not the {promised} of its shape"
            )
        check_memory(f"array {info.filename!r}", promised)
        content = stream.read(promised + 1)
    if len(content) != promised:
        raise ValueError(f"it holds {len(content)} bytes of numbers, not the {promised} of its shape")
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F" if header.is_fortran else "C")


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
    shown = str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > _MOST_ARRAYS:
                raise ValueError(f"it holds {len(infos)} arrays, more than {_MOST_ARRAYS}")
            for info in infos:
                name = info.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"array {name!r} stands there twice")
                if name in names:
                    shown = f"array {name!r} of {file}"
                    found[name] = _array(archive, info)
            shown = str(file)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except Exception as error:  # zipfile, zlib and NumPy's reading of literals raise errors of many types
        raise DataError(f"{shown} does not read: {(str(error).splitlines() or ['empty'])[0][:300]}") from None
    return found
