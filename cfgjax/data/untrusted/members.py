"""The files of a folder, or of a zip that is not unpacked, by their names from there, each read as far as a bound."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import read_bounded, require_file, require_inside
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


def _is_of_system(name: str) -> bool:
    return name.startswith("__MACOSX/") or any(part.startswith(".") for part in name.split("/"))


class Members:
    """Files by their names from a folder or in a zip, without those that systems leave there."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._archive = None if place.is_dir() else _opened(place)
        found = _names_in(place) if self._archive is None else _names_of(place, self._archive)
        self.names = sorted(name for name in found if not _is_of_system(name))
        if len(self.names) > MOST_EXAMPLES + 1:
            raise DataError(f"{place} holds {len(self.names)} files, more than {MOST_EXAMPLES}")

    def shown(self, name: str) -> str:
        """A file, for a message."""
        return f"{self.place / name}" if self._archive is None else f"{name!r} in {self.place}"

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: one that is longer, damaged, or leads elsewhere.
        """
        if self._archive is None:
            return read_bounded(require_inside(self.place / name, self.place), most)
        info = self._archive.getinfo(name)
        if info.compress_type not in _METHODS or info.flag_bits & _ENCRYPTED:
            raise DataError(f"{self.shown(name)} is packed in a way that is not read")
        if info.file_size > most:
            raise DataError(f"{self.shown(name)} holds {info.file_size} bytes, more than {most}")
        try:
            with self._archive.open(info) as stream:
                return stream.read(most + 1)[:most]
        except Exception as error:  # zipfile and zlib raise errors of many types
            raise DataError(f"{self.shown(name)} does not read: {' '.join(str(error).split())[:300]}") from None


def _opened(place: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(require_file(place))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{place} does not read as a zip: {' '.join(str(error).split())[:300]}") from None


def _names_of(place: Path, archive: zipfile.ZipFile) -> list[str]:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise DataError(f"{place} holds {twice!r} twice")
    return names


def _names_in(place: Path) -> list[str]:
    return [
        (Path(folder) / name).relative_to(place).as_posix() for folder, _, names in os.walk(place) for name in names
    ]
