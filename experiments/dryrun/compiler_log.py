"""What a compiler writes to standard error, where it is no place for a terminal's reader."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_LOG = re.compile(r"^[WEF]\d{4} \S+ +\d+ (\S+:\d+)\] (.*)")
_NOISE = ("worker hostname", "written to STDERR")
"""Parts of what libtpu says wherever no TPU is there."""


@contextlib.contextmanager
def warnings_of_compiler() -> Iterator[list[str]]:
    """The list to which the compiler's warnings inside are added, each once; they go to no terminal."""
    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            found = map(_LOG.match, file.read().decode(errors="replace").splitlines())
            said += dict.fromkeys(each[2] for each in found if each and not any(part in each[2] for part in _NOISE))
