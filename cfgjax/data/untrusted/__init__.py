"""Readers of files that somebody else may have written: a data set is downloaded, sent, or found in a shared folder.

All that looks into such a file for the first time lies here, in one place to review, by four rules:

(U1) Bounded reads. A file is a regular one, never a pipe or a device, and no more is read, unpacked or held in memory
     than a bound that stands in the code or that was declared and found to be allowed.
(U2) No code is run. No pickle, no class that a file names unless it is in a short list; nothing is imported by name.
(U3) No key twice, no number that is not finite, no text that is not UTF-8: two readers of one file see one thing.
(U4) Names stay inside their folder: no link and no "..", followed to its end, leads out of it.

What breaks a rule ends in a ``DataError`` of one line that names the file.
"""

from __future__ import annotations


class DataError(Exception):
    """A data set that is unknown, not prepared, or not as it should be; the message says what to do."""
