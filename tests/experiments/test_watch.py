"""The threads by which processes watch each other: several watches in one process, over a table that may not answer."""

import threading
import time

import jax
import pytest

from experiments.runtime import aborts, coordination, heartbeats
from experiments.runtime.watch import Watch

LIMIT = 1.0
SECONDS = 20.0
"""Within which what is waited for comes, on a machine however busy."""


class _Table:
    """The coordination service of a command, from which threads can be cut off."""

    def __init__(self):
        self.texts, self.cut, self.ended = {}, set(), {}

    def _reach(self):
        if threading.current_thread().name in self.cut:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: no route to host")

    def put(self, key, text):
        """As coordination.put."""
        self._reach()
        self.texts[key] = text

    def get(self, key):
        """As coordination.get."""
        self._reach()
        return self.texts.get(key)

    def all_of(self, folder):
        """As coordination.all_of."""
        self._reach()
        return {key.partition("/")[2]: text for key, text in dict(self.texts).items() if key.startswith(f"{folder}/")}


class _Ended(BaseException):
    pass


class _Watched(Watch):
    """A watch whose process's end is written down, and whose threads have its number in their names."""

    def __init__(self, table, index, number):
        self.table = table
        self.work_on_abort = None
        super().__init__(index, number, f"host-{'abcd'[index]}", LIMIT)

    def _send_and_fetch(self):
        threading.current_thread().name = f"sends {self.index}"
        super()._send_and_fetch()

    def _keep_time(self):
        try:
            super()._keep_time()
        except _Ended:
            return

    def _exit(self, code):
        for work in self._work_at_end:
            work()
        self.table.ended.setdefault(self.index, code)
        self._is_closed.set()
        raise _Ended

    def dies(self):
        """As a process that is killed: its threads end without a word."""
        self._is_closed.set()


@pytest.fixture
def watches(monkeypatch):
    """Makes so many watches of one command."""
    table, made = _Table(), []
    for name, seconds in (("INTERVAL", 0.05), ("SUSPECTED", 0.3), ("GRACE", 0.4)):
        monkeypatch.setattr(heartbeats, name, seconds)
    monkeypatch.setattr("experiments.runtime.watch._LINGER", 0.3)
    monkeypatch.setattr("experiments.runtime.watch._TICK", 0.02)
    for name in ("put", "get", "all_of"):
        monkeypatch.setattr(coordination, name, getattr(table, name))
    monkeypatch.setattr(aborts, "on_abort", lambda work: None)

    def make(number):
        made.extend(_Watched(table, index, number) for index in range(number))
        return made

    yield make
    for watch in made:
        watch.dies()


def _wait(event):
    until = time.monotonic() + SECONDS
    while not event():
        assert time.monotonic() < until
        time.sleep(0.01)


def _lines(capfd):
    return capfd.readouterr().err.splitlines()


def test_nobody_is_ended_while_all_are_heard(watches):
    first, *_ = made = watches(3)
    _wait(lambda: all(each.beat.count > 0 for each in first.heard()))
    time.sleep(2 * LIMIT)
    assert [watch.table.ended for watch in made] == [{}] * 3


def test_a_dead_one_ends_all_others_with_a_line_that_names_it_and_their_last_work_is_done(watches, capfd):
    made = watches(3)
    made[2].own.doing, freed = "step 7", []
    made[0].at_end(lambda: freed.append("lock"))
    _wait(lambda: made[0].heard()[2].beat.doing == "step 7")
    made[2].dies()
    _wait(lambda: len(made[0].table.ended) == 2)
    assert made[0].table.ended == {0: 76, 1: 76}
    assert freed == ["lock"]
    lines = _lines(capfd)
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("process 2 on host-c has not been heard for")
        assert "it last did: step 7; start the same command on all processes again" in line


def test_one_that_is_cut_off_ends_itself_and_the_others_end_because_of_it(watches, capfd):
    made = watches(3)
    _wait(lambda: all(each.beat.count for each in made[0].heard()) and made[1].heard()[0].beat.count)
    made[0].table.cut.add("sends 1")
    _wait(lambda: len(made[0].table.ended) == 3)
    assert set(made[0].table.ended.values()) == {76}
    named = sorted(line.partition(" has")[0] for line in _lines(capfd))
    assert named == ["process 0 on host-a", "process 1 on host-b", "process 1 on host-b"]


def test_the_exit_code_of_one_that_was_asked_to_stop_is_that_of_all(watches, capfd):
    made = watches(2)
    with pytest.raises(_Ended):
        made[1].leave(75, "stopped by SIGTERM")
    _wait(lambda: len(made[0].table.ended) == 2)
    assert made[0].table.ended == {0: 75, 1: 75}
    assert _lines(capfd) == ["process 1 on host-b: stopped by SIGTERM"]


@pytest.mark.parametrize("faulty", [0, 2])
def test_process_0_whose_end_aborts_the_others_ends_last(watches, faulty):
    made = watches(3)
    made[1].own.code = 0  # it waits for the others already
    with pytest.raises(_Ended):
        made[faulty].leave(1, "a bug")
    _wait(lambda: len(made[0].table.ended) == 3)
    assert made[0].table.ended == {0: 76, 1: 76, 2: 76} | {faulty: 1}
    assert list(made[0].table.ended)[-1] == 0


def test_all_close_only_once_all_have_done_their_work(watches):
    made = watches(2)
    closing = threading.Thread(target=made[1].close)
    closing.start()
    time.sleep(0.5)
    assert closing.is_alive()
    made[0].close()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert made[0].table.ended == {}


def test_one_that_waits_for_the_others_at_the_end_is_ended_where_one_of_them_dies(watches):
    made = watches(3)
    _wait(lambda: all(each.beat.count for each in made[0].heard()))
    threading.Thread(target=made[1].close, daemon=True).start()
    made[2].dies()
    _wait(lambda: len(made[0].table.ended) == 2)
    assert set(made[0].table.ended.values()) == {76}


def test_an_abort_while_the_table_answers_is_this_process_s_own_and_goes_on(watches, capfd):
    made = watches(2)
    made[1]._aborted()
    assert made[1].table.ended == {}
    assert _lines(capfd) == []


def test_an_abort_once_the_table_is_lost_is_told_as_the_end_of_process_0(watches, capfd, monkeypatch):
    monkeypatch.setattr("experiments.runtime.watch._ANSWER", 0.2)
    made = watches(2)
    _wait(lambda: made[1].heard()[0].beat.count)
    made[0].dies()
    made[1].table.cut.add("sends 1")
    with pytest.raises(_Ended):
        made[1]._aborted()
    assert made[1].table.ended == {1: 76}
    assert _lines(capfd)[0].startswith("process 0 on host-a is gone")
