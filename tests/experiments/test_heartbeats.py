"""How processes judge each other by what each says of itself, and by its silence."""

import errno
import os
import sys

import jax
import pytest

from cfgjax.checkpoints import CheckpointError
from experiments.cli.main import UserError
from experiments.runtime import heartbeats, peers
from experiments.runtime.heartbeats import Beat, Heard, Verdict

LIMIT = 30.0
AGAIN = "start the same command on all processes again: a training goes on from its newest checkpoint"


def _heard(*silences, **of_last):
    """What is heard of hosts a, b, ..., the last of which says what is given."""
    beats = [Beat(f"host-{letter}", 7, f"step {index}") for index, letter in enumerate("abcd"[: len(silences)])]
    for name, value in of_last.items():
        setattr(beats[-1], name, value)
    return [Heard(*each) for each in zip(beats, silences, strict=True)]


@pytest.mark.parametrize("silences", [(0, 0), (0, 29.9, 30), (30, 30, 30, 30)])
def test_silence_up_to_the_limit_is_no_failure(silences):
    assert heartbeats.judge(_heard(*silences), LIMIT) is None


def test_the_longest_silent_one_beyond_the_limit_is_named_with_what_it_last_did():
    heard = _heard(1, 30.5, 42, 0)
    heard[0].beat.saved, heard[1].beat.saved = 140, 120
    expected = f"process 2 on host-c has not been heard for 42 s; it last did: step 2; {AGAIN}, step 140 or later"
    assert heartbeats.judge(heard, LIMIT) == Verdict(76, expected)


def test_five_beats_of_silence_are_enough_once_another_s_collective_broke():
    assert heartbeats.judge(_heard(0, 5.1, 0), LIMIT) is None
    verdict = heartbeats.judge(_heard(0, 5.1, 0, broken="Connection reset by peer"), LIMIT)
    assert verdict is not None
    assert verdict.line.startswith("process 1 on host-b has not been heard for 5 s")
    assert heartbeats.judge(_heard(0, 4.9, 0, broken="Connection reset by peer"), LIMIT) is None


def test_one_whose_collective_broke_while_all_are_heard_is_named_itself_after_the_limit():
    """As where two hosts are cut off from each other, and both reach process 0."""
    assert heartbeats.judge(_heard(0, 0, broken="Gloo timed out", broken_for=30.0), LIMIT) is None
    verdict = heartbeats.judge(_heard(0, 0, broken="Gloo timed out", broken_for=30.1), LIMIT)
    assert verdict is not None
    assert verdict.line.startswith("process 1 on host-b lost the others, who are heard: Gloo timed out")


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (3, 3), (75, 75), (1, 76), (130, 76)])
def test_the_exit_code_of_one_is_passed_on_or_is_a_failure(code, expected):
    """And each may have met the same: it has a moment to end by itself."""
    verdict = heartbeats.judge(_heard(0, 0, code=code, message="because of it"), LIMIT)
    assert verdict is not None
    assert (verdict.code, verdict.is_met_by_all) == (expected, True)
    assert verdict.line.startswith("process 1 on host-b")
    assert "because of it" in verdict.line


def test_what_a_process_says_of_its_own_failure_is_said_by_all():
    line = f"process 1 on host-b failed: No space left on device; it last did: step 1; {AGAIN}, if there is one"
    heard = _heard(0, 0)
    assert heartbeats.failure(1, [each.beat for each in heard], "failed: No space left on device").line == line
    assert heartbeats.judge(_heard(0, 0, code=76, message=line), LIMIT) == Verdict(76, line, is_met_by_all=True)


def test_a_process_that_has_done_its_work_may_be_silent_and_all_of_them_are_done():
    assert heartbeats.judge(_heard(0, 0, 99, code=0), LIMIT) is None
    heard = _heard(0, 0)
    assert not heartbeats.are_all_done(heard)
    heard[0].beat.code = 0
    assert not heartbeats.are_all_done(heard)
    heard[1].beat.code = 0
    assert heartbeats.are_all_done(heard)


def test_one_that_does_the_same_for_longer_than_it_may_while_others_do_something_else_is_named():
    """As where its disk does not answer; where all do the same, as when all compile, nobody is."""
    heard = [each._replace(same_for=seconds) for each, seconds in zip(_heard(0, 0), (9.0, 10.5), strict=True)]
    assert heartbeats.judge(heard, LIMIT, 10.6) is None
    verdict = heartbeats.judge(heard, LIMIT, 10.0)
    assert verdict is not None
    assert verdict.line.startswith("process 1 on host-b has been at it for 10 s; it last did: step 1")
    heard[0].beat.doing = heard[1].beat.doing
    assert heartbeats.judge(heard, LIMIT, 10.0) is None


def test_time_counts_from_a_beat_that_is_new_and_from_something_else_that_is_done():
    heard = Heard(Beat("host-a", 1, "step 1"), 0.0).later(2.0)
    assert heard.followed_by(Beat("host-a", 1, "step 1")) == heard
    same = heard.followed_by(Beat("host-a", 2, "step 1")).later(1.0)
    assert (same.silence, same.same_for) == (1.0, 3.0)
    other = same.followed_by(Beat("host-a", 3, "step 2")).later(1.0)
    assert (other.silence, other.same_for) == (1.0, 1.0)


def test_one_that_died_before_its_first_beat_is_named_by_its_number():
    verdict = heartbeats.judge([Heard(Beat("host-a"), 0.0), Heard(Beat(""), 31.0)], LIMIT)
    assert verdict is not None
    assert verdict.line.startswith("process 1 has not been heard for 31 s; it last did: starting")


def test_a_beat_is_what_was_sent():
    beat = Beat("höst", 3, "step 4", 2, "Gloo", 0.5, 76, 'a "message"', {"share": [0.25, 1]})
    assert heartbeats.beat_of(beat.text()) == beat


def _caused(error, cause):
    error.__cause__ = cause
    return error


GLOO = jax.errors.JaxRuntimeError("INTERNAL: Gloo all-reduce failed: Connection reset by peer")


@pytest.mark.parametrize(
    ("error", "of_others", "of_host"),
    [
        (GLOO, True, False),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), True, False),
        (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), True, False),
        (_caused(CheckpointError("checkpoint 20 was not written: Barrier timed out"), GLOO), True, False),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False, False),
        (ValueError("socket"), False, False),
        (OSError(errno.ENOSPC, "No space left on device"), False, True),
        (CheckpointError("checkpoint 20 was not written: No space left on device"), False, True),
        (CheckpointError("checkpoint 20 is corrupt: params is not what was written"), False, False),
        (_caused(UserError("run_dir cannot be written"), OSError(errno.EROFS, "Read-only")), False, False),
    ],
)  # fmt: skip
def test_whose_doing_an_error_is(error, of_others, of_host):
    assert (peers.is_of_others(error), peers.is_of_host(error)) == (of_others, of_host)


def test_an_error_that_led_to_itself_is_looked_at_once():
    """As where the error of a thread is raised again while what it led to is dealt with."""
    first, second = CheckpointError("checkpoint 20 was not written"), OSError("gone")
    first.__cause__, second.__cause__ = second, first
    assert not peers.is_of_others(first)
    second.__cause__ = _caused(GLOO, first)
    assert peers.is_of_others(first)


def test_one_process_alone_is_asked_nothing():
    peers.doing("step 1")
    peers.saved(20)
    peers.report({"share": 1})
    with peers.at_end(lambda: pytest.fail("it was not ended")):
        assert peers.texts("key", "own") == ["own"]
    assert peers.reports() == []
    assert peers.name(3) == "process 3"


class _Left(BaseException):
    pass


class _Watch:
    index = 0

    def leave(self, code, message):
        """As of a process that ends."""
        raise _Left(code)


def test_a_reader_who_has_seen_enough_ends_process_0_as_sigpipe_does(monkeypatch):
    """It is no failure of its host, for which the same command is to be started again."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(_Left, match="141"):
            peers._Company(_Watch()).blame(BrokenPipeError(errno.EPIPE, "Broken pipe"))
