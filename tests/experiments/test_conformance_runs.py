"""Runs of other libraries: whatever a child does ends in rows, unfinished folders are made anew, news are named."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cfgjax.verify import Check
from experiments.conformance import __main__ as command_line
from experiments.conformance import child, environments, news, processes
from experiments.conformance.environments import NotInstalledError
from experiments.conformance.page import page
from experiments.conformance.records import Finding, Record, Row, findings_of, read_rows, to_json
from experiments.conformance.registry import BASES, LIBRARIES, Library
from tests.support.commands import assert_one_line, command

DOCS = Path(__file__).parent.parent.parent / "docs"
ROW = Row(
    library="azula",
    version="0.11.1",
    call="CFGDenoiser(denoiser)",
    kind="guider",
    findings=(Finding("w = 1: the labelled field", False, 1.9, 1e-4, "looks like 1 + w"), Finding("again", True, 0, 1)),
    fails=("w = 1: the labelled field",),
    remark="w = 1 + `guidance`. [`azula_euler_is_ddim`]",
    seconds=0.5,
    python="3.11.7",
    framework="torch 2.13.0",
    machine="Linux",
    date="2026-11-29",
)
AZULA = LIBRARIES["azula"]


def _run(tmp_path, code, seconds=30.0):
    script = tmp_path / "child.py"
    script.write_text(f"import sys\nfile = open(sys.argv[1], 'a')\nrow = {to_json(ROW)!r}\n{code}\n")
    return processes.run_child([sys.executable, str(script)], "azula", AZULA, tmp_path, tmp_path, seconds)


def test_a_child_that_ends_well_gives_its_rows(tmp_path):
    assert _run(tmp_path, r"print('a library prints'); file.write(row + '\n' + row + '\n')") == [ROW, ROW]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            r"file.write(row + '\n'); file.flush(); raise ValueError('no such sampler')",
            "ValueError: no such sampler, after",
        ),
        (r"file.write(row + '\n'); file.flush(); import os; os.kill(os.getpid(), 9)", "ended with exit code -9"),
        (r"file.write(row + '\n' + row[:50])", "1 of its lines are no rows, after 1 rows"),
        (r"file.write(row + '\nnot a row\n[1]\n')", "2 of its lines are no rows"),
        (r"file.write(row + '\n'); file.flush(); import time; time.sleep(60)", "stopped after 3 s, after 1 rows"),
    ],
    ids=["raises", "killed", "half a line", "garbage", "hangs"],
)
def test_a_child_that_does_not_gives_one_row_more(code, words, tmp_path):
    first, last = _run(tmp_path, code, 3.0 if "sleep" in code else 30.0)
    assert first == ROW
    assert (last.kind, last.is_as_expected) == ("run", False)
    assert words in last.findings[0].cause


def test_a_row_comes_back_from_its_line_with_infinity_and_without_nan(tmp_path):
    record = Record(
        "f(x)", "solver", lambda: [Check("end", False, math.nan, 0.1, "raised"), Check("order", True, math.inf, 2)]
    )
    end, order = findings_of(record)
    assert (end.measured, order.measured) == (None, math.inf)
    file = tmp_path / "rows.jsonl"
    row = replace(ROW, findings=(end, order))
    file.write_text(to_json(row) + "\n")
    assert read_rows(file) == ([row], 0)


def test_a_record_that_raises_half_way_keeps_what_it_found():
    def checks():
        yield Check("first", True, 0.0, 1.0)
        raise AttributeError("no sqrt")

    first, call = findings_of(Record("f(x)", "law", checks))
    assert (first.name, call.name, call.cause) == ("first", "call", "raised AttributeError: no sqrt")


def test_a_child_writes_a_line_for_each_record_with_the_installed_version(tmp_path, monkeypatch):
    monkeypatch.setitem(child.LIBRARIES, "numpy", Library("numpy", "1.0", "jax", ""))
    records = [Record(f"f({i})", "solver", lambda: [Check("end", True, 0.0, 1.0)]) for i in range(2)]
    child.write("numpy", records, tmp_path / "rows.jsonl")
    rows, num_bad = read_rows(tmp_path / "rows.jsonl")
    assert ([row.call for row in rows], num_bad) == (["f(0)", "f(1)"], 0)
    assert all(row.version != "1.0" and row.is_as_expected for row in rows)


# News


def test_a_row_as_it_is_known_is_no_news():
    assert list(news.unexpected([ROW])) == []


def test_a_repaired_call_and_a_new_failure_are_named():
    repaired = replace(ROW, version="0.12.0", findings=(replace(ROW.findings[0], is_passed=True), ROW.findings[1]))
    (line,) = news.unexpected([repaired])
    assert line == "azula 0.12.0, CFGDenoiser(denoiser): no longer fails w = 1: the labelled field"
    worse = replace(ROW, findings=(ROW.findings[0], replace(ROW.findings[1], is_passed=False, measured=2.0)))
    (line,) = news.unexpected([worse])
    assert line == "azula 0.11.1, CFGDenoiser(denoiser): now fails again (2, allowed 1)"
    (line,) = news.changes([repaired, replace(ROW, call="another")], [ROW])
    assert line == ("azula, CFGDenoiser(denoiser): was: fails w = 1: the labelled field (0.11.1); now passes (0.12.0)")


# Environments


def _holding(monkeypatch, installed):
    monkeypatch.setattr(environments, "_install", lambda python, what, *more: installed.append(what))


def test_a_folder_is_made_once_and_anew_where_it_was_not_finished_or_holds_another_version(tmp_path, monkeypatch):
    installed = []
    _holding(monkeypatch, installed)
    for library in (AZULA, AZULA, replace(AZULA, version="0.12.0")):
        folder = environments.library_folder(tmp_path, "azula", library, Path("python"))
    assert installed == [("azula==0.11.1",), ("azula==0.12.0",)]
    (folder / "holds.json").unlink()
    (folder / "half").write_text("")
    environments.library_folder(tmp_path, "azula", AZULA, Path("python"))
    assert len(installed) == 3
    assert not (folder / "half").exists()


def test_a_version_may_be_a_file_or_a_folder():
    assert replace(AZULA, version="/dist/azula-0.12.0-py3-none-any.whl").requirements[0].startswith("/dist/")
    assert LIBRARIES["hackable_diffusion"].requirements == ("hackable_diffusion==1.0.1", "kauldron==1.4.4")


def test_what_pip_cannot_install_is_said_in_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_PIP", ("-c", "import sys; sys.exit('ERROR: No matching distribution')"))
    with pytest.raises(
        NotInstalledError, match=r"pip could not install azula==0.11.1: ERROR: No matching distribution"
    ):
        environments.library_folder(tmp_path, "azula", AZULA, Path(sys.executable))
    monkeypatch.setattr(processes, "base_python", lambda places, base: Path(sys.executable))
    (row,) = processes.rows_of("azula", AZULA, tmp_path, tmp_path, 10.0)
    assert "No matching distribution" in row.findings[0].cause
    assert not (tmp_path / "azula" / "holds.json").exists()


def test_an_interpreter_that_is_not_there_is_asked_for():
    assert environments.find_python((3, 11)) == sys.executable
    with pytest.raises(NotInstalledError, match=r"needs Python 9.1 or newer"):
        environments.find_python((9, 1))


def test_every_library_has_a_base_and_an_adapter():
    folder = Path(environments.__file__).parent / "libraries"
    assert len(LIBRARIES) >= 8
    for name, library in LIBRARIES.items():
        assert library.base in BASES
        assert (folder / f"{name}.py").exists()


# The command and the page


def _told(monkeypatch, rows):
    monkeypatch.setattr(command_line, "rows_of", lambda name, *rest: rows[name])


def test_the_command_writes_rows_and_page_and_keeps_the_rows_of_others(tmp_path, monkeypatch):
    other = replace(ROW, library="diffusers", version="0.42.1")
    _told(monkeypatch, {"azula": [ROW], "diffusers": [other]})
    places = ("--out", tmp_path, "--environments", tmp_path / "environments")
    for name in ("azula", "diffusers"):
        assert command("conformance", "--libraries", name, *places).returncode == 0
    assert read_rows(tmp_path / "conformance.jsonl") == ([other, ROW], 0)
    text = (tmp_path / "conformance.md").read_text()
    assert text == page([other, ROW])
    assert "| `CFGDenoiser(denoiser)` | - | 1.9 |" in text
    assert "w = 1 + `guidance`. (`findings/azula_euler_is_ddim.sh`)" in text


def test_news_end_the_command_with_a_line_each_and_code_4(tmp_path, monkeypatch):
    _told(monkeypatch, {"azula": [replace(ROW, fails=())]})
    (tmp_path / "old.jsonl").write_text(to_json(replace(ROW, findings=ROW.findings[1:])) + "\n")
    done = command(
        "conformance", "--libraries", "azula", "--out", tmp_path, "--environments", tmp_path / "environments",
        "--against", tmp_path / "old.jsonl",
    )  # fmt: skip
    assert done.returncode == 4
    assert "now fails w = 1: the labelled field (1.9, allowed 0.0001, looks like 1 + w)" in done.stdout
    assert "was: passes (0.11.1); now fails w = 1: the labelled field (0.11.1)" in done.stdout
    assert done.stderr == "1 of 1 calls are not as they are known to be\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--libraries", "diffuser"), "libraries must be of diffusers, flow_matching"),
        (("--versions", "azula"), "versions must be NAME=VERSION with NAME of"),
        (("--versions", "none=1.0"), "versions must be NAME=VERSION with NAME of"),
        (("--against", "setup.cfg"), "against must be the conformance.jsonl of an older run"),
        (("--against", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--seconds", "0"), "seconds must be positive, got 0"),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else "",
)
def test_mistakes_end_in_one_line(arguments, words, tmp_path):
    places = ("--out", tmp_path, "--environments", tmp_path / "environments")
    assert_one_line(command("conformance", *arguments, *places), words)


def test_another_version_is_asked_for_by_name(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(command_line, "rows_of", lambda name, library, *rest: asked.append(library) or [ROW])
    places = ("--out", tmp_path, "--environments", tmp_path / "environments")
    command("conformance", "--libraries", "azula", "--versions", "azula==0.12.0", *places)
    assert asked == [replace(AZULA, version="0.12.0")]


def test_a_library_that_was_not_run_is_on_the_page():
    text = page([processes.not_run("gensbi", LIBRARIES["gensbi"], "needs Python 3.12 or newer, and none was found")])
    assert "**Not run to its end**: needs Python 3.12 or newer, and none was found." in text


ROWS = DOCS / "conformance.jsonl"


def test_the_documents_page_is_that_of_its_rows():
    rows, num_bad = read_rows(ROWS)
    assert num_bad == 0
    assert (DOCS / "conformance.md").read_text() == page(rows)
    assert json.loads(ROWS.read_text().splitlines()[0]).keys() == {*ROW.__dataclass_fields__}


def test_what_the_documents_show_is_what_is_known():
    rows, _ = read_rows(ROWS)
    assert list(news.unexpected(rows)) == []
    assert len({row.library for row in rows}) >= 8
    assert len({(row.library, row.call) for row in rows if row.kind != "figure"}) >= 30


def test_every_script_that_the_page_names_is_there():
    rows, _ = read_rows(ROWS)
    named = {word for row in rows for word in row.remark.split("[`")[1:]}
    scripts = {word.partition("`")[0] for word in named}
    assert len(scripts) > 10
    assert [name for name in scripts if not (DOCS.parent / "findings" / f"{name}.sh").exists()] == []
