"""One trainer for a run folder: a lease with its owner's host and process, renewed while it lives."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from experiments.cli.main import UserError
from experiments.runtime import distributed

NAME = "owner.lock"
"""The lease's file, in the run folder."""

LEASE_SECONDS = 30.0
"""Seconds without a renewal after which the lease of another host's process is taken over."""


_SPACE = "?"
"""In a recorded name of a host what comes before its container's space of processes."""


def _refusal(run_dir: Path, lease: filelock.SoftFileLease) -> UserError:
    owner = lease.owner
    who = "another process" if owner is None else f"process {owner.pid} on {owner.hostname.partition(_SPACE)[0]}"
    return UserError(
        f"run_dir {run_dir} is being trained by {who}; wait for it, stop it, or pass --run-dir "
        f"(should it be gone, delete {lease.lock_file})"
    )


def _own_host() -> str | None:
    """This host's name as a lease records it: with the space of processes that is a container's own, if it is."""
    with tempfile.TemporaryDirectory() as folder, filelock.SoftFileLease(Path(folder) / NAME) as lease:
        return None if lease.owner is None else lease.owner.hostname


def _is_of_another_host(lease: filelock.SoftFileLease) -> bool:
    owner = lease.owner
    return owner is not None and owner.hostname != _own_host()


def require_owned(lease: filelock.SoftFileLease) -> None:
    """Finds out whether the lease is still ours.

    Raises:
        UserError: another process took it over, as after a long sleep of this one.
    """
    if lease.compromise is not None:
        reason = f"{lease.lock_file} was lost ({lease.compromise.reason})"
        raise UserError(f"{reason}: another process may train here now, so this one ends")


@contextlib.contextmanager
def owned(run_dir: Path) -> Iterator[filelock.SoftFileLease]:
    """Owns the run folder, which must exist, until the context is left.

    A lease whose process is gone from this host, or was not renewed by another host for LEASE_SECONDS, is taken over.
    A container is a host: one that is started anew counts as another, though name and number of its process are alike.

    Raises:
        UserError: another process owns it; the message names its host and process.
    """
    lease = filelock.SoftFileLease(run_dir / NAME, lease_duration=LEASE_SECONDS, thread_local=False)
    try:
        lease.acquire(timeout=0)
    except filelock.Timeout:
        if not _is_of_another_host(lease):
            raise _refusal(run_dir, lease) from None
        distributed.warn(f"run_dir {run_dir} has an owner elsewhere; watching {LEASE_SECONDS:.0f} s whether it lives")
        try:
            lease.acquire(timeout=LEASE_SECONDS + 5)
        except filelock.Timeout:
            raise _refusal(run_dir, lease) from None
    try:
        yield lease
    finally:
        lease.release()
