"""What can be wrong with a checkpoint."""


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, cannot be written, or is of another tree than the one asked for."""


def first_line(error: BaseException) -> str:
    """An error's message in one line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
