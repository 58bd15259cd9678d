"""A commit that fails is found out in the process where it does, while the others still wait."""

import threading

import jax.numpy as jnp
import pytest

from cfgjax import checkpoints
from cfgjax.checkpoints import CheckpointError, commits

STATE = {"params": jnp.arange(3.0)}


def test_the_error_of_a_commit_is_known_once_it_fails_and_a_good_one_has_none(tmp_path, monkeypatch):
    """By the names that Orbax has for its thread: where they change, this fails."""
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(1, STATE, {})
        writer.wait()
        assert writer._failures == []
        error = CheckpointError("params does not read back as it was given")
        monkeypatch.setattr("cfgjax.checkpoints.save.host_checksum", lambda array: ("", ""))
        writer.save(2, STATE, {})
        with pytest.raises(CheckpointError, match="does not read back"):
            writer.wait()
        assert list(map(str, writer._failures)) == [str(error)]


class _Manager:
    """One that waits for the other processes."""

    def __init__(self):
        self.others = threading.Event()

    def wait_until_finished(self):
        """As Orbax's."""
        self.others.wait(60)


def test_one_of_several_whose_commit_failed_does_not_wait_for_the_others(monkeypatch):
    monkeypatch.setattr(commits.jax, "process_count", lambda: 2)
    manager, failures = _Manager(), []
    threading.Timer(0.2, lambda: failures.append(OSError("No space left on device"))).start()
    with pytest.raises(OSError, match="No space left"):
        commits.wait_for_commit(manager, failures)
    assert not manager.others.is_set()
    manager.others.set()


def test_several_that_wait_for_each_other_go_on_together(monkeypatch):
    monkeypatch.setattr(commits.jax, "process_count", lambda: 2)
    manager = _Manager()
    threading.Timer(0.2, manager.others.set).start()
    commits.wait_for_commit(manager, [])
    assert manager.others.is_set()
