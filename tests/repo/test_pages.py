"""The documentation's pages keep their word: their examples run, and the reference has every public module."""

import doctest
import re
from pathlib import Path

import pytest

import cfgjax

DOCS = Path(__file__).parent.parent.parent / "docs"
NOT_RUN = {"published_weights"}  # its examples read files that others publish
PAGES = {page.stem: page for page in sorted(DOCS.glob("*.md")) if re.search(r"```py(?:thon|con)\n", page.read_text())}


def _run(page, scope):
    """Runs the examples of a page from top to bottom in one scope: plain ones, and those that show what they print."""
    runner, report = doctest.DocTestRunner(), []
    for number, (kind, code) in enumerate(re.findall(r"```py(thon|con)\n(.*?)```", page.read_text(), re.DOTALL)):
        name = f"{page.name}, example {number + 1}"
        if kind == "thon":
            exec(compile(code, name, "exec"), scope)
            continue
        example = doctest.DocTestParser().get_doctest(code, scope, name, str(page), 0)
        runner.run(example, out=report.append, clear_globs=False)
        scope |= example.globs
    assert not runner.failures, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PAGES.keys() - NOT_RUN))
def test_the_examples_of_a_page_run(name):
    _run(PAGES[name], {})


def _public_modules():
    root = Path(cfgjax.__file__).parent
    packages = [path.parent.name for path in root.glob("*/__init__.py")]
    return {f"cfgjax.{name}" for name in [*packages, *(path.stem for path in root.glob("[a-z]*.py"))]}


def test_every_module_is_in_the_reference():
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    assert _public_modules() <= set(re.findall(r"automodule:: ([\w.]+)", text))
