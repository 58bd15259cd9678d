"""Signals to one or all of two processes of a command, each at a phase: all end alike, and lose nothing."""

import os
import signal

import pytest

from experiments import train
from experiments.fault_injection import phases
from experiments.fault_injection.loopback import Hosts
from experiments.fault_injection.phases import Signal
from experiments.fault_injection.signals_of_hosts import Stops, in_turn
from experiments.runtime.signals import StoppedError, StopRequests


def test_every_phase_gets_a_signal():
    assert {sent.phase for sent in in_turn(None)} == phases.PHASES.keys()


def test_a_signal_comes_as_its_phase_begins_for_that_time(monkeypatch):
    """Process 1, at the second report and each_later more: at the third of them, and not before."""
    calls = []
    monkeypatch.setattr(train, "report", lambda: calls.append("report"))
    Signal("report", 2, to=(1,), each_later=1)(0)
    Signal("report", 2, to=(1,), each_later=1)(1)
    with pytest.raises(StoppedError), StopRequests():
        for _ in range(4):
            train.report()
    assert calls == ["report"] * 2


def test_a_signal_may_be_sent_twice(monkeypatch):
    sent = []
    monkeypatch.setattr(train, "report", lambda: None)
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append((process, number)))
    Signal("report", times=2, sent=signal.SIGINT)(0)
    train.report()
    assert sent == [(os.getpid(), signal.SIGINT)] * 2


@pytest.mark.slow
def test_two_that_are_signalled_at_a_phase_end_alike_and_go_on_to_the_same_bits(tmp_path):
    """As one joins, as one reads, all at steps of their own, as one verifies a checkpoint, as one reports."""
    stops = Stops(tmp_path / "runs", Hosts(2, 1))
    signals = [
        Signal("join", to=(1,)),
        Signal("read", to=(1,)),
        Signal("step", 4, each_later=2),
        Signal("verify", to=(0,)),
        Signal("report", to=(1,)),
    ]
    saved = [stop.saved for stop in stops.all(signals)]
    assert saved[:2] == [0, 0]
    assert 4 < saved[2] < saved[3] < saved[4] == 40
