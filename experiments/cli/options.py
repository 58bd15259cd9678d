"""Options by tyro: what every command has in common, help that reads well at any width, complaints in one line."""

import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

T = TypeVar("T")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CHOICES = re.compile(r"\{\S{60,}\}")


class MisreadError(Exception):
    """Options that do not read; the message is one line."""


@dataclass(frozen=True)
class Verbosity:
    """How much the command says of itself."""

    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=("-q",))] = False
    """Print results, warnings and errors alone: no progress."""
    verbose: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=("-v",))] = False
    """Say also what was read, what was compiled, on which devices, and how long it took."""


def optional(metavar: str, default: str, name: str | None = None, former: str | None = None) -> Any:
    """The look of an option that may be left out: its values' name, and in the place of "None" what happens then.

    Args:
        metavar: what its values are called.
        default: what happens without it.
        name: of the option, where it is not its field's.
        former: a name that it had, and still reads, with its dashes.
    """

    def hint(value: str) -> str:
        return f"(default: {default if value in ('None', '') else value})"

    aliases = None if former is None else (former,)
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=hint, aliases=aliases)


def with_verbosity(kind: type) -> Any:
    """The dataclass of a command's options together with ``Verbosity``, as ``options`` and ``verbosity``."""
    return make_dataclass(
        "Asked",
        [
            ("options", Annotated[kind, tyro.conf.arg(name="")]),
            ("verbosity", Annotated[Verbosity, tyro.conf.OmitArgPrefixes], field(default_factory=Verbosity)),
        ],
        frozen=True,
    )


def read(
    kind: type[T], prog: str, about: str | None, args: list[str] | None, presets: Mapping[str, tuple[str, T]] | None
) -> tuple[T, Verbosity]:
    """The options of a command line.

    Args:
        kind: the dataclass of the options.
        prog: how the command is called.
        about: what it does, for --help.
        args: the command line; by default that of this process.
        presets: summaries and options to start from, by the name that comes first; by default one start, without name.

    Raises:
        MisreadError: a command line that does not read.
        SystemExit: after --help.
    """
    tyro._experimental_options["ansi_codes"] = not os.environ.get("NO_COLOR")
    asked = with_verbosity(kind)
    if presets is None:
        found = _parsed(lambda: tyro.cli(asked, prog=prog, description=about, args=args))
    else:
        starts = {name: (summary, asked(start)) for name, (summary, start) in presets.items()}
        found = _parsed(lambda: tyro.extras.overridable_config_cli(starts, prog=prog, description=about, args=args))
    return found.options, found.verbosity


class _Page(io.StringIO):
    """What goes to standard output, held back; it answers as standard output does whether that is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = sys.stdout

    def isatty(self) -> bool:
        return self._shown is not None and self._shown.isatty()

    @property
    def encoding(self) -> str:  # pyrefly: ignore[bad-override]
        return getattr(self._shown, "encoding", None) or "ascii"


def _show(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(text)
        sys.stdout.flush()


def _parsed(parse: Callable[[], T]) -> T:
    """What the parser gives, its help wrapped and its boxed complaints turned into one line."""
    page, complaints = _Page(), io.StringIO()
    try:
        with contextlib.redirect_stdout(page), contextlib.redirect_stderr(complaints):
            return parse()
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise MisreadError(one_line(complaints.getvalue())) from None
        if sys.stdout is not None:
            _show(wrapped(page.getvalue(), shutil.get_terminal_size().columns))
        raise


def wrapped(page: str, width: int) -> str:
    """The text with its long lines wrapped at words; boxes, which fit already, are left.

    >>> print(wrapped("usage: prog [-h] {first,second}\\n\\nOne two three four five.", 20))
    usage: prog [-h]
        {first,second}
    <BLANKLINE>
    One two three four
    five.
    """
    lines = []
    for line in page.split("\n"):
        is_usage = "usage:" in line[:20]
        line = _CHOICES.sub("NAME", line) if is_usage else line
        is_long = len(_ANSI.sub("", line)) > width
        indent = "    " if is_usage else ""
        filled = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += filled if is_long else [line]
    return "\n".join(lines)


def one_line(box: str) -> str:
    """The message inside a box that tyro draws, with its first suggestion."""
    box = _ANSI.sub("", box).replace("'options.", "'")
    rows = [row.strip("│ ").strip() for row in box.splitlines() if row.startswith("│")]
    message, *rest = re.split(r"\s*─{3,}\s*", " ".join(rows))
    hint = next((part for part in rest if part.startswith(("Perhaps", "Available", "Similar"))), "")
    hint = re.sub(r"\s+in \S*python.*$", "", hint)
    return (f"{message}. {hint}" if hint else message) or box
