"""Every command explains itself: each option with its default, at any width, and the presets with what was measured."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import __main__ as listing
from experiments.cli.options import one_line, wrapped
from experiments.presets import requirements
from experiments.presets.registry import PRESETS
from tests.support.commands import assert_one_line, command, start

ROOT = Path(__file__).parent.parent.parent
COMMANDS = sorted(listing.commands())
CALLS = [(name,) for name in COMMANDS] + [("train", preset) for preset in PRESETS]
_BOX = re.compile("[│╭╮╰╯─]+")
_START = re.compile(r"^(-[a-z], )?--[a-z]|^\[?[A-Z_]{3,}( \[[^ ]+ \.\.\.\])?\]? {2,}\S")


def _module(name):
    found = importlib.util.find_spec(f"experiments.{name}")
    return importlib.import_module(f"experiments.{name}" + (".__main__" if found.submodule_search_locations else ""))


def _help_of(name, *arguments, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    page = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    with contextlib.redirect_stdout(page), pytest.raises(SystemExit) as ended:
        _module(name).main([*arguments, "--help"])
    assert not ended.value.code
    page.seek(0)
    return page.read()


def _options(page):
    """Each option of a page of help with all that is said of it, in one line."""
    found = []
    for line in page.splitlines():
        text = _BOX.sub("", line).strip()
        if not line.startswith("│") or text.startswith("-h, --help"):
            continue
        if _START.match(text):
            found.append(text)
        elif found and text:
            found[-1] += f" {text}"
        elif found:
            found.append("")
    return [text for text in found if _START.match(text)]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_option_says_what_it_is_and_its_default(call, monkeypatch):
    page = _help_of(*call, columns=110, monkeypatch=monkeypatch)
    options = _options(page.replace("─ │\n", "─ │\n│ │\n"))
    assert (call[0] == "train" and len(call) == 1) or any("--quiet" in text for text in options)
    for text in options:
        text = re.split(r" (?=[A-Z][^.]* options$)", text)[0]
        assert re.search(r"[\w)/\]]\. \((default: [^()]+(\([^()]*\))?|required)\)", text), text
        assert "None)" not in text, text


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("call", [("sample",), ("train",), ("train", "digits"), ("prepare",)], ids=" ".join)
def test_help_fits_its_width_and_is_plain_without_a_terminal(call, columns, monkeypatch):
    page = _help_of(*call, columns=columns, monkeypatch=monkeypatch)
    assert max(map(len, page.splitlines())) <= columns
    assert "\x1b" not in page


def test_a_box_of_a_complaint_becomes_one_line():
    box = (
        "╭─ Unknown ──╮\n│ \x1b[1mNo option\x1b[0m --scal │\n│ ────────── │\n│ Perhaps you meant: --scale │\n╰────────╯"
    )
    assert one_line(box) == "No option --scal. Perhaps you meant: --scale"


def test_lines_that_are_coloured_are_measured_without_their_colours():
    assert wrapped("\x1b[1mone two\x1b[0m", 7) == "\x1b[1mone two\x1b[0m"
    assert wrapped("one two three", 7) == "one two\nthree"


def test_the_list_of_commands_names_each_that_can_be_run_with_one_line(capsys):
    listing.main([])
    page = capsys.readouterr().out
    rows = {line.split()[0]: line for line in page.splitlines() if line.startswith("  ")}
    sources = [path.read_text() for path in (ROOT / "experiments").rglob("*.py")]
    others = [source for source in sources if "cli.main(" in source and "def main(args" in source]
    assert rows.keys() == set(COMMANDS)
    assert len(rows) == len(others)
    assert max(map(len, rows.values())) <= 90
    assert all(len(line.split()) > 3 for line in rows.values())


def test_a_command_without_its_dot_is_told_how(capsys):
    with pytest.raises(SystemExit) as ended:
        listing.main(["train", "digits"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a command is named with a dot: say python -m experiments.train\n"


def test_every_figure_of_the_presets_stands_in_the_documents():
    names = "README.md", "docs/pictures.md", "docs/digits_in_words.md", "docs/latents.md", "docs/one_evaluation.md"
    documents = "".join((ROOT / name).read_text() for name in names)
    assert requirements.REQUIREMENTS.keys() == PRESETS.keys()
    for name, known in requirements.REQUIREMENTS.items():
        for figure in re.findall(r"\d+\.\d+|\d+ min(?: \d+ s)?", " ".join((known.time, known.memory, known.reaches))):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]\d)", documents), (name, figure)


def test_presets_are_listed_with_what_they_need_and_reach(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = command("presets", "digits", "cifar10_classifier").stdout
    assert "3 min 24 s" in page
    assert "0.9 GiB resident" in page
    assert "0.05 + 0.68 GiB on each of 8 devices" in " ".join(page.split())
    assert page.count("not measured") == sum(
        row.count("not measured") for row in requirements.REQUIREMENTS["cifar10_classifier"]
    )
    assert max(map(len, page.partition("Times")[0].splitlines())) <= 80
    assert_one_line(command("presets", "digts"), "names must be of digits")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["presets"], ["presets", "--help"], ["__main__"]], ids=" ".join)
def test_a_reader_who_has_seen_enough_ends_a_command_without_an_error(arguments):
    with start(*arguments) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_help_needs_no_standard_output():
    done = subprocess.run(
        f"{sys.executable} -m experiments.presets --help >&-", shell=True, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def _told_commands():
    """Each command line of the documents, in a block or within a line."""
    found = set()
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        texts = page.read_text().replace("\\\n", " ").split("```")
        lines = [line for block in texts[1::2] for line in block.splitlines()]
        lines += [span for text in texts[::2] for span in re.findall(r"`([^`\n]+)`", text)]
        found |= {(page.name, call) for line in lines for call in re.findall(r"python -m experiments\.(.*)", line)}
    return sorted(found)


@pytest.mark.parametrize(("page", "call"), _told_commands())
def test_every_command_line_of_the_documents_reads(page, call, monkeypatch):
    asked = []
    monkeypatch.setattr("experiments.cli.main._run", lambda work, options: asked.append(options))
    name, *arguments = shlex.split(call.replace("--devices N", "--devices 8"), comments=True)
    assert name in COMMANDS
    if arguments and arguments[-1] != "--help":
        _module(name).main(arguments)
        assert asked


def test_the_documents_tell_of_commands():
    told = {page for page, _ in _told_commands()}
    assert {"README.md", "CONTRIBUTING.md", "commands.md", "reliability.md", "throughput.md"} <= told
    assert len(_told_commands()) > 40
