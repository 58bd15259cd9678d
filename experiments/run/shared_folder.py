"""A run's folder is one folder for all processes: the first leaves a mark in it, which all others must see."""

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments.cli.main import UserError
from experiments.runtime import distributed, peers
from experiments.runtime.alike import once, people

SECONDS = 60.0
"""How long a mark is waited for: so long a client of NFS may take what it knows of a folder from memory (acdirmax)."""
_EACH = 0.2
_MOST_NAMED = 4
_MARK = ".shared-"


def _leave(folder: Path, mark: str) -> None:
    """Leaves a mark, in the place of those of starts that were cut off here."""
    for old in folder.glob(f"{_MARK}*"):
        old.unlink(missing_ok=True)
    (folder / mark).touch()


def _appears(file: Path) -> bool:
    until = time.monotonic() + SECONDS
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(_EACH)
    return True


def _complaint(folder: Path, mark: str) -> str:
    if not _appears(folder / mark):
        return f"{folder} is not the folder of {peers.name(0)}; put it on a disk that all hosts share"
    return "" if os.access(folder, os.W_OK) else f"{folder} cannot be written"


def told(complaints: Sequence[str]) -> str:
    """What processes have to say of a folder, the first complaint with all whose it is; empty where there is none."""
    first = next(filter(None, complaints), "")
    whose = [index for index, complaint in enumerate(complaints) if complaint == first]
    return first and f"on {people(whose, _MOST_NAMED, peers.name)}: {first}"


def require_shared(name: str, folder: Path) -> None:
    """Finds out whether the folder of the first process is that of all others, who may write into it.

    Args:
        name: of the argument.
        folder: as this process calls it; on the first one it is there.

    Raises:
        UserError: it is another folder on some process, or cannot be written there; the same message on all.
    """
    if jax.process_count() == 1:
        return
    mark = f"{_MARK}{secrets.token_hex(8)}"
    distributed.on_process_0(lambda: _leave(folder, mark))
    mark = peers.texts(once("mark"), mark)[0]
    peers.doing(f"waits to see {name}")
    message = told(peers.texts(once("folder"), _complaint(folder, mark)))
    if distributed.is_process_0():
        with contextlib.suppress(OSError):
            (folder / mark).unlink(missing_ok=True)
    if message:
        raise UserError(f"{name} {message}")
