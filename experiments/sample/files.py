"""What a command leaves: one file, or a folder of its own, whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from experiments.cli.main import UserError
from experiments.run import folder as run_folder


def is_folder(out: str) -> bool:
    """Whether a folder is meant: a path that ends in a slash, or one that is a folder already."""
    return out.endswith(("/", os.sep)) or Path(out).is_dir()


def require_writable(out: str) -> Path:
    """The path, once it is found that it can be written: a file, whose folder is made, or a folder that is empty.

    Raises:
        UserError: it cannot be written, or is a folder with something in it.
    """
    path = Path(out)
    if not is_folder(out):
        run_folder.make_folder("out", path.parent)
        return path
    if path.exists() and not path.is_dir():
        raise UserError(f"out {path} is a file, not a folder; leave the slash out to overwrite it")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"out must be a file, or a folder that is new or empty; {path} holds something")
    run_folder.make_folder("out", path.absolute().parent)
    return path


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Inside, a temporary file to be written, which takes the file's place in the end.

    Raises:
        OSError: it cannot be written; its ``filename`` is the file.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        yield temporary
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Inside, a temporary folder to be filled, which takes the place of the new or empty one in the end.

    Raises:
        OSError: it cannot be written; its ``filename`` is the folder.
    """
    folder = folder.resolve()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        temporary.mkdir()
        yield temporary
        temporary.replace(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(folder)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
