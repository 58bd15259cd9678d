"""Checkpoints by Orbax: saved in the background, verified before they are published, and restored whole.

A checkpoint holds a state, and beside it as JSON what the caller gave, the packages' versions, a checksum for each
array, and a digest over all of these. A corrupt one is known by them, and ``restore`` takes the newest that is whole.
"""

from __future__ import annotations

from cfgjax.checkpoints.checksums import checksums as checksums, host_checksum as host_checksum
from cfgjax.checkpoints.errors import (
    CheckpointError as CheckpointError,
    NoCheckpointError as NoCheckpointError,
    UnreachableError as UnreachableError,
)
from cfgjax.checkpoints.parameters import restore_params as restore_params
from cfgjax.checkpoints.restore import Restored as Restored, quarantine as quarantine, restore as restore
from cfgjax.checkpoints.save import (
    RetentionPolicy as RetentionPolicy,
    Writer as Writer,
    all_steps as all_steps,
    latest_step as latest_step,
)
