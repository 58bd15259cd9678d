"""The shell of every command: options by tyro, one clear line and exit code 2 for a user's mistake."""

import contextlib
import gc
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeVar

from tqdm import tqdm

from cfgjax.checkpoints import CheckpointError
from cfgjax.data import DataError
from experiments.cli import broken_pipe, compilation_cache, options
from experiments.cli.options import MisreadError, Verbosity

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


TERMINAL = Terminal()
"""The one to which bars and lines are written, so that a line finds the bar that it must not cut."""


class Company(Protocol):
    """What a command tells the other processes of it, where there are any."""

    def blame(self, error: BaseException) -> None:
        """Ends this process, once it knows how, where the error is the doing of another; before it is written."""

    def leave(self, code: int, message: str) -> None:
        """Ends this process with the exit code of a failure, for which the others are ended, too."""

    def close(self) -> None:
        """Waits for the others to have done their work."""


class Alone:
    """The company of a process that is the only one of its command."""

    def blame(self, error: BaseException) -> None:
        """Nothing."""

    def leave(self, code: int, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _Asked:
    """What this process was asked for, once its command line is read, and with whom it works."""

    verbosity = Verbosity()
    line = ""
    company: Company = Alone()


def join(company: Company) -> None:
    """Sets whom the command tells how it ends."""
    _Asked.company = company


def is_quiet() -> bool:
    """Whether results, warnings and errors alone are wanted."""
    return _Asked.verbosity.quiet


def line() -> str:
    """The command line of this process, as it would be typed again; empty where no command runs."""
    return _Asked.line


def warn(message: str) -> None:
    """Writes a line to standard error, above any progress bar."""
    tqdm.write(message, file=TERMINAL)


def info(message: str) -> None:
    """Prints a line on how the work goes, which nobody needs who asked for quiet; one who is gone ends no work."""
    if not is_quiet():
        with contextlib.suppress(BrokenPipeError):
            print(message, flush=True)


def print_result(result: str) -> None:
    """Prints results as they come, above any progress bar."""
    tqdm.write(result, file=sys.stdout)
    sys.stdout.flush()


def debug(message: str) -> None:
    """Says what is only wanted with --verbose."""
    if _Asked.verbosity.verbose:
        warn(message)


def _is_coloured() -> bool:
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal and not os.environ.get("NO_COLOR")


def plain(text: str) -> str:
    """The text in one line, in which nothing from a file can speak to the terminal."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in " ".join(text.split()))


def _refuse(message: str) -> NoReturn:
    """Writes the message in one line of bounded length."""
    start = "\x1b[31merror:\x1b[0m" if _is_coloured() else "error:"
    line = plain(message)[:_LONGEST]
    sys.stderr.write(f"{start} {line}\n")
    _Asked.company.leave(2, line)
    raise SystemExit(2)


def quiet_background() -> None:
    """Keeps threads that read and write checkpoints from printing tracebacks: what went wrong is raised, too.

    It holds until the process ends, as some of them print while it does.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    hook = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = report


def _done(work: Callable[[T], Any], asked: T) -> None:
    """Does the work, and ends this process where another one keeps it from being done."""
    try:
        work(asked)
        _Asked.company.close()
    except BaseException as error:
        _Asked.company.blame(error)
        raise


def _run(work: Callable[[T], Any], asked: T) -> None:
    """Does the work; mistakes of the user end in one line and exit code 2."""
    try:
        _done(work, asked)
    except (UserError, DataError, CheckpointError) as mistake:
        _refuse(str(mistake))
    except EndingError as ending:
        line = " ".join(str(ending).split())
        warn(line)
        _Asked.company.leave(ending.exit_code, line)
        raise SystemExit(ending.exit_code) from None
    except OSError as error:
        if error.filename is None:
            raise
        _refuse(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        _Asked.company.leave(130, "interrupted")
        raise SystemExit(130) from None


@broken_pipe.tolerate_broken_pipe()
def main(
    work: Callable[[T], Any],
    kind: type[T],
    name: str,
    about: str | None,
    args: list[str] | None,
    presets: Mapping[str, tuple[str, T]] | None = None,
) -> None:
    """Reads the options of a command and does its work; mistakes of the user end in one line and exit code 2.

    Args:
        work: what the command does with its options.
        kind: the dataclass of the options.
        name: the command's module.
        about: what it does, for --help.
        args: its command line; by default that of this process.
        presets: summaries and options to start from, by name.
    """
    if args is None:
        gc.freeze()  # what the imports made stays until the end, whose collections need not look for it
    quiet_background()
    prog, start = f"python -m {name}", time.perf_counter()
    try:
        asked, verbosity = options.read(kind, prog, about, args, presets)
    except MisreadError as mistake:
        _refuse(str(mistake))
    _Asked.verbosity = verbosity
    _Asked.line = f"{prog} {shlex.join(sys.argv[1:] if args is None else args)}".strip()
    seen = compilation_cache.Seen() if verbosity.verbose else None
    try:
        _run(work, asked)
    finally:
        if seen is not None:
            seen.stop()
            warn(f"{seen}; {time.perf_counter() - start:.1f} s in all")
