"""What lies in a folder of class folders: pictures by split and label, and everything else, told.

SOURCE/train/CLASS/*.png, SOURCE/test/CLASS/*.png; without the split's folders, SOURCE/CLASS/*.png, every tenth picture
of a class becomes the split ``test``, and of a class of 2 to 9 the last.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from cfgjax.data.foreign import told_forms
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import require_file, require_inside

SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif"),
    }
)
SPLITS = frozenset({"train", "test", "validation"})
_TEST_EVERY = 10
_OF_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"})
_BESIDE = "left out, beside the class folders"
_INNER = "left out, in folders inside class folders"
OTHER = "left out, of kinds that are not read as pictures"
_SYSTEM = "left out, hidden or kept by an operating system"


class Picture(NamedTuple):
    """One file and its label."""

    file: Path
    label: int


class Remark(NamedTuple):
    """Files of a source, and what is to be told of them."""

    what: str
    files: tuple[Path, ...]


class Listing(NamedTuple):
    """The pictures by split, the names of the classes in order, and what is left out."""

    pictures: dict[str, list[Picture]]
    names: list[str]
    left_out: list[Remark]


LeftOut = defaultdict[str, list[Path]]


def children_of(folder: Path, left_out: LeftOut) -> list[Path]:
    """What lies in a folder, in order, without what systems hide there."""
    children = sorted(folder.iterdir())
    is_systems = [child.name.startswith(".") or child.name.casefold() in _OF_SYSTEMS for child in children]
    left_out[_SYSTEM] += [child for child, is_left_out in zip(children, is_systems, strict=True) if is_left_out]
    return [child for child, is_left_out in zip(children, is_systems, strict=True) if not is_left_out]


def _folders(folder: Path, root: Path, left_out: LeftOut) -> list[Path]:
    """The folders in a folder, whose names can stand in a file of one name a line."""
    children = children_of(folder, left_out)
    folders = [child for child in children if child.is_dir()]
    left_out[_BESIDE] += [child for child in children if not child.is_dir()]
    for child in folders:
        require_inside(child, root)
        if not child.name.isprintable() or child.name != child.name.strip():
            raise DataError(
                f"the name of class folder {str(child)!r} must be of printable letters, without spaces around"
            )
    return folders


def _inside(folder: Path) -> list[Path]:
    """All files under a folder, through no link; the folder itself where it is one, or holds none."""
    inner = [] if folder.is_symlink() else [Path(where, name) for where, _, names in os.walk(folder) for name in names]
    return sorted(inner) or [folder]


def _pictures(folder: Path, root: Path, left_out: LeftOut) -> list[Path]:
    children = children_of(folder, left_out)
    files = [child for child in children if child.suffix.lower() in SUFFIXES]
    for file in files:
        require_file(require_inside(file, root))
    others = [child for child in children if child.suffix.lower() not in SUFFIXES]
    inner = [child for child in others if child.is_dir()]
    left_out[OTHER] += [child for child in others if not child.is_dir()]
    left_out[_INNER] += [file for child in inner for file in _inside(child)]
    if not files:
        hint = "; pictures in the folders inside it are not read" if inner else ""
        raise DataError(f"class folder {folder} holds no picture ({', '.join(sorted(SUFFIXES))}){hint}")
    return files


def split_of(index: int, count: int) -> str:
    """The split of one of so many pictures of a class."""
    is_held_out = index == count - 1 > 0 if count < _TEST_EVERY else index % _TEST_EVERY == _TEST_EVERY - 1
    return "test" if is_held_out else "train"


def _instead(files: list[Path]) -> str:
    """What a source holds in the place of class folders, for a message."""
    if any(file.suffix.lower() in SUFFIXES for file in files):
        way = "each label has a folder of its own, SOURCE/CLASS/0.png and so on, or SOURCE/metadata.jsonl tells of each"
        return f", but pictures: {way}"
    return told_forms(files)


def list_pictures(source: Path) -> Listing:
    """All pictures in a folder, and what else lies there.

    Raises:
        DataError: no class folders, an empty one, splits of different classes, or a link that leads out of source.
    """
    if not source.is_dir():
        raise DataError(f"source {source} is not a folder{told_forms([source])}")
    left_out: LeftOut = defaultdict(list)
    children = _folders(source, source, left_out)
    splits = [child for child in children if child.name in SPLITS]
    if splits and len(splits) < len(children):
        known = ", ".join(sorted(SPLITS))
        raise DataError(f"source {source} mixes split folders and class folders; of splits only {known} are known")
    classes = {split.name: _folders(split, source, left_out) for split in splits} if splits else {"": children}
    names = sorted({folder.name for folders in classes.values() for folder in folders})
    if not names:
        raise DataError(f"source {source} holds no class folders{_instead(left_out[_BESIDE])}")
    found: dict[str, list[Picture]] = {}
    for split, folders in classes.items():
        if [folder.name for folder in folders] != names:
            raise DataError(f"source {source}: split {split} lacks some of the classes {', '.join(names)}")
        for label, folder in enumerate(folders):
            files = _pictures(folder, source, left_out)
            for index, file in enumerate(files):
                found.setdefault(split or split_of(index, len(files)), []).append(Picture(file, label))
    return Listing(found, names, [Remark(what, tuple(sorted(files))) for what, files in left_out.items() if files])
