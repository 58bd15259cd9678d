"""How far a command is: a bar on a terminal, a plain line now and then elsewhere, nothing where quiet is wanted.

Both are tqdm's; work that takes less than PATIENCE seconds shows none.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

import tqdm.auto

from experiments.cli import main as cli
from experiments.runtime import distributed

T = TypeVar("T")
LINE_SECONDS = 10.0
"""Between two plain lines."""
PATIENCE = 2.0
"""Seconds after which work is long enough to show how far it is."""
Bar = tqdm.tqdm
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {elapsed} gone, {remaining} left{postfix}"
_LINE_WITHOUT_END = "{desc}: {n_fmt}{unit}, {rate_noinv_fmt}, {elapsed} gone{postfix}"


class Lines(Bar):
    """A bar that is no bar: a plain line every LINE_SECONDS, and one at the end of what took PATIENCE seconds."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._first = self._last = time.monotonic()
        self._shown_at = -1
        settings |= {"mininterval": 0.5, "miniters": 1, "delay": 0, "file": cli.TERMINAL}
        super().__init__(*args, **settings)

    def _write(self) -> None:
        self._last, self._shown_at = time.monotonic(), self.n
        shape: dict[str, Any] = {**self.format_dict, "bar_format": _LINE if self.total else _LINE_WITHOUT_END}
        shape["prefix"] = shape["prefix"].removesuffix(": ").partition(" /")[0].rstrip(".") or "done"
        cli.TERMINAL.write(" ".join(self.format_meter(**shape).split()) + "\n")
        cli.TERMINAL.flush()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes the line if it is time for one."""
        if msg is None and self.n > self.initial and time.monotonic() - self._last >= LINE_SECONDS:
            self._write()

    def clear(self, nolock: bool = False) -> None:
        """Nothing: a line that is written stays."""

    def close(self) -> None:
        """Writes the last line, of work that took long enough."""
        if not self.disable and self._shown_at != self.n and time.monotonic() - self._first >= PATIENCE:
            self._write()
        self.leave = False
        super().close()


def bar(total: int | None, unit: str, what: str, initial: int = 0, patience: float = PATIENCE) -> Bar:
    """How far the work is, for standard error; to be moved by ``update``, and to be closed.

    Args:
        total: how many there are to do, or None where that is not known.
        unit: of what, in the plural.
        what: the work.
        initial: how many were done before.
        patience: seconds without a bar, which a short work ends without having shown.
    """
    is_silent = cli.is_quiet() or not distributed.is_process_0()
    settings: dict[str, Any] = {"total": total, "unit": f" {unit}", "desc": what, "initial": initial}
    if not cli.TERMINAL.isatty():
        return Lines(disable=is_silent, **settings)
    follows = _has_width()
    return Bar(disable=is_silent, delay=patience, mininterval=0.5, file=cli.TERMINAL, dynamic_ncols=follows, **settings)


def _has_width() -> bool:
    """Whether the terminal tells its width; one that does not would be taken for one of no columns."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    return False


def each(items: Iterable[T], unit: str, what: str) -> Iterator[T]:
    """The items, one after another, with a bar."""
    with bar(len(items) if isinstance(items, Sized) else None, unit, what) as shown:
        for item in items:
            yield item
            shown.update()


@contextlib.contextmanager
def of_others() -> Iterator[None]:
    """Inside, the bars that other packages draw by tqdm.auto are plain lines where no terminal shows them."""
    if sys.stderr.isatty() and not cli.is_quiet():
        yield
        return
    module: Any = tqdm.auto
    former, module.tqdm = module.tqdm, _Silent if cli.is_quiet() else Lines
    try:
        yield
    finally:
        module.tqdm = former


class _Silent(Bar):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"disable": True})
