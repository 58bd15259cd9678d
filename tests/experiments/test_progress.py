"""How far a command is: a bar on a terminal, plain lines in a file, nothing where quiet is wanted."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest
import tqdm.auto

from experiments.cli import main as cli
from experiments.cli.options import Verbosity
from experiments.runtime import progress

LINE = re.compile(r"working: (\d+) of 6 steps, [\d.]+ steps/s, 00:0\d gone, 00:0\d left(, loss=1)?")
SLOW = """
import time
from experiments.cli import main as cli
from experiments.runtime import progress
with progress.bar(6, "steps", "working") as bar:
    for index in range(6):
        time.sleep(0.5)
        bar.update()
        if index == 4: cli.warn("a word")
from experiments.presets import __main__ as presets
presets.main(["--bogus"])
"""


@pytest.fixture
def quiet(monkeypatch):
    """As with --quiet."""
    monkeypatch.setattr(cli._Asked, "verbosity", Verbosity(quiet=True))


@pytest.fixture
def impatient(monkeypatch):
    """Lines as often as may be."""
    monkeypatch.setattr(cli._Asked, "verbosity", Verbosity())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)


def _on_a_terminal(*command_line):
    """The exit code of a process, and all that it writes to a terminal of 80 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command_line, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # which ends the reading, once nobody writes any more
        while more := os.read(ours, 4096):
            written += more
    os.close(ours)
    return process.wait(), written.decode()


def _work(seconds=0.0):
    with progress.bar(6, "steps", "working") as shown:
        for _ in range(6):
            time.sleep(seconds)
            shown.update()
            shown.set_postfix(loss=1)


def test_without_a_terminal_there_are_plain_lines(impatient, capsys):
    _work()
    lines = capsys.readouterr().err.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert [int(LINE.fullmatch(line)[1]) for line in lines][-1] == 6


def test_lines_come_no_more_often_than_they_should(impatient, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 60.0)
    _work()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_short_work_is_not_spoken_of(impatient, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 10.0)
    monkeypatch.setattr(progress, "PATIENCE", 2.0)
    _work()
    assert capsys.readouterr().err == ""


def test_quiet_work_is_not_spoken_of(impatient, quiet, capsys):
    _work()
    cli.info("resuming")
    with progress.of_others():
        list(tqdm.auto.tqdm(range(3), file=sys.stderr))
    assert capsys.readouterr() == ("", "")


def test_bars_of_other_packages_are_plain_lines_without_a_terminal(impatient, capsys):
    former = tqdm.auto.tqdm
    with progress.of_others():
        list(tqdm.auto.tqdm(range(3), desc="Shuffling /a/b/c...", unit=" examples", leave=False, mininterval=1.0))
    assert tqdm.auto.tqdm is former
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("Shuffling: 3 of 3 examples, ")
    assert "\r" not in "".join(lines)


def test_a_terminal_has_one_bar_above_which_lines_are_said_and_mistakes_in_one_coloured_line():
    code, written = _on_a_terminal(sys.executable, "-c", SLOW)
    assert code == 2, written
    *shown, mistake = [part for part in re.split(r"[\r\n]+", written) if part.strip()]
    assert mistake == "\x1b[31merror:\x1b[0m Unrecognized options: --bogus"
    assert shown.count("a word") == 1
    bars = [part for part in shown if part != "a word"]
    assert all(part.startswith("working: ") and len(part) <= 80 for part in bars), bars
    assert "6/6" in bars[-1]
    assert "\x1b" not in "".join(shown)


@pytest.mark.parametrize(
    ("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(environment, is_coloured, monkeypatch):
    for name, value in ({"NO_COLOR": "", "TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    assert not cli._is_coloured()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli._is_coloured() == is_coloured


def test_prepare_says_plain_lines_without_a_terminal(tmp_path):
    from tests.support.commands import command as run

    done = run("prepare", "digits", "--data-dir", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"digits is prepared in {tmp_path}",
        "  1797 pictures of 8 x 8, gray: train 1437, test 360",
        "  10 labels, the smallest 8 with 174",
    ]
    assert "\r" not in done.stderr
