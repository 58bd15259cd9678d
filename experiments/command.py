"""The shell of every command: options by tyro, one clear line and exit code 2 for a user's mistake."""

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from cfgjax.checkpoints import CheckpointError
from cfgjax.data import DataError

T = TypeVar("T")
_LONGEST = 2_000


class UserError(Exception):
    """A mistake in what the user asked for; the message is one line that says what is allowed."""


class EndingError(BaseException):
    """A way for a command to end that is neither success nor a mistake, with an exit code of its own.

    Like KeyboardInterrupt it is no Exception: code that deals with errors on its way must not deal with it.
    """

    exit_code = 1


class Terminal:
    """Standard error, whose reader may be gone: what cannot be written is not, and nobody is stopped by it."""

    def write(self, text: str) -> int:
        """Writes the text if it can."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes if it can."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def say(message: str) -> None:
    """Writes a line to standard error, above any progress bar."""
    tqdm.write(message, file=Terminal())


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


def quiet_background() -> None:
    """Keeps threads that read and write checkpoints from printing tracebacks: what went wrong is raised, too, and told.

    It holds until the process ends, as some of them speak while it does.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    hook = sys.unraisablehook

    def told(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = told


def run(read: Callable[[], T], work: Callable[[T], Any]) -> None:
    """Reads the options and does the work; mistakes of the user end in one line and exit code 2."""
    quiet_background()
    options = parse(read)
    try:
        work(options)
    except (UserError, DataError, CheckpointError) as mistake:
        _refuse(str(mistake))
    except EndingError as ending:
        say(" ".join(str(ending).split()))
        raise SystemExit(ending.exit_code) from None
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
