"""Files and folders that are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


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
