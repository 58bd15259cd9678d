"""The shell of every command: options by tyro, one clear line and exit code 2 for a user's mistake."""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from cfgjax.checkpoints import CheckpointError
from cfgjax.data import DataError

T = TypeVar("T")
_LONGEST = 2_000


class UserError(Exception):
    """A mistake in what the user asked for; the message is one line that says what is allowed."""


def _refuse(message: str) -> NoReturn:
    """Writes the message in one line of bounded length, in which nothing from a file can speak to the terminal."""
    plain = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in " ".join(message.split()))
    sys.stderr.write(f"error: {plain[:_LONGEST]}\n")
    raise SystemExit(2)


def _one_line(box: str) -> str:
    """The message inside a box that tyro draws, with its first suggestion."""
    rows = [row.strip("│ ").strip() for row in box.splitlines() if row.startswith("│")]
    text = " ".join(rows)
    message, *rest = re.split(r"\s*─{3,}\s*", text)
    hint = next((part for part in rest if part.startswith(("Perhaps", "Available", "Similar"))), "")
    hint = re.sub(r"\s+in \S*python.*$", "", hint)
    return f"{message}. {hint}" if hint else message


def parse(read: Callable[[], T]) -> T:
    """The options read by a call of tyro, with its boxed complaints turned into one line."""
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            return read()
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _refuse(_one_line(complaints.getvalue()) or complaints.getvalue())


def run(read: Callable[[], T], work: Callable[[T], Any]) -> None:
    """Reads the options and does the work; mistakes of the user end in one line and exit code 2."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    options = parse(read)
    try:
        work(options)
    except (UserError, DataError, CheckpointError) as mistake:
        _refuse(str(mistake))
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
