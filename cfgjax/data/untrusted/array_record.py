"""The chunks of an array_record file by their headers alone: what each would unpack to, before anything is unpacked.

The file is one of Riegeli's: blocks of 65,536 bytes, each opened by 24 bytes of its own; through the blocks run the
chunks, each a header of 40 bytes (hash, size, hash of the data, kind and number of records, size when unpacked) and its
data.
Source: Riegeli, doc/riegeli_records_file_format.md.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import require_file

_BLOCK, _BLOCK_HEADER, _HEADER = 65_536, 24, 40
_USABLE = _BLOCK - _BLOCK_HEADER
_MOST_TOGETHER = 2**30
"""Bytes that one chunk may unpack to, of however many records."""


class Chunk(NamedTuple):
    """One chunk: its number of records, and the bytes that they unpack to."""

    num_records: int
    num_bytes: int


def _after(position: int, size: int) -> int:
    """The position in the file ``size`` bytes of chunks further on."""
    return position + size + (size + (position + _USABLE - 1) % _BLOCK) // _USABLE * _BLOCK_HEADER


def _read(content: mmap.mmap, position: int, size: int) -> bytes:
    """So many bytes of chunks, without the headers of blocks between them."""
    pieces = []
    while size > 0 and position < len(content):
        position += max(0, _BLOCK_HEADER - position % _BLOCK)
        taken = min(size, _BLOCK - position % _BLOCK)
        pieces.append(content[position : position + taken])
        position, size = position + taken, size - taken
    return b"".join(pieces)


def _chunks(content: mmap.mmap) -> Iterator[Chunk]:
    position = 0
    while position < len(content):
        header = _read(content, position, _HEADER)
        if len(header) < _HEADER:
            raise DataError("it ends inside a chunk")
        _, size, _, kind_and_count, unpacked = struct.unpack("<5Q", header)
        yield Chunk(kind_and_count >> 8, unpacked)
        position = max(_after(position, _HEADER + size), position + (kind_and_count >> 8))
    if position > len(content):
        raise DataError("it ends inside a chunk")


def require_bounded_chunks(file: Path, most_of_one: int) -> None:
    """Looks at every chunk's header.

    Args:
        file: the array_record file.
        most_of_one: bytes that one record may unpack to.

    Raises:
        DataError: a chunk that would unpack to more, or a file that ends inside a chunk; the message names it.
    """
    with require_file(file).open("rb") as stream:
        if stream.seek(0, 2) == 0:
            raise DataError(f"{file} is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                for chunk in _chunks(content):
                    if chunk.num_bytes > min(chunk.num_records * most_of_one, _MOST_TOGETHER):
                        raise DataError(f"{chunk.num_records} records of it unpack to {chunk.num_bytes} bytes")
            except DataError as error:
                raise DataError(f"{file} does not read as array_record: {error}") from None
