"""What can be wrong with a data set."""

from __future__ import annotations


class DataError(Exception):
    """A data set that is unknown, not prepared, or not as it should be; the message says what to do."""
