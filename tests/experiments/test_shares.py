"""Shares of hosts in a step's time: in closed form, and of processes one of which is made slow."""

import itertools
import json

import jax
import pytest

from experiments.run import trackers
from experiments.runtime import own_time, peers
from experiments.runtime.own_time import Judge, OwnTime, StallClock, num_probes
from experiments.runtime.shares import Figures, Slowest, cause_of, shares_of, slowest_of

PROBE = 0.005


def _waiting_for_each_other(*own):
    """Figures of processes that do so much themselves, each (host, stalled, devices), and wait for the slowest."""
    step = max(map(sum, own))
    fastest = min(devices for _, _, devices in own)
    return [Figures(host, step - host, stalled, PROBE * devices / fastest) for host, stalled, devices in own]


@pytest.mark.parametrize(
    ("own", "slowest", "cause"),
    [
        ([(1.0, 0.0, 3.0), (9.0, 0.0, 3.0), (1.0, 0.0, 3.0)], 1, "data and Python"),
        ([(1.0, 8.0, 3.0), (1.0, 0.0, 3.0)], 0, "standing still"),
        ([(1.0, 0.0, 3.0), (1.0, 0.0, 3.0), (1.0, 0.0, 3.0), (1.0, 0.0, 9.0)], 3, "its devices"),
        ([(2.0, 0.0, 3.0), (2.0, 1.0, 6.0)], 1, "its devices"),
    ],
)
def test_shares_are_what_each_does_over_what_the_slowest_does(own, slowest, cause):
    """Exact where the slowest also waits least: c is then its own time at its devices."""
    figures = _waiting_for_each_other(*own)
    expected = [sum(each) / max(map(sum, own)) for each in own]
    assert shares_of(figures) == pytest.approx(expected, rel=1e-12)
    found = slowest_of(shares_of(figures))
    assert found is not None
    assert (found.index, found.share) == (slowest, pytest.approx(1.0))
    assert cause_of(figures, slowest) == cause


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([1.0, 1.0], None),
        ([0.75, 0.75, 0.75, 0.99], None),
        ([0.75, 1.0], Slowest(1, 1.0, 0.75)),
        ([1.0, 0.2, 0.9, 0.4], Slowest(0, 1.0, 0.4)),
        ([0.9, 1.0, 0.2, 0.9], None),
    ],
)
def test_the_slowest_is_beyond_the_median_of_the_others(found, expected):
    assert slowest_of(found) == expected


def test_probes_take_no_more_than_their_part_of_the_time():
    """Of intervals from 1 ms to 1000 s; the one after the first interval, of which it is always, is not counted."""
    for length in (0.001, 0.01, 0.3, 1.0, 2.0, 7.0, 60.0, 1000.0):
        probes = sum(num_probes(interval, length, PROBE) for interval in range(2, 20_002))
        assert probes * PROBE <= own_time.PROBING * length * 20_000
        assert probes * PROBE >= min(own_time.PROBING * length / 4 * 20_000, own_time.MOST_PROBES * PROBE * 20_000)


def test_hosts_probe_after_the_same_intervals():
    """Whoever probes less often does so where the others do, too."""
    after = [{k for k in range(1, 5000) if num_probes(k, length, PROBE)} for length in (0.011, 0.02, 0.05, 0.4, 1.9)]
    assert all(rarer <= more for rarer, more in itertools.pairwise(after))


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(own_time.distributed, "warn", found.append)
    return found


def test_who_holds_the_others_up_for_long_is_warned_of_once(warnings):
    judge, slow = Judge(), _waiting_for_each_other((1.0, 0.0, 3.0), (6.0, 0.0, 3.0))
    alike = _waiting_for_each_other((1.0, 0.0, 3.0), (1.0, 0.0, 3.0))
    judge.take(slow, 0.0, names=False)
    assert (judge.row, judge.told) == ({"host_shares": [0.444, 1.0]}, "")
    for now in range(0, 29, 7):
        judge.take(slow, float(now), names=True)
    assert judge.row == {"host_shares": [0.444, 1.0], "slowest_host": peers.name(1)}
    assert judge.told == f"waiting for {peers.name(1)}: 1.00, others 0.44"
    judge.take(alike, 29.0, names=True)
    assert (judge.row, judge.told) == ({"host_shares": [1.0, 1.0]}, "")
    judge.take(slow, 31.0, names=True)
    judge.take(slow, 60.9, names=True)
    assert warnings == []
    for now in (61.0, 99.0, 150.0):
        judge.take(slow, now, names=True)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: {peers.name(1)} holds the others up, for 30 s now")
    assert warnings[0].endswith("data and Python")


def test_a_clock_knows_how_late_its_thread_is_before_that_wakes():
    clock = StallClock()
    clock.close()
    clock._late_and_due = 0.5, 10.0
    assert [clock.stalled(now) for now in (9.0, 10.0, 12.0)] == [0.5, 0.5, 2.5]


def test_one_process_measures_nothing(monkeypatch):
    monkeypatch.setattr(peers, "report", lambda figures: pytest.fail("reported"))
    measured = OwnTime()
    with measured.waiting(), measured.left_out():
        pass
    assert (measured.end_interval(10), measured.told()) == ({}, "")
    measured.close()


@pytest.fixture
def measured(monkeypatch):
    """The OwnTime of the first of two processes, the time, which the test moves, and what is reported."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    now, reported = [100.0], []
    monkeypatch.setattr(own_time.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(StallClock, "_tick", lambda clock: None)
    monkeypatch.setattr(own_time.Probe, "_run", lambda probe: PROBE)
    monkeypatch.setattr(peers, "report", reported.append)
    found = OwnTime()
    yield found, now, reported
    found.close()


def test_own_time_is_the_time_outside_of_waiting_and_of_what_is_no_step(measured, monkeypatch):
    own, now, reported = measured
    other = Figures(0.5, 1.5, 0.0, PROBE)._asdict()
    monkeypatch.setattr(peers, "reports", lambda: [reported[-1], other])
    now[0] += 50.0
    assert own.end_interval(1) == {}
    assert reported == []
    row = {}
    for _ in range(8):
        own._clock._late_and_due = 0.0, now[0] + 1e9
        now[0] += 0.2
        with own.waiting():
            now[0] += 1.8
        with own.left_out():
            now[0] += 40.0
        row = own.end_interval(1)
    assert reported[-1] == {"host": 0.2, "blocked": 1.8, "stalled": 0.0, "probe": PROBE}
    assert row == {"host_shares": [0.85, 1.0]}


def test_time_in_which_the_process_stood_still_counts_while_it_waits_only(measured):
    own, now, reported = measured
    own.end_interval(1)
    own._clock._late_and_due = 0.0, now[0]
    now[0] += 1.0
    with own.waiting():
        now[0] += 3.0
    own.end_interval(2)
    assert reported == [{"host": 0.5, "blocked": 1.5, "stalled": 1.5, "probe": PROBE}]


def test_trackers_receive_numbers_only():
    class Told:
        def write(self, step, numbers):
            self.content = step, numbers

    told, row = Told(), {"step": 4, "loss": None, "rate": 2.0, "not_finite": 1}
    trackers._log(told, row | {"host_shares": [0.5, 1.0], "slowest_host": "process 1"})
    step, numbers = told.content
    assert step == 4
    assert json.dumps(numbers) == '{"loss": NaN, "rate": 2.0, "not_finite": 1}'
