"""The notebooks: each built one is its script with figures, tells nothing of the machine, and runs to its end."""

import base64
import builtins
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from experiments.notebooks.__main__ import FOLDER, NAMES, figures, read_script
from tests.support.commands import assert_one_line, command, finish, start

MOST_BYTES = 600_000
OF_A_MACHINE = re.compile(r"(?<![\w./])/(tmp|home|root|Users|usr|work|var)/|site-packages|\\x1b")


def _built(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", nbformat.NO_CONVERT)


def _cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def _outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def _spread(figure):
    """The standard deviation of a figure's gray values: 0 for an empty one."""
    with Image.open(io.BytesIO(base64.b64decode(figure["image/png"]))) as image:
        return np.asarray(image.convert("L"), np.float64).std()


def test_every_script_has_its_notebook_and_none_is_left_over():
    scripts = {file.stem for file in FOLDER.glob("[a-z]*.py")}
    assert scripts == {file.stem for file in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script(name):
    """Build it again with ``python -m experiments.notebooks`` where this fails."""
    assert _cells(_built(name)) == _cells(read_script(FOLDER / f"{name}.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_its_figures_and_nothing_of_the_machine(name):
    """Every cell that shows a figure has one that is not empty; no errors, warnings, paths, times or versions."""
    notebook, file = _built(name), FOLDER / f"{name}.ipynb"
    num_shown = sum(cell.source.count("plt.show()") for cell in notebook.cells)
    spreads = [_spread(figure) for figure in figures(notebook)]
    assert len(spreads) == num_shown >= 2
    assert min(spreads) > 5
    assert {output.output_type for output in _outputs(notebook)} <= {"stream", "display_data"}
    assert {output.name for output in _outputs(notebook) if output.output_type == "stream"} <= {"stdout"}
    texts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in _outputs(notebook)]
    assert not [text for text in texts if OF_A_MACHINE.search(text)]
    assert file.stat().st_size < MOST_BYTES
    assert set(notebook.metadata) == {"jupytext", "kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert "version" not in notebook.metadata.language_info
    assert all(not cell.metadata for cell in notebook.cells)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_only_what_it_states_and_checks(name):
    """Each asserts something, by the public names alone."""
    source = (FOLDER / f"{name}.py").read_text()
    assert len(re.findall(r"^\s*(?:assert|np\.testing\.assert)", source, re.MULTILINE)) >= 3
    assert not re.search(r"experiments\.|cfgjax[\w.]*\._|import _", "\n".join(re.findall(r"^(?!#).*", source, re.M)))


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_notebook_lead_to_notebooks(name):
    links = re.findall(r"\]\(([\w./:-]+)\)", (FOLDER / f"{name}.py").read_text())
    assert {link for link in links if not link.startswith("https://")} <= {f"{other}.ipynb" for other in NAMES}


def test_an_unknown_notebook_is_refused():
    assert_one_line(command("notebooks.__main__", "swep"), "names must be of from_path_to_guidance, ")


def test_missing_packages_are_named(monkeypatch, tmp_path):
    kept = builtins.__import__

    def without(name, *rest):
        if name == "jupytext":
            raise ImportError(name)
        return kept(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert_one_line(command("notebooks.__main__", "sweep", "--out", tmp_path), "pip install -e '.[notebooks]'")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_what_it_states_holds(name, tmp_path, monkeypatch):
    """In a kernel of its own, compiled as for a user: a cell whose assertion fails, or a warning, ends it."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    done = finish(start("notebooks", name, "--out", tmp_path))
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(tmp_path / f"{name}.ipynb", nbformat.NO_CONVERT)
    assert [output for output in _outputs(notebook) if output.get("name") == "stderr"] == []
    assert len(list(figures(notebook))) == len(list(figures(_built(name))))
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}.ipynb"]
