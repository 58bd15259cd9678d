"""A commit that fails on one of several processes, found out before the others have waited for it in vain.

Orbax 0.12.8 keeps the error of its background thread until all processes have met at a barrier, which those that wait
for this one's part reach after their time-out of 20 minutes. So the thread is asked itself, by names that are Orbax's
own.
"""

from __future__ import annotations

import threading
from typing import Any

import jax
import orbax.checkpoint as ocp

_LOOK = 0.05


def commit_failures(manager: ocp.CheckpointManager) -> list[BaseException]:
    """A list to which the error of each commit of the manager is added as soon as it fails in this process."""
    checkpointer: Any = manager._checkpointer
    commits = checkpointer._async_manager
    run, failures = commits._thread_func, list[BaseException]()

    def watched(*args: Any) -> None:
        run(*args)
        if commits._exception is not None:
            failures.append(commits._exception)

    commits._thread_func = watched
    return failures


def wait_for_commit(manager: ocp.CheckpointManager, failures: list[BaseException]) -> None:
    """Waits until all processes have committed the save under way.

    Raises:
        Exception: it failed, in this process at once.
    """
    if jax.process_count() == 1:
        manager.wait_until_finished()
        return
    found: list[BaseException] = []

    def wait() -> None:
        try:
            manager.wait_until_finished()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while thread.is_alive() and not failures:
        thread.join(_LOOK)
    for error in [*failures, *found]:
        raise error
