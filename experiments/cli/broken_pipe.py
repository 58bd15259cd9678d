"""Standard output, whose reader may have seen enough: a pager that is left, or head."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator

UNREAD = 141
"""The exit code of what SIGPIPE ended."""


def is_unread() -> bool:
    """Whether standard output is a pipe that nobody reads any more; what is left to write then goes nowhere."""
    try:
        written_to = select.poll()
        written_to.register(sys.stdout.fileno(), 0)
    except (AttributeError, OSError):  # no poll, no standard output, or none that is a file
        return False
    is_left = any(event & select.POLLERR for _, event in written_to.poll(0))
    if is_left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_left


@contextlib.contextmanager
def tolerate_broken_pipe() -> Iterator[None]:
    """Inside, a reader who has seen enough, such as head, ends the command by itself: as by SIGPIPE, with no error."""
    try:
        yield
    except BrokenPipeError:
        if is_unread():
            raise SystemExit(UNREAD) from None
        raise
    except SystemExit as end:
        if end.code in (0, None) and is_unread():
            raise SystemExit(UNREAD) from None
        raise
    if is_unread():
        raise SystemExit(UNREAD)
