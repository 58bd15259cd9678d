"""Requests to stop: deferred where there is something to finish, at once elsewhere, and none after the context."""

import io
import os
import signal
import subprocess
import sys
import threading

import pytest
from tqdm import tqdm

from experiments.cli import main as cli
from experiments.runtime.signals import SIGNALS, StoppedError, StopRequests


def _ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_waits_while_there_is_something_to_finish(number):
    """At its end, if nobody looked, the request counts: what comes after, such as a report, is not begun."""
    stopped = pytest.raises(StoppedError, match=f"stopped by {number.name} outside")
    with StopRequests() as requests, stopped, requests.deferred():
        assert not requests.is_asked
        _ask(number)
        assert requests.is_asked


def test_a_request_ends_even_what_is_deferred_once_it_is_overdue():
    with pytest.raises(StoppedError, match="stopped by SIGTERM"), StopRequests() as requests, requests.deferred():
        requests.end_overdue(0.0)
        _ask()
        requests.end_overdue(3600.0)
        requests.end_overdue(0.0)
        raise AssertionError


def test_what_ends_the_work_is_not_hidden_by_a_request():
    with pytest.raises(ZeroDivisionError), StopRequests() as requests, requests.deferred():
        _ask()
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("asked", "ended"),
    [
        (["SIGTERM", "SIGTERM", "SIGUSR1"], []),
        (["SIGUSR1", "SIGTERM"], []),
        (["SIGTERM", "SIGINT"], [130]),
        (["SIGINT", "SIGINT"], [130]),
        (["SIGINT", "SIGTERM"], [143]),
    ],
)
def test_a_second_signal_ends_at_once_where_one_is_from_a_terminal(asked, ended, monkeypatch):
    """Two SIGTERMs are one machine's end, told by two ways; the save goes on."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(StoppedError), StopRequests() as requests, requests.deferred():
        for name in asked:
            _ask(signal.Signals[name])
        assert requests.is_asked
    assert codes == ended


def test_nobody_who_deals_with_errors_deals_with_a_request():
    with pytest.raises(StoppedError), StopRequests():
        try:
            _ask()
        except Exception:
            pytest.fail("the request was taken for an error")


class _Broken(io.TextIOBase):
    """A stream whose reader is gone."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_standard_error_stops_nobody(monkeypatch):
    """As where Ctrl-C ends the program that reads it, too."""
    monkeypatch.setattr(sys, "stderr", _Broken())
    cli.warn("a line")
    for _ in tqdm(range(3), file=cli.Terminal(), mininterval=0):
        pass


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_elsewhere_it_ends_the_work_at_once(name):
    with pytest.raises(StoppedError, match=f"stopped by {name} outside training"), StopRequests():
        _ask(signal.Signals[name])
        pytest.fail("the signal was not noticed")


DEAF = """
import hashlib, os, signal, threading, time
from experiments.runtime.signals import StopRequests

def ask_twice():
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

with StopRequests() as requests, requests.deferred():
    threading.Thread(target=ask_twice, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def test_a_second_ctrl_c_ends_a_process_whose_main_thread_computes_in_c():
    """As where it compiles, or waits for other hosts: Python's handlers wait for its next line."""
    done = subprocess.run([sys.executable, "-c", DEAF], timeout=120, check=False)
    assert done.returncode == 128 + signal.SIGINT


def test_the_former_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequests():
        assert not {signal.getsignal(number) for number in SIGNALS} & set(before)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_than_the_main_one_listens_to_nothing():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with StopRequests():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]
