"""What can be wrong with a checkpoint."""

from __future__ import annotations

import re


class CheckpointError(Exception):
    """A checkpoint that is missing, corrupt, cannot be written, or is of another tree than the one asked for."""


class NoCheckpointError(CheckpointError):
    """A folder that holds no checkpoint."""


class UnreachableError(CheckpointError):
    """A checkpoint that the system does not let be read now: nothing is known of whether it is whole."""


_REASONS = re.compile(
    "no space left on device|read-only file system|file too large|permission denied|disk quota exceeded|"
    "input/output error|stale file handle|too many open files",
    re.IGNORECASE,
)


def is_of_system(error: BaseException) -> bool:
    """Whether the system refused, as against files that are not as they should be."""
    return isinstance(error, MemoryError) or bool(_REASONS.search(str(error)))


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in the system's words where the error has them; else its first line."""
    found = _REASONS.search(str(error))
    if found:
        return found[0]
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
