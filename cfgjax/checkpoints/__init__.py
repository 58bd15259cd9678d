"""Checkpoints by Orbax: saved in the background, verified before they are published, and restored whole.

A checkpoint holds a state, and beside it as JSON what the caller gave, the packages' versions, a checksum for each
array, and a digest over all of these. A corrupt one is known by them, and ``restore`` takes the newest that is whole.
"""

from __future__ import annotations

from cfgjax.checkpoints.checksums import checksums, host_checksum
from cfgjax.checkpoints.errors import CheckpointError, NoCheckpointError, UnreachableError
from cfgjax.checkpoints.parameters import restore_params
from cfgjax.checkpoints.restore import Restored, quarantine, restore
from cfgjax.checkpoints.save import RetentionPolicy, Writer, all_steps, latest_step

__all__ = [
    "CheckpointError",
    "NoCheckpointError",
    "Restored",
    "RetentionPolicy",
    "UnreachableError",
    "Writer",
    "all_steps",
    "checksums",
    "host_checksum",
    "latest_step",
    "quarantine",
    "restore",
    "restore_params",
]
