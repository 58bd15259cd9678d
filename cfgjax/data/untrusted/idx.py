"""An idx file's array of bytes.

It is: two zero bytes, a type (8 is unsigned byte), the number of axes, each axis' length (big-endian, four bytes), and
the numbers; usually inside gzip.
Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, "the IDX file format".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import numpy as np

from cfgjax.contracts import checked
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import ExactPath, require_file

_UNSIGNED_BYTE = 8
_MOST_BYTES = 2**31


@checked
def read_idx(file: ExactPath) -> np.ndarray:
    """The array of unsigned bytes in an idx file, plain or in gzip; never more than its header promises is unpacked.

    Raises:
        DataError: a file that is missing, not an idx file of bytes, or longer or shorter than its header says.
    """
    opened = gzip.open if require_file(file).suffix == ".gz" else open
    try:
        with opened(file, "rb") as stream:
            zeros, kind, num_axes = struct.unpack(">HBB", stream.read(4))
            if zeros or kind != _UNSIGNED_BYTE:
                raise DataError(f"{file} is not an idx file of unsigned bytes")
            shape = struct.unpack(f">{num_axes}I", stream.read(4 * num_axes))
            size = math.prod(shape)
            if size > _MOST_BYTES:
                raise DataError(f"{file} promises {size} bytes, more than {_MOST_BYTES}")
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{file} does not read as an idx file: {error}") from None
    if len(content) != size:
        raise DataError(f"{file} holds {'more' if len(content) > size else 'fewer'} than the {size} bytes it promises")
    return np.frombuffer(content, np.uint8).reshape(shape)
