"""Checkpoints by Orbax: saved in the background, verified before they are published, and restored whole.

A checkpoint holds a state, and beside it as JSON what the caller gave, the packages' versions, a checksum for each
array, and a digest over all of these. A corrupt one is known by them, and ``restore`` takes the newest that is whole.
"""

from __future__ import annotations

from cfgjax.checkpoints.checksums import checksums as checksums
from cfgjax.checkpoints.checksums import host_checksum as host_checksum
from cfgjax.checkpoints.errors import CheckpointError as CheckpointError
from cfgjax.checkpoints.errors import NoCheckpointError as NoCheckpointError
from cfgjax.checkpoints.errors import UnreachableError as UnreachableError
from cfgjax.checkpoints.parameters import holds_params_alone as holds_params_alone
from cfgjax.checkpoints.parameters import restore_params as restore_params
from cfgjax.checkpoints.restore import Restored as Restored
from cfgjax.checkpoints.restore import quarantine as quarantine
from cfgjax.checkpoints.restore import restore as restore
from cfgjax.checkpoints.save import RetentionPolicy as RetentionPolicy
from cfgjax.checkpoints.save import Writer as Writer
from cfgjax.checkpoints.save import all_steps as all_steps
from cfgjax.checkpoints.save import latest_step as latest_step
